"""Functions of rows that come out the same to the last bit however many rows there are, where no gradient is kept.

Torch's own do not on a processor: what is left over at the end of its vectors or tiles goes another way.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

FEW, BY = 12, 4  # fewer rows are summed otherwise, unless they come in fours


def times(x: Tensor, matrix: Tensor) -> Tensor:
    """x (..., D) @ matrix (D, V)."""
    rows = x.shape[:-1].numel()
    if rows >= FEW or rows % BY == 0 or torch.is_grad_enabled():
        return x @ matrix
    filled = F.pad(x.reshape(rows, -1), [0, 0, 0, -rows % BY])
    return (filled @ matrix)[:rows].view(*x.shape[:-1], -1)


def sigmoid(x: Tensor) -> Tensor:
    return torch.sigmoid(x) if torch.is_grad_enabled() else 1 / (1 + (-x).exp())

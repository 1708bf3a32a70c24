"""What a network was fed of rows, and when: what a cache holds is judged by it. Knows no cache and no policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from .canvas import Canvas, joined


@dataclass(frozen=True)
class Past:
    """What earlier passes were fed of B rows. block (B,): theirs in the last one, -1 before the first; known (B, W)
    bool: what was fed at all; inputs, times (B, W): what it was last."""

    block: Tensor
    known: Tensor
    inputs: Tensor
    times: Tensor

    @classmethod
    def none(cls, canvas: Canvas) -> Past:
        nothing = torch.zeros_like(canvas.x)
        return cls(torch.full_like(canvas.now, -1), nothing.bool(), nothing, torch.zeros_like(canvas.t))

    def only(self, index: Tensor) -> Past:
        return Past(*(part[index] for part in vars(self).values()))

    def beside(self, other: Past) -> Past:
        return Past(*map(joined, vars(self).values(), vars(other).values()))

    def knowing(self, given: Sequence[Sequence[int]]) -> Past:
        """Rows that were fed this much of their beginnings, though by others."""
        known, inputs = self.known.clone(), self.inputs.clone()
        for row, tokens in enumerate(given):
            known[row, : len(tokens)] = True
            inputs[row, : len(tokens)] = torch.tensor(tokens, dtype=torch.int64, device=inputs.device)
        return replace(self, known=known, inputs=inputs)

    def wide(self, width: int) -> Past:
        """With columns that nothing was fed of."""
        more = max(0, width - self.known.shape[1])
        return Past(self.block, *(F.pad(part, [0, more]) for part in (self.known, self.inputs, self.times)))

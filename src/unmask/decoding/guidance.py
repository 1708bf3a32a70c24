"""What may not be written, and how much the given text counts. Knows no rule of writing.

Classifier-free guidance without a class (LLaDA's): the network sees every text twice, the second time blind, with the
given text masked, and what it says the first time counts for more by what the given text has changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from .canvas import Canvas


def without(values: Tensor, tokens: Sequence[int]) -> Tensor:
    """values (N, V) with -inf at the tokens that are never written."""
    if not tokens:
        return values
    return values.index_fill(-1, torch.tensor(list(tokens), device=values.device), -torch.inf)


def blinded(canvas: Canvas, mask_id: int) -> Canvas:
    """The same rows with the given text masked."""
    given = canvas.given
    return replace(canvas, x=canvas.x.masked_fill(given, mask_id), t=canvas.t.masked_fill(given, 1.0))


def guided(sees: Tensor, blind: Tensor, scale: float) -> Tensor:
    """c + scale (c - u) for the log-probabilities or log-scores (N, V) c with the given text in sight, u without."""
    impossible = sees.isneginf() | blind.isneginf()
    return (sees + scale * (sees - blind)).masked_fill(impossible, -torch.inf)

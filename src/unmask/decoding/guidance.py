"""What may not be written, and how much the given text counts. Knows no rule of writing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..denoiser import Denoiser, Prediction
from .canvas import Canvas
from .context import Context, Policy


def without(values: Tensor, tokens: Sequence[int]) -> Tensor:
    """values (N, V) with -inf at the tokens that are never written."""
    if not tokens:
        return values
    return values.index_fill(-1, torch.tensor(list(tokens), device=values.device), -torch.inf)


class GuidedContext(Context):
    """Every row twice in one pass, the second time with the given text masked; read as one, c + scale (c - u) for the
    log-probabilities or log-scores c with the text in sight and u without.

    Classifier-free guidance without a class (LLaDA's): the null condition is a given text that is all masks.
    """

    def __init__(self, denoiser: Denoiser, policy: Policy, canvas: Canvas, scale: float) -> None:
        super().__init__(denoiser, policy, self._twice(denoiser, canvas))
        self.scale = scale

    def predict(self, canvas: Canvas, asked: Tensor) -> tuple[Prediction, Tensor]:
        both, fed = super().predict(self._twice(self.denoiser, canvas), torch.cat([asked, asked]))
        sees, blind = fed.chunk(2)
        return both, sees + blind

    def combined(self, values: Tensor) -> Tensor:
        sees, blind = values.chunk(2)
        impossible = sees.isneginf() | blind.isneginf()
        return (sees + self.scale * (sees - blind)).masked_fill(impossible, -torch.inf)

    def only(self, index: Tensor) -> None:
        super().only(torch.cat([index, index + len(self.block) // 2]))

    @staticmethod
    def _twice(denoiser: Denoiser, canvas: Canvas) -> Canvas:
        given = (canvas.t == 0) & (canvas.settled_at < 0)
        blind = replace(canvas, x=canvas.x.masked_fill(given, denoiser.mask_id), t=canvas.t.masked_fill(given, 1.0))
        return canvas.beside(blind)

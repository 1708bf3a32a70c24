"""Masked diffusion's bound, of a whole text or block by block, with masks drawn one by one or counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..data.packing import Batch
from ..denoiser import Denoiser, Prediction
from ..layout import EARLIEST, Blocks, Whole
from ..noise.draws import Draws, FromGenerator
from ..noise.tokens import Masking
from .objective import Loss, Per, counted, cut, places_of, shared_out
from .reflection import asked, recycles


@dataclass(frozen=True)
class MaskedBound:
    """Masked diffusion's bound: cross-entropy at masked positions, weighed by -alpha' / (1 - alpha) (MDLM, eq. 10).

    layout: with blocks, the bound is the sum over blocks of each one's bound given the clean blocks before it, every
    block at a time of its own (BD3-LM, arXiv 2503.09573, eq. 7).

    masks="independent" masks every scored token on its own with probability 1 - alpha(t). masks="counted" masks
    exactly k of a block's n scored tokens, k spread evenly over 1..n, and weighs by n / k: the same expectation under
    every schedule with much less variance (LLaDA's likelihood, arXiv 2502.09992, eq. 14).

    per="token" divides by scored tokens; per="answer" gives every document the same say.

    short: share of the batches cut to a random shorter length (LLaDA trains 1 % so); what is left of such a batch
    stands for the whole of it, so that the count stays what was announced.

    clip: times (shares of masked tokens, where counted) are drawn in this interval alone: no bound any more, but a
    gradient of less variance (BD3-LM, section 5.2).
    """

    process: Masking
    layout: Blocks = Whole()
    masks: Literal["independent", "counted"] = "independent"
    per: Per = "token"
    short: float = 0.0
    clip: tuple[float, float] = (0.0, 1.0)

    def count(self, batch: Batch) -> int:
        return counted(batch, self.per)

    def __call__(self, denoiser: Denoiser, batch: Batch, rng: FromGenerator) -> Loss:
        announced = self.count(batch)
        if self.short and torch.rand((), generator=rng.generator) < self.short:
            batch = cut(batch, rng)
        levels = self.clipped(self.layout.levels(places_of(batch), rng.generator))
        masked, weights = self.masks_at(levels, batch, rng)
        prediction = shown(denoiser, batch, masked, self.layout, again=recycles(denoiser, rng))
        total, _ = prediction.cross_entropy(batch.tokens[masked], shared_out(weights, batch, self.per)[masked])
        return Loss(total * (announced / max(self.count(batch), 1)), announced)

    def clipped(self, levels: Tensor) -> Tensor:
        return self.clip[0] + (self.clip[1] - self.clip[0]) * levels

    def masks_at(self, levels: Tensor, batch: Batch, rng: FromGenerator) -> tuple[Tensor, Tensor]:
        """At one level a block, (B, blocks): which positions are masked (B, L), and what each weighs (B, L)."""
        numbers = self.layout.numbers(places_of(batch))
        if self.masks == "counted":
            return counted_masks(batch.scored, levels, rng, numbers)
        t = levels.gather(1, numbers).float().clamp(min=EARLIEST)
        masked = self.process.corrupt(batch.tokens, t, rng) == self.process.mask_id
        return masked & batch.scored, self.process.weight(t)


def shown(denoiser: Denoiser, batch: Batch, masked: Tensor, layout: Blocks, again: bool = True) -> Prediction:
    """What the denoiser says of the masked positions (B, L), shown the text as the layout has it; again: on second
    thoughts, if it is made for these."""
    noisy = batch.tokens.masked_fill(masked, denoiser.mask_id)
    times = masked.float()  # with the masks drawn, what is open is known: a settled token's time is 0
    view = layout.view(batch.tokens, noisy, times, places_of(batch), masked)
    return asked(denoiser, view, again)


def counted_masks(scored: Tensor, levels: Tensor, rng: Draws, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Mask k = ceil(level * n) of each block's n scored tokens -> masks (B, L) and weights n / k (B, L).

    scored (B, L) bool; levels (B, blocks); numbers (B, L): the block of each token, never falling along a row.
    """
    levels = levels.to(scored.device)
    n, sizes = (torch.zeros_like(levels).scatter_add_(1, numbers, x.to(levels)) for x in (scored, scored >= 0))
    k = (levels * n).ceil().clamp(min=1).minimum(n)
    key = numbers + rng.uniform(scored).masked_fill(~scored, 1.0)
    order = key.argsort(dim=1, stable=True).argsort(1) - (sizes.cumsum(1) - sizes).gather(1, numbers)  # in its block
    weight = (n / k.clamp(min=1)).float().gather(1, numbers)
    return (order < k.gather(1, numbers)) & scored, weight

"""Masked diffusion's bound, with masks drawn one by one or counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..data.packing import Batch
from ..denoiser import Denoiser
from ..layout import EARLIEST, Blocks, Whole
from ..noise.draws import Draws, FromGenerator
from ..noise.tokens import Masking
from .objective import Loss, answer_sizes, cut, places_of, spread


@dataclass(frozen=True)
class MaskedBound:
    """Masked diffusion's bound: cross-entropy at masked positions, weighed by -alpha' / (1 - alpha) (MDLM, eq. 10).

    masks="independent" masks every scored token on its own with probability 1 - alpha(t). masks="counted" masks
    exactly k of a row's n scored tokens, k spread evenly over 1..n, and weighs by n / k: the same expectation under
    every schedule with much less variance (LLaDA's likelihood, arXiv 2502.09992, eq. 14).

    per="token" divides by scored tokens; per="answer" gives every document the same say however long its scored part
    (LLaDA's fine-tuning loss, eq. 5).

    short: share of the batches cut to a random shorter length (LLaDA trains 1 % so); what is left of such a batch
    stands for the whole of it, so that the count stays what was announced.
    """

    process: Masking
    layout: Blocks = Whole()
    masks: Literal["independent", "counted"] = "independent"
    per: Literal["token", "answer"] = "token"
    short: float = 0.0

    def count(self, batch: Batch) -> int:
        return batch.n_scored if self.per == "token" else int(answer_sizes(batch).ne(0).sum())

    def __call__(self, denoiser: Denoiser, batch: Batch, rng: FromGenerator) -> Loss:
        announced = self.count(batch)
        if self.short and torch.rand((), generator=rng.generator) < self.short:
            batch = cut(batch, rng)
        masked, weights = MASKS[self.masks](self, batch, rng)
        noisy = batch.tokens.masked_fill(masked, self.process.mask_id)
        times = masked.float()  # with the masks drawn, what is open is known: a settled token's time is 0
        prediction = denoiser(noisy, times, places=places_of(batch), where=masked)
        if self.per == "answer":
            weights = weights / answer_sizes(batch).gather(1, batch.documents.clamp(min=0)).clamp(min=1)
        total, _ = prediction.cross_entropy(batch.tokens[masked], weights[masked])
        return Loss(total * (announced / max(self.count(batch), 1)), announced)

    def independent(self, batch: Batch, rng: FromGenerator) -> tuple[Tensor, Tensor]:
        """Which positions are masked (B, L), and what each weighs (B, L)."""
        rows, length = batch.tokens.shape
        t = self.layout.times(rows, length, rng.generator).to(batch.tokens.device)
        t = torch.where(batch.scored, t, 0.0)
        masked = self.process.corrupt(batch.tokens, t, rng) == self.process.mask_id
        return masked & batch.scored, self.process.weight(t.clamp(min=EARLIEST))

    def counted(self, batch: Batch, rng: FromGenerator) -> tuple[Tensor, Tensor]:
        return counted_masks(batch.scored, spread(len(batch.tokens), rng), rng)


MASKS = {"independent": MaskedBound.independent, "counted": MaskedBound.counted}


def counted_masks(scored: Tensor, levels: Tensor, rng: Draws) -> tuple[Tensor, Tensor]:
    """Mask k = ceil(level * n) of each row's n scored tokens -> masks (B, L) and weights n / k (B, L)."""
    n = scored.sum(1)
    k = (levels.to(scored.device) * n).ceil().clamp(min=1).minimum(n)
    order = rng.uniform(scored).masked_fill(~scored, 2.0).argsort(1).argsort(1)
    weight = (n / k.clamp(min=1)).float()
    return (order < k[:, None]) & scored, weight[:, None].expand(scored.shape)

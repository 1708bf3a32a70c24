"""What is minimised, in nats: bounds on -log p(text), or exactly it. One small class an objective.

An objective takes the denoiser, a batch and a source of randomness, and returns a sum and the number of tokens it
speaks of; the training loop divides, and never learns which objective it runs. Time is the mask: prompts and padding
are simply not `scored`, keep time 0, are shown as they are, and cost nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from .data.packing import Batch
from .denoiser import Denoiser
from .layout import EARLIEST, Blocks, Whole
from .models.attention import Places
from .noise.draws import Draws, FromGenerator
from .noise.tokens import Masking


@dataclass(frozen=True)
class Loss:
    """total: differentiable sum, nats; count: scored tokens (or answers) it is to be divided by."""

    total: Tensor
    count: int


class Objective(Protocol):
    def __call__(self, denoiser: Denoiser, batch: Batch, rng: FromGenerator) -> Loss: ...

    def count(self, batch: Batch) -> int:
        """What the loss of this batch is divided by, known before it is computed: accumulation sums it first."""
        ...


def places_of(batch: Batch) -> Places:
    """Documents are left out where every row is a single one: attention then needs no mask."""
    return Places(batch.positions, batch.documents if bool((batch.documents != 0).any()) else None)


@dataclass(frozen=True)
class NextToken:
    """-log p(x) of an autoregressive model, exactly: cross-entropy of each scored token given what stands before."""

    def count(self, batch: Batch) -> int:
        return batch.n_scored

    def __call__(self, denoiser: Denoiser, batch: Batch, rng: FromGenerator) -> Loss:
        prediction = denoiser(batch.tokens, places=places_of(batch), where=batch.scored)
        targets = batch.tokens[batch.scored]
        total, _ = prediction.cross_entropy(targets, torch.ones_like(targets, dtype=torch.float32))
        return Loss(total, len(targets))


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


def cut(batch: Batch, rng: FromGenerator) -> Batch:
    """The first tokens of every row, as many as a uniform draw from 1..L says."""
    length = int(torch.randint(1, batch.tokens.shape[1] + 1, (), generator=rng.generator))
    return Batch(*(part[:, :length] for part in (batch.tokens, batch.documents, batch.positions, batch.scored)))


def spread(rows: int, rng: FromGenerator) -> Tensor:
    """Levels (rows,) in (0, 1), one in each of `rows` equal strata, in order, all shifted by one uniform."""
    shift = torch.rand(1, generator=rng.generator, dtype=torch.float64)
    return (shift + torch.arange(rows, dtype=torch.float64) / rows) % 1


def counted_masks(scored: Tensor, levels: Tensor, rng: Draws) -> tuple[Tensor, Tensor]:
    """Mask k = ceil(level * n) of each row's n scored tokens -> masks (B, L) and weights n / k (B, L)."""
    n = scored.sum(1)
    k = (levels.to(scored.device) * n).ceil().clamp(min=1).minimum(n)
    order = rng.uniform(scored).masked_fill(~scored, 2.0).argsort(1).argsort(1)
    weight = (n / k.clamp(min=1)).float()
    return (order < k[:, None]) & scored, weight[:, None].expand(scored.shape)


def answer_sizes(batch: Batch) -> Tensor:
    """Scored tokens of each document in each row: (B, most documents)."""
    documents = batch.documents.clamp(min=0)
    sizes = torch.zeros(len(documents), int(documents.max()) + 1, device=documents.device)
    return sizes.scatter_add_(1, documents, batch.scored.float())

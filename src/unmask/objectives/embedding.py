"""Diffusion of embeddings: squared distance of the estimate from the true embedding, plus the two ends of the bound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ..data.packing import Batch
from ..denoiser import Denoiser
from ..layout import View, Whole
from ..models.readout import weighted_cross_entropy
from ..models.transformer import Transformer
from ..noise.draws import Draws, FromGenerator
from ..noise.embeddings import EmbeddingNoise
from .objective import Loss, places_of
from .reflection import asked, recycles

NoiseOf = Callable[[Transformer], EmbeddingNoise]  # the embeddings are the network's and change as it learns


@dataclass(frozen=True)
class EmbeddingBound:
    """loss="bound": the variational bound itself, in continuous time, times drawn where it is large (VDM, arXiv
    2107.00630, eq. 17). loss="simple": every time alike and per coordinate, Diffusion-LM's L_simple (arXiv 2205.14217,
    eq. 2); its term for t -> 0 is the same distance, as the target is the embedding itself at every time.

    Both add the rounding of z_0 and the prior's term, which is what keeps embeddings apart and short.

    given: share of the rows in which some tokens are shown clean, any share of them alike, and cost nothing: without it
    the network would never see what it is to write on from.
    """

    noise: NoiseOf
    loss: Literal["bound", "simple"] = "bound"
    given: float = 0.25

    def count(self, batch: Batch) -> int:
        return batch.n_scored

    def __call__(self, denoiser: Denoiser, batch: Batch, rng: FromGenerator) -> Loss:
        process, announced = self.noise(denoiser.network), self.count(batch)
        batch = partly_given(batch, self.given, rng)
        where = batch.scored
        share = Whole().times(places_of(batch), rng.generator)
        t, weights = self._weighed(process, share)
        t = torch.where(where, t, 0.0)
        x = shown(process, batch, t, rng)
        clean = estimates(denoiser, process, batch, x, t, again=recycles(denoiser, rng))
        tokens = batch.tokens[where]
        with exact(x):
            total = (weights[where] * process.gap(clean, tokens)).sum() + process.prior_nats(tokens).sum()
            total = total + rounding(process, tokens, denoiser.banned, rng)[0]
        return Loss(total, announced)

    def _weighed(self, process: EmbeddingNoise, share: Tensor) -> tuple[Tensor, Tensor]:
        """Times and what a squared distance weighs there, (B, L)."""
        if self.loss == "simple":
            return share, torch.full_like(share, 1 / process.width)
        t = process.time(share)
        return t, process.weight(t)


def partly_given(batch: Batch, share: float, rng: FromGenerator) -> Batch:
    """Without the scores of some tokens in a share of the rows: each of a row's with one chance, drawn evenly."""
    u, row = rng.uniform(batch.scored), rng.uniform(batch.scored[:, :1], 2)
    given = (row[..., 0] < share) & (u < row[..., 1])
    return replace(batch, scored=batch.scored & ~given)


def shown(process: EmbeddingNoise, batch: Batch, t: Tensor, rng: Draws) -> Tensor:
    """(B, L, D): scored positions noisy, the others as they are."""
    return process.write(process.corrupt(batch.tokens, t, rng), batch.tokens, ~batch.scored)


def estimates(
    denoiser: Denoiser, process: EmbeddingNoise, batch: Batch, x: Tensor, t: Tensor, again: bool = True
) -> Tensor:
    """The estimated clean vectors at the scored positions, (N, D); again: on second thoughts."""
    where = batch.scored
    said = asked(denoiser, View(x, t, places_of(batch), where), again)
    there, then = x[where], t[where]
    with exact(x):
        return said.map(lambda mu, rows: process.estimate(there[rows], mu, then[rows]))


def rounding(process: EmbeddingNoise, tokens: Tensor, banned: Tensor, rng: Draws) -> tuple[Tensor, Tensor]:
    """-log p(token | z_0) for one draw of z_0: the sum (scalar, differentiable) and nats of each (N,)."""
    start = torch.zeros((), device=tokens.device)
    scale, offset = process.rounding(start)
    hidden, bias = process.corrupt(tokens, start, rng) * scale, offset * process.table.square().sum(-1)
    return weighted_cross_entropy(hidden, process.table, tokens, torch.ones_like(hidden[:, 0]), banned, bias)


def exact(like: Tensor) -> torch.autocast:
    """Distances and likelihoods are differences of large numbers: never in half precision."""
    return torch.autocast(like.device.type, enabled=False)

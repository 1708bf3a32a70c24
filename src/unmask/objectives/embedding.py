"""Diffusion of embeddings: squared distance of the estimate from the true embedding, plus the two ends of the bound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..data.packing import Batch
from ..denoiser import Denoiser, Prediction
from ..layout import Whole
from ..models.attention import Places
from ..models.readout import rows_at_a_time, weighted_cross_entropy
from ..models.transformer import Transformer
from ..noise.draws import Draws, FromGenerator
from ..noise.embeddings import EmbeddingNoise
from .objective import Loss, places_of

NoiseOf = Callable[[Transformer], EmbeddingNoise]  # the embeddings are the network's and change as it learns


@dataclass(frozen=True)
class EmbeddingBound:
    """loss="bound": the variational bound itself, in continuous time, times drawn where it is large (VDM, arXiv
    2107.00630, eq. 17). loss="simple": every time alike and per coordinate, Diffusion-LM's L_simple (arXiv 2205.14217,
    eq. 2); its term for t -> 0 is the same distance, as the target is the embedding itself at every time.

    Both add the rounding of z_0 and the prior's term, which is what keeps embeddings apart and short.

    recycled: share of the batches shown with what the network says of them without (self-conditioning, arXiv
    2208.04202), where the network has an input for it.
    """

    noise: NoiseOf
    loss: Literal["bound", "simple"] = "bound"
    recycled: float = 0.5

    def count(self, batch: Batch) -> int:
        return batch.n_scored

    def __call__(self, denoiser: Denoiser, batch: Batch, rng: FromGenerator) -> Loss:
        process, where = self.noise(denoiser.network), batch.scored
        share = Whole().times(places_of(batch), rng.generator)
        t, weights = self._weighed(process, share)
        t = torch.where(where, t, 0.0)
        x = shown(process, batch, t, rng)
        again = bool(torch.rand((), generator=rng.generator) < self.recycled)
        clean = estimates(denoiser, process, x, t, places_of(batch), where, again=again)
        tokens = batch.tokens[where]
        with exact(x):
            total = (weights[where] * process.gap(clean, tokens)).sum() + process.prior_nats(tokens).sum()
            total = total + rounding(process, tokens, denoiser.banned, rng)[0]
        return Loss(total, len(tokens))

    def _weighed(self, process: EmbeddingNoise, share: Tensor) -> tuple[Tensor, Tensor]:
        """Times and what a squared distance weighs there, (B, L)."""
        if self.loss == "simple":
            return share, torch.full_like(share, 1 / process.width)
        t = process.time(share)
        return t, process.weight(t)


def shown(process: EmbeddingNoise, batch: Batch, t: Tensor, rng: Draws) -> Tensor:
    """(B, L, D): scored positions noisy, the others as they are."""
    return process.write(process.corrupt(batch.tokens, t, rng), batch.tokens, ~batch.scored)


def estimates(
    denoiser: Denoiser,
    process: EmbeddingNoise,
    x: Tensor,
    t: Tensor,
    places: Places,
    where: Tensor,
    again: bool = False,
) -> Tensor:
    """The estimated clean vectors at where, (N, D). again: in a second pass, shown what the first one said."""
    before = None if denoiser.network.feedback is None else torch.zeros_like(x)
    if before is not None and again:
        with torch.no_grad():
            before[where] = estimates(denoiser, process, x, t, places, where)
    prediction = denoiser(x, t, places=places, where=where, feedback=before)
    with exact(x):
        return read(process, prediction, x[where], t[where])


def read(process: EmbeddingNoise, prediction: Prediction, x: Tensor, t: Tensor) -> Tensor:
    """`process.estimate` at N positions, in chunks that the backward pass computes again: (N, V) is never held."""

    def part(rows: slice) -> Tensor:
        return process.estimate(x[rows], replace(prediction, hidden=prediction.hidden[rows]).mu(), t[rows])

    size = rows_at_a_time(len(process.table))
    parts = [slice(start, start + size) for start in range(0, len(x), size)]
    if not parts:
        return x
    if not torch.is_grad_enabled():
        return torch.cat([part(rows) for rows in parts])
    return torch.cat([checkpoint(part, rows, use_reentrant=False) for rows in parts])


def rounding(process: EmbeddingNoise, tokens: Tensor, banned: Tensor, rng: Draws) -> tuple[Tensor, Tensor]:
    """-log p(token | z_0) for one draw of z_0: the sum (scalar, differentiable) and nats of each (N,)."""
    start = torch.zeros((), device=tokens.device)
    scale, offset = process.rounding(start)
    hidden, bias = process.corrupt(tokens, start, rng) * scale, offset * process.table.square().sum(-1)
    return weighted_cross_entropy(hidden, process.table, tokens, torch.ones_like(hidden[:, 0]), banned, bias)


def exact(like: Tensor) -> torch.autocast:
    """Distances and likelihoods are differences of large numbers: never in half precision."""
    return torch.autocast(like.device.type, enabled=False)

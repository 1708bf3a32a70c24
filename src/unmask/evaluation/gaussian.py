"""The likelihood of a model that diffuses embeddings: the variational bound of its sampler with finitely many steps."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..data.packing import Batch
from ..denoiser import Denoiser
from ..errors import UserError
from ..noise.draws import FromCounters
from ..noise.embeddings import EmbeddingNoise
from ..objectives.embedding import NoiseOf, estimates, rounding, shown
from ..objectives.objective import places_of


@dataclass(frozen=True)
class DiscretisedBound:
    """KL(q(z_1 | x) || N(0, I)) + the sum over `steps` even steps t -> s of (snr(s) - snr(t)) / 2 |e_x - estimate|^2 +
    E -log p(x | z_0): VDM, arXiv 2107.00630, eq. 11 and 13.

    A pass looks at one step, drawn where the sum is large: even in the noise's power, one in each of equal strata
    moved by a shared uniform. `draws` passes form `replicates` groups, whose spread gives the standard error,
    as in `FixedCount`. A network with an input for what it said before gets it, from a first pass on the same z_t:
    the reverse step is then still a function of z_t, and the bound a bound.
    """

    noise: NoiseOf
    draws: int = 8
    replicates: int = 2
    steps: int = 1000
    exact: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        if self.replicates < 2:
            raise UserError(f"replicates: {self.replicates} gives no standard error; use 2 or more")
        if self.draws < 1:
            raise UserError(f"draws: {self.draws} measures nothing; use 1 or more")

    def __call__(self, denoiser: Denoiser, batch: Batch, keys: Tensor) -> tuple[Tensor, Tensor]:
        process = self.noise(denoiser.network)
        means = torch.stack([self._group(denoiser, process, batch, keys, group) for group in range(self.replicates)])
        return means.mean(0), means.var(0) / self.replicates

    def _group(self, denoiser: Denoiser, process: EmbeddingNoise, batch: Batch, keys: Tensor, group: int) -> Tensor:
        """One unbiased estimate a row, (B,): the mean over one step in each stratum."""
        strata = -(-self.draws // self.replicates)
        columns = torch.arange(batch.tokens.shape[1], device=keys.device).expand(batch.tokens.shape)
        chance, shift = FromCounters(keys, columns), FromCounters(~keys, columns[:, :1])
        shift.begin(group)
        start = shift.uniform(columns[:, :1])
        total = torch.zeros(len(keys), dtype=torch.float64, device=keys.device)
        for stratum in range(strata):
            chance.begin(group * strata + stratum)
            total += self._pass(denoiser, process, batch, (start + stratum) / strata, chance)
        return total / strata

    def _pass(
        self, denoiser: Denoiser, process: EmbeddingNoise, batch: Batch, share: Tensor, rng: FromCounters
    ) -> Tensor:
        """All three terms of each row, (B,), the sum over steps by the one at share (B, 1)."""
        where, tokens = batch.scored, batch.tokens[batch.scored]
        late, weight = self._step(process, share)
        t = torch.where(where, late, 0.0).float()
        x = shown(process, batch, t, rng)
        clean = estimates(denoiser, process, x, t, places_of(batch), where, again=True)
        nats = weight.expand(where.shape)[where] * process.gap(clean, tokens).double()
        nats += process.prior_nats(tokens) + rounding(process, tokens, denoiser.banned, rng.at(where))[1]
        return torch.zeros(where.shape, dtype=torch.float64, device=where.device).masked_scatter(where, nats).sum(1)

    def _step(self, process: EmbeddingNoise, share: Tensor) -> tuple[Tensor, Tensor]:
        """The step that share (B, 1) falls into: its time t, and its (snr(s) - snr(t)) / 2 over its probability."""
        number = (process.time(share) * self.steps).ceil().clamp(1, self.steps)
        t, s = number / self.steps, (number - 1) / self.steps
        first, last = process.span(share)
        chance = (process.noise_power(t) - process.noise_power(s)) / (last - first)
        return t, (process.snr(s) - process.snr(t)) / (2 * chance)

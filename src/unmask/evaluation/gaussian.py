"""The likelihood of a model that diffuses embeddings: the variational bound of its sampler with finitely many steps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.packing import Batch
from ..denoiser import Denoiser
from ..noise.draws import FromCounters
from ..noise.embeddings import EmbeddingNoise
from ..objectives.embedding import NoiseOf, estimates, rounding, shown
from .likelihood import Stratified, sum_rows


@dataclass(frozen=True, kw_only=True)
class DiscretisedBound(Stratified):
    """KL(q(z_1 | x) || N(0, I)) + the sum over `steps` even steps t -> s of (snr(s) - snr(t)) / 2 |e_x - estimate|^2 +
    E -log p(x | z_0): VDM, arXiv 2107.00630, eq. 11 and 13.

    A pass looks at one step, drawn where the sum is large: evenly in the power of the noise. A network that is told of
    its last word is told what it says of the same z_t: the reverse step is then still a function of z_t, and the bound
    a bound.
    """

    noise: NoiseOf
    steps: int = 1000

    def nats(self, denoiser: Denoiser, batch: Batch, level: Tensor, rng: FromCounters) -> Tensor:
        """The sum over steps, by the one at level (B, 1), and the rounding of a z_0 of its own."""
        process, where, tokens = self.noise(denoiser.network), batch.scored, batch.tokens[batch.scored]
        late, weight = self._step(process, level)
        t = torch.where(where, late, 0.0).float()
        x = shown(process, batch, t, rng)
        gap = process.gap(estimates(denoiser, process, batch, x, t), tokens)
        nats = weight.expand(where.shape)[where] * gap.double()
        return sum_rows(where, nats + rounding(process, tokens, denoiser.banned, rng.at(where))[1])

    def ends(self, denoiser: Denoiser, batch: Batch, rng: FromCounters) -> Tensor:
        return sum_rows(batch.scored, self.noise(denoiser.network).prior_nats(batch.tokens[batch.scored]))

    def _step(self, process: EmbeddingNoise, level: Tensor) -> tuple[Tensor, Tensor]:
        """The step that level (B, 1) falls into: its time t, and its (snr(s) - snr(t)) / 2 over its probability."""
        number = (process.time(level) * self.steps).ceil().clamp(1, self.steps)
        t, s = number / self.steps, (number - 1) / self.steps
        first, last = process.span(level)
        chance = (process.noise_power(t) - process.noise_power(s)) / (last - first)
        return t, (process.snr(s) - process.snr(t)) / (2 * chance)

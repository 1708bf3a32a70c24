"""The likelihood of models of token noise: the bound in continuous time, its integral over t drawn in strata."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.packing import Batch
from ..denoiser import Denoiser
from ..noise.draws import FromCounters
from ..objectives.bound import Bound, spaced
from ..objectives.objective import places_of
from .likelihood import Stratified, over_blocks, sum_rows

POWER = 3.0  # on the toy the second moment is a seventieth of that of even times, and no power does better


@dataclass(frozen=True, kw_only=True)
class Integral(Stratified):
    """-log p(x) <= KL(q_1(. | x) || noise) + the integral over t of the bound's integrand + E -log p(x | z_0).

    The first is the process's `prior_nats`. The last is nothing where alpha(0) = 1; where not it takes a pass of its
    own in every replicate. Times are u^POWER, u in strata.
    """

    bound: Callable[[Denoiser], Bound]  # the noise depends on which symbols a model may write

    def nats(self, denoiser: Denoiser, batch: Batch, level: Tensor, rng: FromCounters) -> Tensor:
        bound = self.bound(denoiser)
        numbers = bound.layout.numbers(places_of(batch))
        u = over_blocks(level, numbers).gather(1, numbers)
        t, weights = spaced(u.float(), POWER)
        _, open, nats = bound.at(denoiser, batch, t, weights, rng)
        return sum_rows(open, weights[open].double() * nats.double())

    def ends(self, denoiser: Denoiser, batch: Batch, rng: FromCounters) -> Tensor:
        bound = self.bound(denoiser)
        process = bound.process
        total = torch.where(batch.scored, process.prior_nats(batch.tokens), 0.0).sum(1)
        if bool(process.schedule.alpha(torch.zeros((), dtype=torch.float64)) < 1):
            total = total + _reconstruction(bound, denoiser, batch, rng)
        return total


def _reconstruction(bound: Bound, denoiser: Denoiser, batch: Batch, rng: FromCounters) -> Tensor:
    """-log p(x | z_0) for one draw of z_0, (B,)."""
    process, zero = bound.process, torch.zeros_like(batch.tokens, dtype=torch.float32)
    x = torch.where(batch.scored, process.corrupt(batch.tokens, zero, rng), batch.tokens)
    open, said = bound.shown(denoiser, batch, x, zero)
    x0, noisy, t = batch.tokens[open], x[open], zero[open]

    def surprise(mu: Tensor, rows: slice) -> Tensor:
        beliefs = process.beliefs(noisy[rows], mu, t[rows])
        return -beliefs.gather(-1, x0[rows, None]).squeeze(-1)

    _, nats = said.cost(surprise, torch.ones_like(t))
    return sum_rows(open, nats)

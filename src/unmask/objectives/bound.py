"""The bound of any token noise: corrupt, predict, and ask the process what that costs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.packing import Batch
from ..denoiser import Denoiser, Prediction
from ..layout import Blocks, Whole
from ..noise.draws import Draws, FromGenerator
from ..noise.tokens import TokenNoise
from ..scores import ScorePrediction
from .objective import Loss, Per, counted, places_of, shared_out


@dataclass(frozen=True)
class Bound:
    """E over t and x_t of the process's `nelbo`. The end terms are left out: what
    alpha(1) > 0 leaves of the text depends on no weight, and what alpha(0) < 1 takes is nearly nothing; evaluation
    adds both.

    A position whose state is certain, since noise never makes it, costs nothing and is shown at time 0, as it is in
    decoding once it is settled.

    power: times are u^power, u spread evenly over the batch, and weighed to match. Noise is rare near t = 0 and weighs
    much there; even times would draw most of the gradient's variance from the few tokens that it hits.

    per="token" divides by scored tokens; per="answer" gives every document the same say.
    """

    process: TokenNoise
    layout: Blocks = Whole()
    per: Per = "token"
    power: float = 2.0

    def count(self, batch: Batch) -> int:
        return counted(batch, self.per)

    def __call__(self, denoiser: Denoiser, batch: Batch, rng: FromGenerator) -> Loss:
        t, weights = spaced(self.layout.times(places_of(batch), rng.generator), self.power)
        total, _, _ = self.at(denoiser, batch, t, shared_out(weights, batch, self.per), rng)
        return Loss(total, self.count(batch))

    def at(
        self, denoiser: Denoiser, batch: Batch, t: Tensor, weights: Tensor, rng: Draws
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The integrand at times t (B, L) for one draw of the noise: its weighted sum (scalar, differentiable), which
        positions it counts (B, L) bool, and the nats of each of these (N,)."""
        x = torch.where(batch.scored, self.process.corrupt(batch.tokens, t, rng), batch.tokens)
        open, prediction = self.shown(denoiser, batch, x, t)
        total, nats = self.costs(prediction, batch.tokens[open], x[open], t[open], weights[open])
        return total, open, nats

    def shown(self, denoiser: Denoiser, batch: Batch, x: Tensor, t: Tensor) -> tuple[Tensor, Prediction]:
        """Which positions of x (B, L) are uncertain, and what the denoiser says of these."""
        open = batch.scored & ~self.process.certain(x)
        view = self.layout.view(batch.tokens, x, torch.where(open, t, 0.0), places_of(batch), open)
        return open, denoiser(view.x, view.t, places=view.places, where=view.where)

    def costs(self, said: Prediction, x0: Tensor, x: Tensor, t: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """At N positions, all (N,): the weighted sum and the nats of each (N,), in chunks."""
        return said.cost(lambda mu, rows: self.process.nelbo(mu, x0[rows], x[rows], t[rows]), weights)


@dataclass(frozen=True)
class ScoreEntropy(Bound):
    """The same bound of a network that speaks of scores instead: SEDD's objective (arXiv 2310.16834, eq. 12)."""

    def costs(self, said: Prediction, x0: Tensor, x: Tensor, t: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        assert isinstance(said, ScorePrediction), "the network does not speak of scores"
        return said.score_cost(
            lambda log_score, rows: self.process.score_entropy(log_score, x0[rows], x[rows], t[rows]), weights
        )


def spaced(u: Tensor, power: float) -> tuple[Tensor, Tensor]:
    """Even levels u as times u^power, and what the integrand weighs there."""
    return u**power, power * u ** (power - 1)

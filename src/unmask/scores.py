"""Networks that speak of scores, p_t(y, rest) / p_t(x, rest), rather than of clean tokens (SEDD, arXiv 2310.16834)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .denoiser import CleanLogits, Prediction
from .models.readout import Cost
from .noise.tokens import TokenNoise


@dataclass(frozen=True, kw_only=True)
class ScorePrediction(Prediction):
    """Scores at N positions; x, t (N,): the tokens and times there. Where mu is asked for, it is the one that has
    these scores, so that every rule of decoding may be used."""

    process: TokenNoise
    scaled: bool
    x: Tensor
    t: Tensor

    def at(self, rows: slice | Tensor) -> ScorePrediction:
        return replace(self, hidden=self.hidden[rows], x=self.x[rows], t=self.t[rows])

    def log_score(self) -> Tensor:
        """(N, V) float32: 0 at the token that is there, -inf at symbols that cannot be emitted."""
        return self._read(super().logits(), slice(None))

    def logits(self) -> Tensor:
        return self._mu(super().logits(), slice(None))

    def mu(self) -> Tensor:
        return self.logits()

    def cross_entropy(self, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        return self.cost(lambda mu, rows: -mu.gather(-1, targets[rows, None]).squeeze(-1), weights)

    def cost(self, cost: Cost, weights: Tensor) -> tuple[Tensor, Tensor]:
        return self._cost(lambda scores, rows: cost(self._mu(scores, rows), rows), weights)

    def score_cost(self, cost: Cost, weights: Tensor) -> tuple[Tensor, Tensor]:
        """The same for a cost of the log scores, cost(log_score (n, V), rows) -> (n,)."""
        return self._cost(lambda scores, rows: cost(self._read(scores, rows), rows), weights)

    def _read(self, scores: Tensor, rows: slice) -> Tensor:
        """What the network said (n, V) as log scores."""
        if self.scaled:
            scores = scores - self._known(rows)[:, None].to(scores.dtype)
        return scores.scatter(-1, self.x[rows, None], 0.0)

    def _mu(self, scores: Tensor, rows: slice) -> Tensor:
        return self.process.mu_of(self._read(scores, rows), self.t[rows])

    def _known(self, rows: slice) -> Tensor:
        """The share of every score of a masked token that is known: log of (1 - alpha) / alpha, and evenly over the
        symbols. In float64, as 1 - alpha cancels near t = 0."""
        alpha = self.process.schedule.alpha(self.t[rows].double())
        return ((1 - alpha) / alpha).log() + torch.tensor(self.process.vocab - 1.0).log()


@dataclass(frozen=True)
class LogScore(CleanLogits):
    """The output at i is the log score of token i's alternatives. scaled: without the factor that the absorbing graph
    makes known, so that a network that says nothing says that every token is as likely (SEDD, appendix C.2)."""

    process: TokenNoise
    scaled: bool = False

    def reads(self, said: Prediction, x: Tensor, t: Tensor) -> Prediction:
        parts = said.hidden, said.weight, said.banned, said.bias
        return ScorePrediction(*parts, process=self.process, scaled=self.scaled, x=x, t=t)

"""Samplers for networks that speak of scores: Euler's, which is tau-leaping, and the analytic one (SEDD, arXiv
2310.16834, section 4). Time goes evenly from 1 to nearly 0, and a last pass takes away what noise is left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from ..denoiser import Prediction
from ..errors import UserError
from ..noise.draws import categorical
from ..noise.process import Process
from ..noise.tokens import TokenNoise
from ..scores import ScorePrediction
from .propose import Proposal
from .steppers import Move, Stepper, Tick

END = 1e-5  # the time from which the last pass starts


def euler(noise: TokenNoise, score: Tensor, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """What x_s may be, were the rates of time t to hold until s: (N, V), which a long step may make negative.

    score (N, V): p_t(y, rest) / p_t(x, rest), 1 where y = x.
    """
    span = ((t - s) * noise.speed(t))[:, None]
    leave = (span * noise.rates(x).to(score) * score).scatter(-1, x[:, None], 0.0)
    return leave.scatter(-1, x[:, None], 1 - leave.sum(-1, keepdim=True))


def before(noise: TokenNoise, score: Tensor, t: Tensor, s: Tensor | None) -> Tensor:
    """p_s(y, rest) / p_t(x, rest), (N, V), for a score of time t; s None is the clean text.

    With k the share of tokens that survives the step from s to t, p_t = k p_s + (1 - k) pi, which gives p_s; it is
    negative where the score is not one that noise can have.
    """
    kept = noise.schedule.alpha(t.double())
    kept = (kept if s is None else kept / noise.schedule.alpha(s.double()))[:, None]
    return (score - ((1 - kept) * noise.pi.to(t.device)).to(score) * score.sum(-1, keepdim=True)) / kept.to(score)


def analytic(noise: TokenNoise, score: Tensor, x: Tensor, t: Tensor, s: Tensor | None) -> Tensor:
    """Bayes' rule on the step from s to t (Tweedie): (N, V), not normalised; s None is the clean text."""
    return before(noise, score, t, s) * noise.arrival(x, t, s).to(score)


def clean(noise: TokenNoise, score: Tensor, x: Tensor, t: Tensor) -> Tensor:
    """What the clean token may be: `analytic` without symbols that noise never leaves, which is to say, the mask."""
    return analytic(noise, score, x, t, None) * (noise.pi < 1).to(score)


@dataclass(frozen=True)
class Scored(Stepper):
    """temperature, top_p and top_k act on where a token goes, not on whether it goes."""

    proposal: Proposal

    def law(self, noise: TokenNoise, score: Tensor, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        raise NotImplementedError

    def ask(self, tick: Tick) -> Tensor:
        return tick.open

    def read(self, prediction: Prediction) -> Tensor:
        if not isinstance(prediction, ScorePrediction):
            raise UserError("rule: this one is for models that speak of scores (kind=sedd); use ancestral instead")
        return prediction.log_score()

    def move(self, process: Process, tick: Tick, asked: Tensor, values: Tensor) -> Move:
        noise = cast(TokenNoise, process)  # nothing else has scores
        x, t, s, score = tick.x[asked], tick.t[asked], _then(tick)[asked], values.exp()
        ends = s == 0
        law = self.law(noise, score, x, t, s.clamp(min=END))
        if bool(ends.any()):
            law = torch.where(ends[:, None], clean(noise, score, x, t), law)
        law = self._sharpened(law.clamp(min=0) * (score > 0), x)
        drawn = categorical(law, tick.draws().at(asked).uniform(x))
        done = ends | process.certain(drawn)
        sure = law.gather(-1, drawn[:, None]).squeeze(-1) / law.sum(-1)
        return Move(
            tick.x.masked_scatter(asked, drawn),
            tick.t.masked_scatter(asked, s.masked_fill(done, 0.0)),
            asked & tick.spread(done, asked),
            tick.spread(sure.to(t.dtype), asked),
            torch.ones_like(tick.left),
        )

    def _sharpened(self, law: Tensor, x: Tensor) -> Tensor:
        if self.proposal == Proposal(temperature=1.0):
            return law
        stays = law.gather(-1, x[:, None])
        leaves = law.scatter(-1, x[:, None], 0.0)
        goes = self.proposal.law(leaves.log()).nan_to_num(-torch.inf).exp() * leaves.sum(-1, keepdim=True)
        return goes.scatter(-1, x[:, None], stays.to(goes))


@dataclass(frozen=True)
class Euler(Scored):
    """Tau-leaping: every token moves on its own, at the rates of the step's beginning."""

    def law(self, noise: TokenNoise, score: Tensor, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        return euler(noise, score, x, t, s)


@dataclass(frozen=True)
class Analytic(Scored):
    """Tweedie: every token takes the whole step on its own, given the others as they were."""

    def law(self, noise: TokenNoise, score: Tensor, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        return analytic(noise, score, x, t, s)


def _then(tick: Tick) -> Tensor:
    """The time after this step, (B, W): on an even way from 1 to END that all steps but the last go, then 0."""
    share = (tick.left - 2).clamp(min=0) / (tick.steps - 1).clamp(min=1)
    then = torch.where(tick.left > 1, END + share * (1 - END), 0.0).to(tick.t.dtype)
    return tick.t.minimum(then[:, None])

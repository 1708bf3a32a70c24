"""Predict all, keep what can be kept together, noise the rest anew: DiffusionGemma's sampler, for a uniform canvas."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import UserError
from ..noise.process import Process
from .propose import Proposal
from .quotas import order_of, while_true
from .select import steady, uncertainty
from .steppers import Move, Stepper, Tick


@dataclass(frozen=True)
class EntropyRenoise(Stepper):
    """Every pass draws the whole block at a temperature that falls from `hot` to `cold`, keeps the tokens of least
    entropy, as many as have at most `bound` nats together without the last, and puts fresh noise everywhere else; what
    was kept may go again in the next. The block is final, as the best token everywhere, once those are the same as in
    the pass before and the mean entropy is below `calm`, or when the steps are spent.
    """

    bound: float = 0.1
    hot: float = 0.8
    cold: float = 0.4
    calm: float = 0.005

    def __post_init__(self) -> None:
        if not 0 < self.cold <= self.hot:
            raise UserError(f"rule.cold={self.cold}, rule.hot={self.hot}: give temperatures 0 < cold <= hot")
        if not self.bound >= 0:
            raise UserError(f"rule.bound={self.bound} is negative; use nats from 0 up, 0.1 is usual")

    def ask(self, tick: Tick) -> Tensor:
        return tick.open

    def move(self, process: Process, tick: Tick, asked: Tensor, values: Tensor) -> Move:
        warmth = self.cold + (self.hot - self.cold) * tick.left / tick.steps
        logp = (values / warmth[:, None].expand(asked.shape)[asked][:, None]).log_softmax(-1)
        drawn = tick.spread(Proposal(temperature=1.0).draw(logp, tick.draws().at(asked)), asked)
        best, each = tick.spread(values.argmax(-1), asked), tick.spread(uncertainty(logp), asked)
        done = asked & (self._calm(tick, asked, best, each) | (tick.left <= 1))[:, None]
        noise = process.prior(tick.x, tick.draws(stage=1))
        x = process.write(noise, drawn, self._kept(each, asked))
        x = torch.where(done, best, torch.where(asked, x, tick.x))
        sure = tick.spread(values.log_softmax(-1).amax(-1).exp(), asked)
        kept = {"best": best, "seen": asked & ~done}
        return Move(x, tick.t.masked_fill(done, 0.0), done, sure, torch.ones_like(tick.left), kept)

    def _kept(self, each: Tensor, open: Tensor) -> Tensor:
        order = order_of(-steady(each), open)
        before = each.gather(1, order).cumsum(1) - each.gather(1, order)
        return while_true(before <= self.bound, order, open)

    def _calm(self, tick: Tick, open: Tensor, best: Tensor, each: Tensor) -> Tensor:
        """(B,) bool: nothing moves any more."""
        if "best" not in tick.memory:
            return torch.zeros_like(tick.left, dtype=torch.bool)
        same = ~open | (tick.memory["seen"] & (best == tick.memory["best"]))
        return same.all(1) & (each.sum(1) / open.sum(1) < self.calm)

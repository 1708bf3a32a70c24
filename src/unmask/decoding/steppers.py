"""One move towards the text: from what the network said to what is written. Knows no networks and no end of text.

A stepper first says which positions it wants a prediction for, then moves. It works on the open positions of every
row's current block, flat: N positions in row order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ..denoiser import Prediction
from ..noise.draws import FromCounters
from ..noise.process import Process
from .propose import Proposal
from .select import Asked, Quota, Rank

Memory = Mapping[str, Tensor]


@dataclass(frozen=True)
class Tick:
    """One moment of a batch: x, t (B, W) states and times; open (B, W): what the current blocks have still to write;
    left, steps (B,): steps left in the block, this one included, of how many; taken (B,): steps behind the row."""

    x: Tensor
    t: Tensor
    position: Tensor
    open: Tensor
    left: Tensor
    steps: Tensor
    taken: Tensor
    seed: Tensor
    memory: Memory = field(default_factory=dict)

    def draws(self, ahead: Tensor | int = 0) -> FromCounters:
        rng = FromCounters(self.seed, self.position)
        rng.begin(self.taken + ahead)
        return rng

    def spread(self, values: Tensor, where: Tensor) -> Tensor:
        """Flat values (N,) at where -> (B, W), zero elsewhere."""
        return values.new_zeros(where.shape).masked_scatter(where, values)


@dataclass(frozen=True)
class Move:
    """New x and t (B, W); settled (B, W) bool: written for good now; sure (B, W): the model's probability of what was
    written; used (B,): steps this took."""

    x: Tensor
    t: Tensor
    settled: Tensor
    sure: Tensor
    used: Tensor
    memory: Memory = field(default_factory=dict)


@runtime_checkable
class Stepper(Protocol):
    """Subclass it: one file, one line in the table of rules, or a class of your own named by its import path."""

    def ask(self, tick: Tick) -> Tensor:
        """(B, W) bool: where a prediction is needed, at least one position a row."""
        ...

    def read(self, prediction: Prediction) -> Tensor:
        """(N, V): what `move` is given of the prediction. Unnormalised log-probabilities, unless a stepper thinks in
        something else, such as scores."""
        return prediction.logits()

    def move(self, process: Process, tick: Tick, asked: Tensor, values: Tensor) -> Move:
        """values (N, V) at asked, as `read` returned them, -inf where a symbol is forbidden."""
        ...


@dataclass(frozen=True)
class Commit(Stepper):
    """Look at every open position, write the surest: `rank` says how sure, `quota` how many."""

    rank: Rank
    quota: Quota
    proposal: Proposal

    def ask(self, tick: Tick) -> Tensor:
        return tick.open

    def move(self, process: Process, tick: Tick, asked: Tensor, values: Tensor) -> Move:
        x, t, mu, rng = tick.x[asked], tick.t[asked], values.log_softmax(-1), tick.draws().at(asked)
        logp = process.beliefs(x, mu, t)
        tokens = self.proposal.draw(logp, rng)
        sure = tick.spread(logp.gather(-1, tokens[:, None]).squeeze(-1).exp(), asked)
        score = tick.spread(self.rank(Asked(logp, tokens, tick.position[asked], rng)), asked)
        chosen = self.quota(score, sure, asked, tick.left)
        x, t = process.hold(x, mu, t, t, rng)
        x = process.write(x, tokens, chosen[asked])
        t = t.masked_fill(chosen[asked], 0.0)
        return Move(
            tick.x.masked_scatter(asked, x), tick.t.masked_scatter(asked, t), chosen, sure, torch.ones_like(tick.left)
        )


@dataclass(frozen=True)
class InOrder(Stepper):
    """Choose before looking: `rank` needs no prediction, so the network is asked only for what is written now."""

    rank: Rank
    quota: Quota
    proposal: Proposal

    def ask(self, tick: Tick) -> Tensor:
        blind = Asked(tick.t.new_empty(0), tick.x[tick.open], tick.position[tick.open], tick.draws().at(tick.open))
        score = tick.spread(self.rank(blind), tick.open)
        return self.quota(score, torch.zeros_like(score), tick.open, tick.left)

    def move(self, process: Process, tick: Tick, asked: Tensor, values: Tensor) -> Move:
        x, t = tick.x[asked], tick.t[asked]
        logp = process.beliefs(x, values.log_softmax(-1), t)
        tokens = self.proposal.draw(logp, tick.draws().at(asked))
        sure = tick.spread(logp.gather(-1, tokens[:, None]).squeeze(-1).exp(), asked)
        x = process.write(x, tokens, torch.ones_like(tokens, dtype=torch.bool))
        return Move(
            tick.x.masked_scatter(asked, x), tick.t.masked_fill(asked, 0.0), asked, sure, torch.ones_like(tick.left)
        )


@dataclass(frozen=True)
class Ancestral(Stepper):
    """The reverse process itself, t = 1 to 0 in even steps; the last draws what is left from the beliefs.

    timeless: the network does not read t. Its answer then stays true until the text changes, so a row takes further
    steps on one prediction until something is written: no more passes than tokens, the same law (MDLM's cache).
    """

    proposal: Proposal
    timeless: bool

    def ask(self, tick: Tick) -> Tensor:
        return tick.open

    def move(self, process: Process, tick: Tick, asked: Tensor, values: Tensor) -> Move:
        raw = values.log_softmax(-1)
        x, t, used = self._walk(process, tick, asked, self.proposal.law(raw))
        certain = asked & (process.certain(x) | (t == 0))
        sure = tick.spread(raw.gather(-1, x[asked][:, None]).squeeze(-1).exp(), asked)
        return Move(x, t.masked_fill(certain, 0.0), certain, sure, used)

    def _walk(self, process: Process, tick: Tick, asked: Tensor, mu: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Steps on one prediction: x, t (B, W) after them, and how many they were (B,)."""
        x, t, used = tick.x, tick.t, torch.zeros_like(tick.left)
        moving = torch.ones_like(tick.left, dtype=torch.bool)
        while moving.any():
            here = asked & moving[:, None]
            s = ((tick.left - used - 1) / tick.steps).to(t.dtype)[:, None].expand_as(t)
            drawn, then = _reverse(process, x[here], mu, t[here], s[here], tick.draws(used).at(here))
            x, t, used = x.masked_scatter(here, drawn), t.masked_scatter(here, then), used + moving
            on = moving & (x == tick.x).all(1) & (used < tick.left) & self.timeless
            if bool(on.any()) and not torch.equal(on, moving):
                mu = mu[on[:, None].expand_as(here)[here]]
            moving = on
        return x, t, used


def _reverse(process: Process, x: Tensor, mu: Tensor, t: Tensor, s: Tensor, rng: FromCounters) -> tuple[Tensor, Tensor]:
    """One draw from p(x_s | x_t), flat, and its times; where s is 0 from the beliefs, since alpha(0) may be below 1."""
    s = t.minimum(s)
    drawn, ends = process.reverse(x, mu, t, s, rng), s == 0
    if ends.any():
        final = process.beliefs(x[ends], mu[ends], t[ends].to(mu.dtype))
        drawn = drawn.masked_scatter(ends, Proposal(temperature=1.0).draw(final, rng.at(ends)))
    return drawn, s

"""One move towards the text: from what the network said to what is written. Knows no networks and no end of text.

A stepper first says which positions it wants a prediction for, then moves. It works on the open positions of every
row's current block, flat: N positions in row order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ..denoiser import Prediction
from ..noise.draws import FromCounters
from ..noise.process import Process
from .propose import Proposal
from .quotas import Offer, Quota
from .select import Asked, Rank, spread

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
    padded: Tensor | None = None
    infill: Tensor | None = None  # (B,) bool: rows that are gaps inside a text
    given: Tensor | None = None  # (B, W) bool: never open

    @property
    def real(self) -> Tensor:
        """(B, W) bool: not padding."""
        return torch.ones_like(self.open) if self.padded is None else ~self.padded

    def draws(self, ahead: Tensor | int = 0, stage: int = 0) -> FromCounters:
        """The row's own random numbers of the step so far ahead; other ones for each stage of a step."""
        rng = FromCounters(self.seed, self.position)
        rng.begin(self.taken + ahead + (stage << 48))
        return rng

    def spread(self, values: Tensor, where: Tensor) -> Tensor:
        """Flat values (N,) at where -> (B, W), zero elsewhere."""
        return spread(values, where)

    @property
    def next(self) -> Tensor:
        """(B, W): the times after this step."""
        return self.t.minimum(((self.left - 1) / self.steps).to(self.t.dtype)[:, None])


def put(x: Tensor, where: Tensor, states: Tensor) -> Tensor:
    """x (B, W) or (B, W, D) with flat states (N) or (N, D) at where (B, W)."""
    return x.masked_scatter(where if x.dim() == 2 else where[..., None], states)


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

    def without(self, rows: Tensor, tick: Tick) -> Move:
        """Not made in rows (B,) bool, which so far have made none."""
        if not bool(rows.any()):
            return self
        still = rows[:, None]
        memory = {
            name: part.masked_fill(rows.view(-1, *[1] * (part.dim() - 1)), 0) for name, part in self.memory.items()
        }
        return Move(
            torch.where(still, tick.x, self.x),
            torch.where(still, tick.t, self.t),
            self.settled & ~still,
            self.sure,
            self.used.masked_fill(rows, 0),
            memory,
        )


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

    def proposing(self, proposal: Proposal) -> Stepper | None:
        """The same rule with other proposals; None where its moves are not made of proposed tokens."""
        return None


@dataclass(frozen=True)
class Commit(Stepper):
    """Look at every open position, write the surest: `rank` says how sure, `quota` how many.

    late: tokens that are written last of all: where one is proposed its probability counts as 0 (LLaDA keeps ends of
    text from being chosen early like this).
    """

    rank: Rank
    quota: Quota
    proposal: Proposal
    late: tuple[int, ...] = ()

    def proposing(self, proposal: Proposal) -> Commit:
        return replace(self, proposal=proposal)

    def ask(self, tick: Tick) -> Tensor:
        return tick.open

    def move(self, process: Process, tick: Tick, asked: Tensor, values: Tensor) -> Move:
        x, t, mu, rng = tick.x[asked], tick.t[asked], values.log_softmax(-1), tick.draws().at(asked)
        logp = process.beliefs(x, mu, t)
        tokens = self.proposal.draw(logp, rng)
        offer = self._offer(tick, asked, logp, tokens, rng)
        chosen = self.quota(offer)
        x, t = process.hold(x, mu, t, t, rng)
        x = process.write(x, tokens, chosen[asked])
        t = t.masked_fill(chosen[asked], 0.0)
        sure = tick.spread(logp.gather(-1, tokens[:, None]).squeeze(-1).exp(), asked)
        return Move(
            put(tick.x, asked, x),
            tick.t.masked_scatter(asked, t),
            chosen,
            sure,
            self.quota.spent(offer),
            self.quota.keep(offer),
        )

    def _offer(self, tick: Tick, where: Tensor, logp: Tensor, tokens: Tensor, rng: FromCounters) -> Offer:
        if self.late:
            logp = _without(logp, self.late)
        sure = tick.spread(logp.gather(-1, tokens[:, None]).squeeze(-1).exp(), where)
        asked = Asked(logp, tokens, tick.position[where], rng, self.proposal)
        return Offer(tick.spread(self.rank(asked), where), sure, where, tick.left, tick.steps, asked, tick.memory)


def _without(logp: Tensor, tokens: tuple[int, ...]) -> Tensor:
    return logp.index_fill(-1, torch.tensor(tokens, device=logp.device), -torch.inf).log_softmax(-1)


@dataclass(frozen=True)
class InOrder(Stepper):
    """Choose before looking: `rank` needs no prediction, so the network is asked only for what is written now."""

    rank: Rank
    quota: Quota
    proposal: Proposal

    def proposing(self, proposal: Proposal) -> InOrder:
        return replace(self, proposal=proposal)

    def ask(self, tick: Tick) -> Tensor:
        return self.quota(self._offer(tick))

    def move(self, process: Process, tick: Tick, asked: Tensor, values: Tensor) -> Move:
        x, t = tick.x[asked], tick.t[asked]
        logp = process.beliefs(x, values.log_softmax(-1), t)
        tokens = self.proposal.draw(logp, tick.draws().at(asked))
        sure = tick.spread(logp.gather(-1, tokens[:, None]).squeeze(-1).exp(), asked)
        x = process.write(x, tokens, torch.ones_like(tokens, dtype=torch.bool))
        used = self.quota.spent(self._offer(tick))
        return Move(put(tick.x, asked, x), tick.t.masked_fill(asked, 0.0), asked, sure, used)

    def _offer(self, tick: Tick) -> Offer:
        here, rng = tick.open, tick.draws().at(tick.open)
        blind = Asked(tick.t.new_empty(0), tick.x[here], tick.position[here], rng, self.proposal)
        score = tick.spread(self.rank(blind), here)
        return Offer(score, torch.zeros_like(score), here, tick.left, tick.steps, blind)

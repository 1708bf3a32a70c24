"""Rules of writing that keep to a language: what they write is proposed for all open positions at once.

A rule says which positions to settle now; the proposal, which token goes where. Under a constraint the proposal is one
text that matches: the best (temperature 0) or a random one (else) under the model's law of each position, conditioned
on matching. So ANY subset of the proposed tokens may be settled, in any order and number, and the rest can still be
written: the rest of the very same text completes it. That holds again after each pass, so by induction every row ends
in a text that matches; what a reviser takes back only widens the choice. How sure a rule is of a token, and of a
position, it reads from the posterior: the law of each position in texts that match.

Of positions that the network was not asked about (blocks to come) only this is known: that some tokens must lead on.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...denoiser import Prediction
from ...noise.draws import FromCounters
from ...noise.process import Process
from ..propose import Proposal
from ..steppers import Move, Stepper, Tick
from .chains import OPEN
from .keeper import Keeper, Sight

STAGE = 7  # of a step's random numbers: no rule draws from it


@dataclass(frozen=True)
class Chosen(Proposal):
    """A proposal that is already made: tokens (N,)."""

    tokens: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))

    def draw(self, logp: Tensor, rng: FromCounters) -> Tensor:
        return self.tokens

    def law(self, logp: Tensor) -> Tensor:
        return torch.full_like(logp, -torch.inf, dtype=torch.float64).scatter(-1, self.tokens[:, None], 0.0)


def kept(stepper: Stepper, proposal: Proposal, keeper: Keeper | None) -> Stepper:
    """The rule, which writes what this proposal says, under a constraint if there is one."""
    return stepper if keeper is None else Constrained(stepper, proposal, keeper)


@dataclass(frozen=True)
class Constrained(Stepper):
    """stepper: a rule that can write what another proposes; proposal: its own."""

    stepper: Stepper
    proposal: Proposal
    keeper: Keeper

    def ask(self, tick: Tick) -> Tensor:
        """Where the rule looks, and at what is open before it: what fits there depends on that."""
        asked = self.stepper.ask(tick)
        last = torch.where(asked, tick.position, -1).amax(1, keepdim=True)
        return asked | (tick.open & (tick.position < last))

    def read(self, prediction: Prediction) -> Tensor:
        return self.stepper.read(prediction)

    def move(self, process: Process, tick: Tick, asked: Tensor, values: Tensor) -> Move:
        ruled, sight = self.stepper.ask(tick), self._sight(process, tick)
        mu, rng = values.log_softmax(-1), tick.draws(stage=STAGE)
        logp = process.beliefs(tick.x[asked], mu, tick.t[asked])
        u = [] if self.proposal.temperature == 0 else [rng.uniform(tick.x) for _ in range(3)]
        tokens, shift = self.keeper.propose(sight, asked & (sight.text == OPEN), asked, logp, self.proposal, u)
        heard, posterior = ruled[asked], shift.add_(mu)
        if not bool(heard.all()):
            tokens, posterior = tokens[heard], posterior[heard]
        rule = self.stepper.proposing(Chosen(**vars(self.proposal), tokens=tokens))
        assert rule is not None, "checked with the settings"
        return rule.move(process, tick, ruled, posterior)

    def _sight(self, process: Process, tick: Tick) -> Sight:
        """A token is known where it is settled, a draft, or certain for now; what the rule asks about is not."""
        assert tick.given is not None
        assert tick.infill is not None
        draft = tick.memory.get("draft", torch.zeros_like(tick.open))
        known = ((tick.t == 0) | draft | process.certain(tick.x)) & ~self.stepper.ask(tick)
        text = torch.where(known, process.read(tick.x), OPEN)
        return Sight(text, ~tick.given, tick.real, tick.infill)

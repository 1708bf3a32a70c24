"""The reverse process itself, and the family around it that may take back what it wrote: Psi-samplers and ReMDM.

Every member steps from time t to s by one law, position by position:

    x_s ~ (1 - r) p(x_s | x_t)  +  r q_s(. | x_0),   x_0 ~ p(x_0 | x_t)

the posterior, or with chance r a clean token noised anew (Psi-samplers, Duo chapter II, with kappa = 1 - r). Both sides
have the marginals of the forward process, so every r in [0, 1] has them too. Under masking, r = sigma / (1 - alpha_s)
is ReMDM (arXiv 2503.00307) with remasking probability sigma; r = 0 is MDLM's ancestral sampler.

A token that may still be taken back keeps its time above 0. The network is asked only about states that are uncertain.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import UserError
from ..noise.process import Process
from .guidance import UNGUIDED, Guidance
from .propose import Proposal
from .quotas import first
from .steppers import Memory, Move, Stepper, Tick, put

DRAW = Proposal(temperature=1.0)


@dataclass(frozen=True)
class Ancestral(Stepper):
    """From t = 1 to 0 in even steps; the last draws what is left from the beliefs.

    timeless: the network does not read t. Its answer then stays true until the text changes, so a row takes further
    steps on one prediction until something moves: no more passes than changes, the same law (MDLM's cache). Where
    everything is certain for now, nothing is asked at all.
    """

    proposal: Proposal
    timeless: bool
    guidance: Guidance = UNGUIDED

    def time(self, left: Tensor) -> Tensor:
        """The time at which a share `left` of the steps is still to come; 1 at 1, 0 at 0."""
        return left

    def renewal(self, process: Process, t: Tensor, s: Tensor, sure: Tensor) -> Tensor | None:
        """Chance r of noising anew, (B, W) for steps from t to s (B, W); None: never. sure (B, W): probability of
        what stands there, 0 where it is not certain."""
        return None

    def proposing(self, proposal: Proposal) -> Ancestral:
        return replace(self, proposal=proposal)

    def ask(self, tick: Tick) -> Tensor:
        return tick.open & ~tick.memory["certain"] if "certain" in tick.memory else tick.open

    def move(self, process: Process, tick: Tick, asked: Tensor, values: Tensor) -> Move:
        logp = values.log_softmax(-1)
        raw, law = self.guidance.tokens(logp), self.guidance.law(logp, self.proposal)
        walk = _Walk(self, process, tick, asked)
        while bool(walk.moving.any()):
            walk.step(law)
        certain = process.certain(walk.x) & tick.open
        now = tick.spread(raw.gather(-1, process.read(walk.x[asked])[:, None]).squeeze(-1).exp(), asked)
        sure = torch.where(asked, now, tick.memory.get("sure", now))
        done = tick.open & (walk.t == 0) if walk.renews else certain | (tick.open & (walk.t == 0))
        kept: Memory = {"certain": certain & ~done, "sure": sure} if walk.renews else {}
        return Move(walk.x, walk.t.masked_fill(done, 0.0), done, sure, walk.used, kept)


class _Walk:
    """Steps of every row on one prediction. x, t (B, W) after them; used (B,): how many; moving (B,): not there yet."""

    def __init__(self, stepper: Ancestral, process: Process, tick: Tick, asked: Tensor) -> None:
        self.stepper, self.process, self.tick, self.asked = stepper, process, tick, asked
        self.x, self.t, self.used = tick.x, tick.t, torch.zeros_like(tick.left)
        self.moving = torch.ones_like(tick.left, dtype=torch.bool)
        self.renews = False

    def step(self, law: Tensor) -> None:
        """One step of the rows that move, from the predictions law, (N, V) or (N, 2, V), at the N asked positions."""
        guidance = self.stepper.guidance
        tick, process, here = self.tick, self.process, self.tick.open & self.moving[:, None]
        share = ((tick.left - self.used - 1) / tick.steps).to(self.t.dtype)
        s = self.stepper.time(share)[:, None].expand_as(self.t).minimum(self.t)
        unsure = here & self.asked & ~process.certain(self.x)
        mu, x, t = law[unsure[self.asked]], self.x[unsure], self.t[unsure]
        rng = tick.draws(self.used).at(unsure)
        drawn = guidance.reverse(process, x, mu, t, s[unsure], rng)
        ends = s[unsure] == 0  # from the beliefs, since alpha(0) may be below 1
        if bool(ends.any()):
            beliefs = process.beliefs(x[ends], guidance.tokens(mu[ends]), t[ends].to(mu.dtype))
            final = DRAW.draw(beliefs, rng.at(ends))
            drawn = process.write(drawn, ends.long().masked_scatter(ends, final), ends)
        chance = self._renewal(here, s)
        if chance is None:
            self.x = put(self.x, unsure, drawn)
        else:
            beliefs = process.beliefs(x, guidance.tokens(mu), t.to(mu.dtype))
            clean = process.read(self.x).masked_scatter(unsure, DRAW.draw(beliefs, rng))
            self.x = self._renewed(put(self.x, unsure, drawn), clean, here & (s > 0), chance, s)
        self.t, self.used = torch.where(here, s, self.t), self.used + self.moving
        self.moving = self.moving & (self.used < tick.left) & self._needs_no_pass()

    def _renewed(self, drawn: Tensor, clean: Tensor, here: Tensor, chance: Tensor, s: Tensor) -> Tensor:
        """`drawn`, or with that chance the clean token noised to time s; all (B, W)."""
        self.renews = True
        rng = self.tick.draws(self.used, stage=1)
        anew = here & (rng.uniform(drawn) < chance)
        return put(drawn, anew, self.process.corrupt(clean[anew], s[anew], rng.at(anew)))

    def _renewal(self, here: Tensor, s: Tensor) -> Tensor | None:
        sure = self.tick.memory.get("sure", torch.zeros_like(self.t))
        certain = here & self.process.certain(self.x)
        return self.stepper.renewal(self.process, self.t, s, sure.masked_fill(~certain, 0.0))

    def _needs_no_pass(self) -> Tensor:
        """(B,): the text is as the network last saw it and that is all it looks at, or nothing in it is uncertain."""
        same = (self.x == self.tick.x).flatten(1).all(1) & self.stepper.timeless
        nothing = (self.process.certain(self.x) | ~self.tick.open).all(1) & self.renews
        return same | nothing


@dataclass(frozen=True)
class Psi(Ancestral):
    """Noise anew with a chance of its own early, in the middle and late: Duo's `high .2, middle .6, low .2`."""

    early: float = 0.0
    middle: float = 0.05
    late: float = 0.0
    begins: float = 0.8
    ends: float = 0.2

    def __post_init__(self) -> None:
        for name in ("early", "middle", "late", "begins", "ends"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"rule.{name}={getattr(self, name)} is outside [0, 1]; it is a chance or a time")

    def renewal(self, process: Process, t: Tensor, s: Tensor, sure: Tensor) -> Tensor:
        chance = torch.where(t > self.begins, self.early, torch.where(t > self.ends, self.middle, self.late))
        return chance.to(t.dtype)


@dataclass(frozen=True)
class Remasking(Ancestral):
    """ReMDM: every written token is masked again with probability sigma at each step.

    sigma may be up to min(1, (1 - alpha_s) / alpha_t); here no more than 1 - alpha_s, all that noise would mask anew,
    which differs only where nearly nothing is written yet.
    """

    eta: float = 0.02

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise UserError(f"rule.eta={self.eta} is outside [0, 1]; 0 never takes anything back")

    def sigma(self, most: Tensor, sure: Tensor) -> Tensor:
        """Remasking probability, given the most that it may be and how sure each token was (0: a mask)."""
        raise NotImplementedError

    def renewal(self, process: Process, t: Tensor, s: Tensor, sure: Tensor) -> Tensor:
        before, after = process.schedule.alpha(t.double()), process.schedule.alpha(s.double())
        most = ((1 - after) / before.clamp(min=1e-12)).clamp(max=1)
        return (self.sigma(most, sure) / (1 - after).clamp(min=1e-12)).clamp(0, 1).to(t.dtype)


@dataclass(frozen=True)
class Capped(Remasking):
    """ReMDM-cap: sigma = eta wherever that is allowed."""

    eta: float = 0.008

    def sigma(self, most: Tensor, sure: Tensor) -> Tensor:
        return most.clamp(max=self.eta)


@dataclass(frozen=True)
class Rescaled(Remasking):
    """ReMDM-rescale: sigma = eta times the most it may be."""

    eta: float = 0.015

    def sigma(self, most: Tensor, sure: Tensor) -> Tensor:
        return self.eta * most


@dataclass(frozen=True)
class Unsure(Remasking):
    """ReMDM-conf: one sigma a step, at most eta, shared out over a text by softmax(-psi), psi the probability each
    token had when it was written: the least sure go first. No longer exact: what is taken back depends on the text."""

    eta: float = 1.0

    def sigma(self, most: Tensor, sure: Tensor) -> Tensor:
        share = (-sure.double()).masked_fill(sure == 0, -torch.inf).softmax(1).nan_to_num(0.0)
        return share * most.clamp(max=self.eta)


@dataclass(frozen=True)
class Looped(Remasking):
    """ReMDM-loop: write until a share `filled` is written, at time `on`; then only take back and rewrite, eta a step,
    until time `off`; then write the rest."""

    on: float = 0.55
    off: float = 0.05
    filled: float = 0.9
    eta: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.off < self.on < 1:
            raise UserError(f"rule.on={self.on}, rule.off={self.off}: give 0 < off < on < 1")
        if not 0 < self.filled < 1:
            raise UserError(f"rule.filled={self.filled} is outside (0, 1); 0.9 is usual")

    def time(self, left: Tensor) -> Tensor:
        """The noise's time stands still at `1 - filled` while the loop runs."""
        still = 1 - self.filled
        early = still + (left - self.on) / (1 - self.on) * self.filled
        return torch.where(left > self.on, early, torch.where(left > self.off, still, left / self.off * still))

    def sigma(self, most: Tensor, sure: Tensor) -> Tensor:
        return most.clamp(max=self.eta)

    def renewal(self, process: Process, t: Tensor, s: Tensor, sure: Tensor) -> Tensor:
        return super().renewal(process, t, s, sure).masked_fill(t != s, 0.0)


@dataclass(frozen=True)
class FirstHitting(Stepper):
    """The reverse of masking in continuous time, one event a pass (arXiv 2409.02908, BD3-LM): of n masks, at time t the
    next to go is any of them, when a share u ** (1 / n) of the masking probability is left. No error of steps."""

    proposal: Proposal

    def proposing(self, proposal: Proposal) -> FirstHitting:
        return replace(self, proposal=proposal)

    def ask(self, tick: Tick) -> Tensor:
        return first(tick.draws(stage=1).uniform(tick.x), tick.open, torch.ones_like(tick.left))

    def move(self, process: Process, tick: Tick, asked: Tensor, values: Tensor) -> Move:
        logp = values.log_softmax(-1)
        tokens = self.proposal.draw(logp, tick.draws().at(asked))
        n = (tick.open.sum(1, keepdim=True) - 1).clamp(min=1)
        u = tick.draws(stage=2).uniform(tick.x)[:, :1]  # a row draws one time: that of its first position
        masked = (1 - process.schedule.alpha(tick.t.double())) * u ** (1 / n)
        later = process.schedule.time(1 - masked).to(tick.t.dtype).clamp(min=1e-6).minimum(tick.t)
        t = torch.where(tick.open & ~asked, later, tick.t).masked_fill(asked, 0.0)
        sure = tick.spread(logp.gather(-1, tokens[:, None]).squeeze(-1).exp(), asked)
        return Move(tick.x.masked_scatter(asked, tokens), t, asked, sure, torch.ones_like(tick.left))

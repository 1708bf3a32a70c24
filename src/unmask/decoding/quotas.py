"""How many open positions to settle now, and which: quotas. Knows scores and distributions, no noise, no networks.

Every row counts for itself: what its neighbours have still to write never matters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from ..errors import UserError
from .select import Asked, spread, steady, uncertainty


@dataclass(frozen=True)
class Offer:
    """Proposals for the open positions (B, W) of a batch. score, sure (B, W): rank and probability of the proposed
    tokens; left, steps (B,): steps left in the block with this one, of how many; asked: the proposals with their whole
    distributions, flat, N in row order; memory: what this quota kept from the pass before."""

    score: Tensor
    sure: Tensor
    open: Tensor
    left: Tensor
    steps: Tensor
    asked: Asked
    memory: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def count(self) -> Tensor:
        """(B,) int64: open positions."""
        return self.open.sum(1)

    @property
    def last(self) -> Tensor:
        """(B, 1) bool: the last step, which leaves nothing."""
        return (self.left <= 1)[:, None]

    def spread(self, values: Tensor) -> Tensor:
        """(N, ...) at the open positions -> (B, W, ...), zero elsewhere."""
        return spread(values, self.open)

    def first(self, share: Tensor) -> Tensor:
        """The share (B,) positions that rank highest; equal scores from left to right."""
        return first(self.score, self.open, share)


class Quota(Protocol):
    """Inherit from it. At least one position in a row that has an open one, all of them on the last step.

    looks: whether it depends on what the network says.
    """

    looks: ClassVar[bool] = True

    def __call__(self, offer: Offer) -> Tensor:
        """(B, W) bool: what is settled now."""
        ...

    def spent(self, offer: Offer) -> Tensor:
        """(B,) int64: the steps that this takes; more than one where a schedule has steps that settle nothing."""
        return torch.ones_like(offer.left)

    def keep(self, offer: Offer) -> dict[str, Tensor]:
        """What to remember for the next pass, (B, W, ...) each."""
        return {}


def first(score: Tensor, open: Tensor, share: Tensor) -> Tensor:
    """The share (B,) highest scores among open (B, W); equal scores from left to right."""
    return open & (places(score, open) < share[:, None])


def places(score: Tensor, open: Tensor) -> Tensor:
    """(B, W) int64: 0 for a row's highest score, 1 for the next, ..."""
    return order_of(score, open).argsort(1)


def order_of(score: Tensor, open: Tensor) -> Tensor:
    return score.masked_fill(~open, -torch.inf).argsort(dim=1, descending=True, stable=True)


def while_true(fits: Tensor, order: Tensor, open: Tensor) -> Tensor:
    """fits (B, W) bool, in the order (B, W) -> the positions before the first that does not fit, the first always."""
    fits = fits.clone()
    fits[:, :1] = True
    return open & torch.zeros_like(open).scatter(1, order, fits.cumprod(1).bool())


@dataclass(frozen=True)
class Evenly(Quota):
    """As many as keep pace with the steps left: LLaDA's floor(M / S), one more in the first M mod S of the S steps.

    ceil(open / left) is that number at every step, and needs no memory of where the block began.
    """

    looks: ClassVar[bool] = False

    def __call__(self, offer: Offer) -> Tensor:
        return offer.first(-(-offer.count // offer.left))


@dataclass(frozen=True)
class Fixed(Quota):
    """The `count` first in rank, whatever the steps."""

    count: int = 1

    looks: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UserError(f"quota.count={self.count} would never write anything; use 1 or more")

    def __call__(self, offer: Offer) -> Tensor:
        return offer.first(torch.where(offer.left <= 1, offer.count, self.count))


@dataclass(frozen=True)
class Above(Quota):
    """Every position at least `threshold` sure (Fast-dLLM, arXiv 2505.22618); where these are fewer than `least`, the
    `least` first in rank (LLaDA 2.0, SDAR's dynamic strategy)."""

    threshold: float = 0.9
    least: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise UserError(f"threshold={self.threshold} is outside (0, 1); 0.9 is usual")
        if self.least < 1:
            raise UserError(f"quota.least={self.least}: a pass that writes nothing never ends; use 1 or more")

    def __call__(self, offer: Offer) -> Tensor:
        sure = offer.open & ((offer.sure >= self.threshold) | offer.last)
        enough = sure.sum(1, keepdim=True) >= self.least
        ranked = offer.first(torch.full_like(offer.left, self.least))
        # the first in rank, where another rank than the confidence is asked for, comes on top of the sure
        return torch.where(enough, sure | offer.first(torch.ones_like(offer.left)), ranked)


@dataclass(frozen=True)
class Factor(Quota):
    """The most sure n positions, n the last in a row of counts for which (n + 1) (1 - c_n) < factor, c_n the n-th
    highest confidence: with such n, greedy parallel decoding is greedy sequential decoding (Fast-dLLM, theorem 1)."""

    factor: float

    def __post_init__(self) -> None:
        if not self.factor > 0:
            raise UserError(f"factor={self.factor} is not positive; 1 is usual, less is more careful")

    def __call__(self, offer: Offer) -> Tensor:
        order = order_of(steady(offer.sure), offer.open)
        n = torch.arange(1, order.shape[1] + 1, device=order.device)
        fits = (n + 1) * (1 - offer.sure.gather(1, order)) < self.factor
        return while_true(fits | offer.last, order, offer.open)


@dataclass(frozen=True)
class EntropyBound(Quota):
    """The first in rank whose entropies, without the largest, sum to at most `bound` nats: what they could tell of each
    other is no more than that (EB sampler, arXiv 2505.24857, eq. 7). 0 is one a step."""

    bound: float = 0.1

    def __post_init__(self) -> None:
        if not self.bound >= 0:
            raise UserError(f"quota.bound={self.bound} is negative; use nats from 0 up, 0.1 is usual")

    def __call__(self, offer: Offer) -> Tensor:
        order = order_of(offer.score, offer.open)
        each = offer.spread(uncertainty(offer.asked.logp)).gather(1, order)
        fits = each.cumsum(1) - each.cummax(1).values <= self.bound
        return while_true(fits | offer.last, order, offer.open)


@dataclass(frozen=True)
class Certain(Quota):
    """Every position with an entropy below `entropy` nats (dParallel, d3LLM), the first in rank always."""

    entropy: float = 0.5

    def __post_init__(self) -> None:
        if not self.entropy > 0:
            raise UserError(f"quota.entropy={self.entropy} is not positive; 0.5 nats is usual")

    def __call__(self, offer: Offer) -> Tensor:
        sure = offer.open & ((offer.spread(uncertainty(offer.asked.logp)) < self.entropy) | offer.last)
        return sure | offer.first(torch.ones_like(offer.left))


@dataclass(frozen=True)
class Stable(Quota):
    """Every position that is sure and has stopped moving: at least `threshold` sure, and in each of the last `passes`
    passes the beliefs changed by less than `kl` nats (KLASS, arXiv 2511.05664). Where there is none, an even share.

    The divergence is that of the KEPT likeliest tokens and the rest as one, which is never above the full one and
    equals it for small vocabularies; whole distributions of a long row would be gigabytes.
    """

    threshold: float = 0.9
    kl: float = 0.01
    passes: int = 2

    KEPT: ClassVar[int] = 64

    def __call__(self, offer: Offer) -> Tensor:
        calm = offer.open & (self._calm(offer) >= self.passes) & (offer.sure >= self.threshold)
        share = -(-offer.count // offer.left)
        return torch.where(calm.any(1, keepdim=True) & ~offer.last, calm, offer.first(share))

    def keep(self, offer: Offer) -> dict[str, Tensor]:
        best = offer.asked.logp.topk(min(self.KEPT, offer.asked.logp.shape[1]))
        return {
            "tokens": offer.spread(best.indices),
            "beliefs": offer.spread(best.values),
            "calm": self._calm(offer),
            "seen": offer.open,
        }

    def _calm(self, offer: Offer) -> Tensor:
        """(B, W) int64: passes since the beliefs last moved."""
        if "seen" not in offer.memory:
            return torch.zeros_like(offer.open, dtype=torch.int64)
        kept = {name: offer.memory[name][offer.open] for name in ("tokens", "beliefs", "calm", "seen")}
        now, was = offer.asked.logp.gather(1, kept["tokens"]).exp(), kept["beliefs"].exp()
        moved = _divergence(torch.cat([now, _rest(now)], 1), torch.cat([was, _rest(was)], 1))
        return offer.spread(torch.where(kept["seen"] & (moved < self.kl), kept["calm"] + 1, 0))


def _rest(p: Tensor) -> Tensor:
    return (1 - p.sum(1, keepdim=True)).clamp(min=0)


def _divergence(p: Tensor, q: Tensor) -> Tensor:
    return (torch.special.xlogy(p, p) - torch.special.xlogy(p, q.clamp(min=1e-12))).sum(1)


class Scheduled(Quota, Protocol):
    """A share that depends on the step and on what is open. Steps that would settle nothing are gone through at once,
    without a pass: inherit and say the share."""

    looks: ClassVar[bool] = False

    def share(self, count: Tensor, left: Tensor, steps: Tensor) -> Tensor:
        """(B,) int64 of `count` open positions, where `left` of `steps` steps are left, this one included."""
        ...

    def __call__(self, offer: Offer) -> Tensor:
        left = offer.left - self.spent(offer) + 1
        share = self.share(offer.count, left, offer.steps)
        return offer.first(torch.where(left <= 1, offer.count, share))

    def spent(self, offer: Offer) -> Tensor:
        used = torch.ones_like(offer.left)
        while True:
            left = offer.left - used + 1
            idle = (self.share(offer.count, left, offer.steps) < 1) & (left > 1)
            if not bool(idle.any()):
                return used
            used = used + idle


@dataclass(frozen=True)
class Proportional(Scheduled):
    """Dream's share: the integer part of open x (1 - s / t), t from 1 down to `earliest` in even steps; all at last.

    Dream takes the mean number of open positions in the batch; here every row counts its own.
    """

    earliest: float = 1e-3

    def share(self, count: Tensor, left: Tensor, steps: Tensor) -> Tensor:
        t, s = self._time(left, steps), self._time(left - 1, steps)
        return (count * (1 - s / t)).long()

    def _time(self, left: Tensor, steps: Tensor) -> Tensor:
        return self.earliest + (1 - self.earliest) * (left.float() / steps)


@dataclass(frozen=True)
class Expected(Scheduled):
    """dllm's share: the expected number that a schedule reveals in this step, rounded. In single precision and in this
    order of operations, which decide where an expectation ends in one half."""

    schedule: Literal["linear", "cosine"] = "linear"

    def share(self, count: Tensor, left: Tensor, steps: Tensor) -> Tensor:
        masked = 1 - self._alpha(left.float() / steps)
        still = 1 - self._alpha((left - 1).float() / steps)
        return (count * (1 - still / masked)).round().long()

    def _alpha(self, t: Tensor) -> Tensor:
        return 1 - t if self.schedule == "linear" else 1 - torch.cos(math.pi / 2 * (1 - t))


@dataclass(frozen=True)
class Wide(Above):
    """Every position at least `threshold` sure, but no more than `share` of those that are open, which is at least 5
    and at most 20 of them (WINO, arXiv 2507.18578)."""

    threshold: float = 0.6
    share: float = 0.7

    FEWEST: ClassVar[int] = 5
    MOST: ClassVar[int] = 20

    def __call__(self, offer: Offer) -> Tensor:
        most = (self.share * offer.count).long().clamp(self.FEWEST, self.MOST)
        return super().__call__(offer) & (offer.first(most) | offer.last)


QUOTAS: dict[str, type[Quota]] = {
    "evenly": Evenly,
    "fixed": Fixed,
    "above": Above,
    "wide": Wide,
    "factor": Factor,
    "entropy_bound": EntropyBound,
    "certain": Certain,
    "stable": Stable,
    "proportional": Proportional,
    "expected": Expected,
}

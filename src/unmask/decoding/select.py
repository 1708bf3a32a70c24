"""Which open positions to settle now: ranks say how sure, quotas say how many. Knows no noise and no networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..noise.draws import Draws


@dataclass(frozen=True)
class Asked:
    """What a rank may look at, at N positions: logp (N, V) as the model said it, before temperature and filters;
    tokens (N,) proposed; position (N,) in the row; rng: this row's own draws at these positions."""

    logp: Tensor
    tokens: Tensor
    position: Tensor
    rng: Draws


Rank = Callable[[Asked], Tensor]  # -> (N,) scores, the highest is settled first
GRAIN = 5  # decimals of a score that count


def steady(score: Tensor) -> Tensor:
    """Scores that differ by less than float32 can tell are equal, and go from left to right. On a canvas without a
    prompt all masks look the same to the network: the noise of its sums would choose, and change with the batch."""
    return score.round(decimals=GRAIN)


def confidence(asked: Asked) -> Tensor:
    """Probability of the proposed token under the raw logits: LLaDA's low_confidence, Dream's maskgit_plus."""
    return steady(asked.logp.gather(-1, asked.tokens[:, None]).squeeze(-1).exp())


def entropy(asked: Asked) -> Tensor:
    """Minus the entropy, so that the LEAST uncertain position comes first (Dream's rule; llama.cpp reverses it)."""
    return steady(-torch.special.entr(asked.logp.exp()).sum(-1))


def margin(asked: Asked) -> Tensor:
    """The best token's probability less the second best's (Dream's topk_margin)."""
    best = asked.logp.topk(2).values.exp()
    return steady(best[:, 0] - best[:, 1])


def random(asked: Asked) -> Tensor:
    """Any order: with one token a step this draws from the model's own distribution exactly."""
    return asked.rng.uniform(asked.position)


def left_to_right(asked: Asked) -> Tensor:
    return -asked.position.double()


LOOKING: dict[str, Rank] = {"confidence": confidence, "entropy": entropy, "margin": margin}
BLIND: dict[str, Rank] = {"random": random, "left_to_right": left_to_right}  # need no prediction to rank
RANKS: dict[str, Rank] = LOOKING | BLIND


class Quota(Protocol):
    def __call__(self, score: Tensor, sure: Tensor, open: Tensor, left: Tensor) -> Tensor:
        """score and sure (B, W): rank and probability of the proposals; open (B, W) bool; left (B,): steps left with
        this one -> (B, W) bool, at least one in a row that has an open position, all of them on the last step."""
        ...


@dataclass(frozen=True)
class Evenly:
    """As many as keep pace with the steps left: LLaDA's floor(M / S), one more in the first M mod S of the S steps.

    ceil(open / left) is that number at every step, and needs no memory of where the block began.
    """

    def __call__(self, score: Tensor, sure: Tensor, open: Tensor, left: Tensor) -> Tensor:
        share = -(-open.sum(1) // left)
        return first(score, open, share)


@dataclass(frozen=True)
class Above:
    """Every position at least `threshold` sure (Fast-dLLM, arXiv 2505.22618), the first in rank always."""

    threshold: float

    def __call__(self, score: Tensor, sure: Tensor, open: Tensor, left: Tensor) -> Tensor:
        last = (left <= 1)[:, None]
        return first(score, open, torch.ones_like(left)) | (open & ((sure >= self.threshold) | last))


def first(score: Tensor, open: Tensor, share: Tensor) -> Tensor:
    """The share (B,) highest scores among open (B, W); equal scores from left to right."""
    order = score.masked_fill(~open, -torch.inf).argsort(dim=1, descending=True, stable=True)
    return open & (order.argsort(1) < share[:, None])

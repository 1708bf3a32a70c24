"""Which open positions to settle first: ranks say how sure a proposal is. Knows no noise and no networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ..errors import UserError
from ..noise.draws import Draws
from .propose import Proposal


@dataclass(frozen=True)
class Asked:
    """What a rank may look at, at N positions: logp (N, V) as the model said it, before temperature and cuts; tokens
    (N,) proposed; position (N,) in the row; rng: this row's own draws at these positions; proposal: how the tokens
    were drawn."""

    logp: Tensor
    tokens: Tensor
    position: Tensor
    rng: Draws
    proposal: Proposal


Rank = Callable[[Asked], Tensor]  # -> (N,) scores, the highest is settled first
GRAIN = 5  # decimals of a score that count


def spread(values: Tensor, where: Tensor) -> Tensor:
    """values (N, ...) at where (B, W) bool, in row order -> (B, W, ...), zero elsewhere."""
    out = values.new_zeros(*where.shape, *values.shape[1:])
    out[where] = values
    return out


def steady(score: Tensor) -> Tensor:
    """Scores that differ by less than float32 can tell are equal, and go from left to right. On a canvas without a
    prompt all masks look the same to the network: the noise of its sums would choose, and change with the batch."""
    return score.round(decimals=GRAIN)


def uncertainty(logp: Tensor) -> Tensor:
    """Entropy of logp (N, V) in nats: (N,)."""
    return torch.special.entr(logp.exp()).sum(-1)


def confidence(asked: Asked) -> Tensor:
    """Probability of the proposed token under the raw logits: LLaDA's low_confidence."""
    return steady(asked.logp.gather(-1, asked.tokens[:, None]).squeeze(-1).exp())


def entropy(asked: Asked) -> Tensor:
    """Minus the entropy, so that the LEAST uncertain position comes first (Dream's rule; llama.cpp reverses it)."""
    return steady(-uncertainty(asked.logp))


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


@dataclass(frozen=True)
class AfterCuts:
    """Dream's reading of a rank: of the law that tokens are drawn from, after temperature, top-p and top-k.

    noise (Dream's alg_temp): above 0 the order itself is drawn, the k first without replacement in proportion to
    exp(score / noise), by Gumbel's trick; 0 takes the best.
    """

    of: Literal["confidence", "entropy", "margin"] = "confidence"
    noise: float = 0.0

    def __post_init__(self) -> None:
        if self.noise < 0:
            raise UserError(f"rule.noise={self.noise} is negative; 0 takes the best, above it the order is drawn")

    def __call__(self, asked: Asked) -> Tensor:
        score = LOOKING[self.of](replace(asked, logp=asked.proposal.cut(asked.logp)))
        if self.noise == 0:
            return score
        return score / self.noise - (-asked.rng.uniform(asked.position).log()).log()


RANKS: dict[str, Rank | type] = {**LOOKING, **BLIND, "after_cuts": AfterCuts}

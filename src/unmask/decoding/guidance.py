"""What may not be written, and how much the given text counts. Knows no rule of writing.

Classifier-free guidance without a class (LLaDA's): the network sees every text twice, the second time blind, with the
given text noised away, and what it says the first time counts for more by what the given text has changed. There are
two forms: of what it says of the clean tokens (here), and of the step that follows from that (`posterior`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from ..errors import UserError
from ..noise.draws import FromCounters
from ..noise.process import Process
from .canvas import Canvas
from .propose import Proposal


def without(values: Tensor, tokens: Sequence[int]) -> Tensor:
    """values (N, V) with -inf at the tokens that are never written."""
    if not tokens:
        return values
    return values.index_fill(-1, torch.tensor(list(tokens), device=values.device), -torch.inf)


def blinded(canvas: Canvas, noise: Tensor) -> Canvas:
    """The same rows with pure noise (B, W) in the place of the given text."""
    given = canvas.given
    return replace(canvas, x=torch.where(given, noise, canvas.x), t=canvas.t.masked_fill(given, 1.0))


def guided(sees: Tensor, blind: Tensor, scale: float) -> Tensor:
    """c + scale (c - u) for the log-probabilities or log-scores (N, V) c with the given text in sight, u without."""
    impossible = sees.isneginf() | blind.isneginf()
    return (sees + scale * (sees - blind)).masked_fill(impossible, -torch.inf)


class Guidance(Protocol):
    """How two predictions, with the given text and without, become one way to write. Inherit from it.

    in_steps: whether the rule is told both and has to step from them, as those of the reverse process can.
    """

    scale: float
    in_steps: ClassVar[bool] = False

    def mixed(self, sees: Tensor, blind: Tensor) -> Tensor:
        """What a rule is given: (N, V), or (N, 2, V) if in_steps, from (N, V) of each."""
        ...

    def law(self, logp: Tensor, proposal: Proposal) -> Tensor:
        """What the proposal leaves of the log-probabilities logp, which are shaped like the values."""
        return proposal.law(logp)

    def tokens(self, law: Tensor) -> Tensor:
        """Those of the clean tokens, (N, V)."""
        return law

    def reverse(self, process: Process, x: Tensor, law: Tensor, t: Tensor, s: Tensor, rng: FromCounters) -> Tensor:
        """One draw of x_s at N positions: x, t, s (N,)."""
        return process.reverse(x, law, t, s, rng)


def check_scale(scale: float) -> None:
    if not (math.isfinite(scale) and scale >= 0):
        raise UserError(f"guidance={scale} is not a number from 0 up; 0 is none, 1.5 is usual")


@dataclass(frozen=True)
class Tokens(Guidance):
    """p(token | given) ^ (1 + scale) / p(token) ^ scale, for every rule. Of scores it makes guided rates: Euler's steps
    are then those of discrete guidance (Nisonoff et al., arXiv 2406.01572)."""

    scale: float = 0.0

    def __post_init__(self) -> None:
        check_scale(self.scale)

    def mixed(self, sees: Tensor, blind: Tensor) -> Tensor:
        return guided(sees, blind, self.scale)


UNGUIDED = Tokens()

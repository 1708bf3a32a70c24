"""A network, the rule of who sees whom and how its output is read: together they give mu. Knows no noise law.

`mu` (B, L, V) would be gigabytes for a long row and a large vocabulary, so a prediction is lazy: it holds hidden
states of the positions asked for, and turns them into log-probabilities or cross-entropies in chunks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from .models.attention import Everything, Places, Rule
from .models.readout import logits, weighted_cross_entropy
from .models.transformer import Transformer


class Head(Protocol):
    """Which token the network's output at a position speaks of."""

    def inputs(self, x: Tensor, places: Places) -> Tensor:
        """What the network is fed for the text x (B, L)."""
        ...

    def rows(self, where: Tensor) -> Tensor:
        """The positions whose outputs speak of `where` (B, L) bool, in the same row order."""
        ...


@dataclass(frozen=True)
class CleanLogits:
    """The output at i speaks of token i: LLaDA, MDLM, BD3-LM, SDAR."""

    def inputs(self, x: Tensor, places: Places) -> Tensor:
        return x

    def rows(self, where: Tensor) -> Tensor:
        return where


@dataclass(frozen=True)
class NextToken:
    """The network is fed a start token, then the text, so the output at i speaks of token i: left to right."""

    start: int

    def inputs(self, x: Tensor, places: Places) -> Tensor:
        return x.roll(1, 1).masked_fill(places.position == 0, self.start)

    def rows(self, where: Tensor) -> Tensor:
        return where


@dataclass(frozen=True)
class ShiftedLogits:
    """The output at i - 1 speaks of token i, position 0 of itself: models that come from autoregressive ones."""

    def inputs(self, x: Tensor, places: Places) -> Tensor:
        return x

    def rows(self, where: Tensor) -> Tensor:
        assert not (where[:, 0] & where[:, 1]).any(), "positions 0 and 1 share one output: keep the first one given"
        rows = where.roll(-1, 1)
        rows[:, -1] = False
        rows[:, 0] |= where[:, 0]
        return rows


@dataclass(frozen=True)
class Prediction:
    """mu at N positions: hidden (N, D) and the head that reads it; banned symbols have probability zero."""

    hidden: Tensor
    weight: Tensor
    banned: Tensor | None

    def logits(self) -> Tensor:
        """(N, V) float32, -inf at symbols that cannot be emitted."""
        return logits(self.hidden, self.weight, self.banned)

    def mu(self) -> Tensor:
        """(N, V) log-probabilities, float32."""
        return self.logits().log_softmax(-1)

    def cross_entropy(self, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Weighted sum (scalar, differentiable) and nats a row (N,), without holding (N, V)."""
        return weighted_cross_entropy(self.hidden, self.weight, targets, weights, self.banned)


class Denoiser(nn.Module):
    """The network bound to its rule, head and mask."""

    banned: Tensor

    def __init__(
        self, network: Transformer, *, mask_id: int, rule: Rule = Everything(), head: Head = CleanLogits()
    ) -> None:
        super().__init__()
        self.network, self.rule, self.head, self.mask_id = network, rule, head, mask_id
        self.register_buffer("banned", torch.tensor([mask_id]), persistent=False)

    @property
    def vocab(self) -> int:
        return self.network.config.vocab

    def forward(
        self, x: Tensor, t: Tensor | None = None, *, places: Places | None = None, where: Tensor | None = None
    ) -> Prediction:
        """x (B, L) noisy tokens, t (B, L) their times -> mu at where (B, L) bool (all if None), N rows in row order."""
        places = Places.of(x) if places is None else places
        where = torch.ones_like(x, dtype=torch.bool) if where is None else where
        hidden = self.network(
            self.head.inputs(x, places), places, self.rule, t, None if where.all() else self.head.rows(where)
        )
        hidden = hidden.flatten(0, -2) if where.all() else hidden
        return Prediction(hidden, self.network.head.weight, self.banned)

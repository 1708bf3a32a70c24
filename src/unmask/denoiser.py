"""A network, the rule of who sees whom and how its output is read: together they give mu. Knows no noise law.

`mu` (B, L, V) would be gigabytes for a long row and a large vocabulary, so a prediction is lazy: it holds hidden
states of the positions asked for, and turns them into log-probabilities or cross-entropies in chunks.
"""

from __future__ import annotations

from collections.abc import Sequence
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

    def sources(self, places: Places) -> Tensor | None:
        """(B, L) int64: the position whose output speaks of each position. None: its own."""
        ...


@dataclass(frozen=True)
class CleanLogits:
    """The output at i speaks of token i: LLaDA, MDLM, BD3-LM, SDAR."""

    def inputs(self, x: Tensor, places: Places) -> Tensor:
        return x

    def sources(self, places: Places) -> None:
        return None


@dataclass(frozen=True)
class NextToken:
    """The network is fed a start token, then the text, so the output at i speaks of token i: left to right."""

    start: int

    def inputs(self, x: Tensor, places: Places) -> Tensor:
        return x.roll(1, 1).masked_fill(places.position == 0, self.start)

    def sources(self, places: Places) -> None:
        return None


@dataclass(frozen=True)
class ShiftedLogits:
    """The output at i - 1 speaks of token i, a document's first of itself: what autoregressive models became."""

    def inputs(self, x: Tensor, places: Places) -> Tensor:
        return x

    def sources(self, places: Places) -> Tensor:
        here = torch.arange(places.position.shape[1], device=places.position.device)
        return here - (places.position > 0).long()


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
    """The network bound to its rule, head and mask. unused: ids without a meaning, never emitted, like the mask."""

    banned: Tensor

    def __init__(
        self,
        network: Transformer,
        *,
        mask_id: int,
        rule: Rule = Everything(),
        head: Head = CleanLogits(),
        unused: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.network, self.rule, self.head, self.mask_id = network, rule, head, mask_id
        self.register_buffer("banned", torch.tensor([mask_id, *unused]), persistent=False)

    @property
    def vocab(self) -> int:
        return self.network.config.vocab

    def forward(
        self, x: Tensor, t: Tensor | None = None, *, places: Places | None = None, where: Tensor | None = None
    ) -> Prediction:
        """x (B, L) noisy tokens, t (B, L) their times -> mu at where (B, L) bool (all if None), N rows in row order."""
        places = Places.of(x) if places is None else places
        where = torch.ones_like(x, dtype=torch.bool) if where is None else where
        source = self.head.sources(places)
        rows = where if source is None else _sought(source, where)
        hidden = self.network(self.head.inputs(x, places), places, self.rule, t, None if rows.all() else rows)
        hidden = hidden.flatten(0, -2)
        if source is not None:
            rank = (rows.flatten().cumsum(0) - 1).view_as(rows)
            hidden = hidden[rank.gather(1, source)[where]]
        return Prediction(hidden, self.network.head.weight, self.banned)


def _sought(source: Tensor, where: Tensor) -> Tensor:
    """The outputs (B, L) bool that some position of `where` is read from; two positions may share one."""
    rows = torch.zeros_like(where)
    row, column = where.nonzero(as_tuple=True)
    rows[row, source[row, column]] = True
    return rows

"""A network, the rule of who sees whom and how its output is read: together they give mu. Knows no noise law.

`mu` (B, L, V) would be gigabytes for a long row and a large vocabulary, so a prediction is lazy: it holds hidden
states of the positions asked for, and turns them into log-probabilities or cross-entropies in chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .echo import Echo
from .models.attention import Everything, Memory, Places, Rule
from .models.readout import Cost, differentiated, logits, rows_at_a_time, weighted_cost, weighted_cross_entropy
from .models.transformer import Transformer


@dataclass(frozen=True)
class Prediction:
    """mu at N positions: hidden (N, D) and the head that reads it; banned symbols have probability zero."""

    hidden: Tensor
    weight: Tensor
    banned: Tensor | None
    bias: Tensor | None = None

    def logits(self) -> Tensor:
        """(N, V) float32, -inf at symbols that cannot be emitted."""
        return logits(self.hidden, self.weight, self.banned, self.bias)

    def at(self, rows: slice | Tensor) -> Prediction:
        """Of some of the N positions, a slice or their indices."""
        return replace(self, hidden=self.hidden[rows])

    def mu(self) -> Tensor:
        """(N, V) log-probabilities, float32."""
        return self.logits().log_softmax(-1)

    def cross_entropy(self, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Weighted sum (scalar, differentiable) and nats a row (N,), without holding (N, V)."""
        return weighted_cross_entropy(self.hidden, self.weight, targets, weights, self.banned, self.bias)

    def cost(self, cost: Cost, weights: Tensor) -> tuple[Tensor, Tensor]:
        """The same for any cost of mu: cost(mu (n, V), rows) -> (n,) is asked for one chunk of the N rows at a time."""
        return self._cost(lambda scores, rows: cost(scores.log_softmax(-1), rows), weights)

    def map(self, read: Callable[[Tensor, slice], Tensor]) -> Tensor:
        """read(mu (n, V), rows) -> (n, ...), all N rows, one chunk at a time, computed again in the backward pass."""

        def part(rows: slice) -> Tensor:
            return read(logits(self.hidden[rows], self.weight, self.banned, self.bias).log_softmax(-1), rows)

        size = rows_at_a_time(len(self.weight))
        parts = [slice(start, start + size) for start in range(0, max(len(self.hidden), 1), size)]
        keep = not torch.is_grad_enabled()
        return torch.cat([part(rows) if keep else checkpoint(part, rows, use_reentrant=False) for rows in parts])

    def _cost(self, cost: Cost, weights: Tensor) -> tuple[Tensor, Tensor]:
        """A cost of the logits (n, V)."""
        slopes = differentiated(cost, weights)
        return weighted_cost(self.hidden, self.weight, weights, slopes, self.banned, self.bias)


class Head(Protocol):
    """Which token the network's output at a position speaks of, and what it says of it. Inherit from it."""

    def inputs(self, x: Tensor, places: Places) -> Tensor:
        """What the network is fed for the text x (B, L)."""
        ...

    def sources(self, places: Places) -> Tensor | None:
        """(B, L) int64: the position whose output speaks of each position. None: its own."""
        ...

    def reads(self, said: Prediction, x: Tensor, t: Tensor) -> Prediction:
        """The logits said at N positions as a prediction, given the noisy tokens x (N,) and times t (N,) there."""
        return said


@dataclass(frozen=True)
class CleanLogits(Head):
    """The output at i speaks of token i: LLaDA, MDLM, BD3-LM, SDAR."""

    def inputs(self, x: Tensor, places: Places) -> Tensor:
        return x

    def sources(self, places: Places) -> None:
        return None


@dataclass(frozen=True)
class NextToken(Head):
    """The network is fed a start token, then the text, so the output at i speaks of token i: left to right."""

    start: int

    def inputs(self, x: Tensor, places: Places) -> Tensor:
        return x.roll(1, 1).masked_fill(places.position == 0, self.start)

    def sources(self, places: Places) -> None:
        return None


@dataclass(frozen=True)
class NextTokenOrBlock(NextToken):
    """Left to right; of tokens in a noisy copy of the text, the output at i speaks of token i, fed as it is."""

    def inputs(self, x: Tensor, places: Places) -> Tensor:
        if places.clean is None:
            return super().inputs(x, places)
        begins = torch.ones_like(places.clean)
        begins[:, 1:] = places.position.diff(dim=1) != 1
        return torch.where(places.clean, x.roll(1, 1).masked_fill(begins, self.start), x)


@dataclass(frozen=True)
class ShiftedLogits(Head):
    """The output at i - 1 speaks of token i, a document's first of itself: what autoregressive models became."""

    def inputs(self, x: Tensor, places: Places) -> Tensor:
        return x

    def sources(self, places: Places) -> Tensor:
        here = torch.arange(places.position.shape[1], device=places.position.device)
        return here - (places.position > 0).long()


class Denoiser(nn.Module):
    """The network bound to its rule, head and mask. unused: ids without a meaning, never emitted, like the mask.

    level: what the network is told of a time, if it is not the time itself. echo: what it is told of its last word on
    the text, if it has an input for that.
    """

    banned: Tensor

    def __init__(
        self,
        network: Transformer,
        *,
        mask_id: int,
        rule: Rule = Everything(),
        head: Head = CleanLogits(),
        unused: Sequence[int] = (),
        level: Callable[[Tensor], Tensor] | None = None,
        echo: Echo | None = None,
    ) -> None:
        super().__init__()
        self.echo = echo
        self.network, self.rule, self.head, self.mask_id, self.level = network, rule, head, mask_id, level
        self.register_buffer("banned", torch.tensor([mask_id, *unused]), persistent=False)

    @property
    def unused(self) -> list[int]:
        """Ids without a meaning, the mask not among them."""
        ids: list[int] = self.banned[1:].tolist()
        return ids

    @property
    def vocab(self) -> int:
        return self.network.config.vocab

    @property
    def packs(self) -> bool:
        """Whether a pass may be fed some positions of each row, packed without padding."""
        return isinstance(self.network, Transformer)

    def forward(
        self,
        x: Tensor,
        t: Tensor | None = None,
        *,
        places: Places | None = None,
        where: Tensor | None = None,
        cache: Memory | None = None,
        feed: Tensor | None = None,
        feedback: Tensor | None = None,
    ) -> Prediction:
        """x (B, L) noisy tokens, or noisy embeddings (B, L, E), t (B, L) their times -> mu at where (B, L) bool (all if
        None), N rows in row order.

        With a cache only the positions feed (B, L) bool (all if None) go through the network, among them `sought`.
        feedback (B, L, E): what it is told of its last word, from `recalled`.
        """
        places = Places.of(x) if places is None else places
        where = torch.ones_like(places.position, dtype=torch.bool) if where is None else where
        source, rows = self.head.sources(places), self.sought(where, places)
        wanted = None if cache is None and rows.all() else rows
        inputs = self.head.inputs(x, places)
        told = t if t is None or self.level is None else self.level(t)
        hidden = self.network(
            inputs, places, self.rule, told, wanted, cache=cache, feed=feed, feedback=feedback
        ).flatten(0, -2)
        if source is not None:
            rank = (rows.flatten().cumsum(0) - 1).view_as(rows)
            hidden = hidden[rank.gather(1, source)[where]]
        said = Prediction(hidden, self.network.head.weight, self.banned, self.network.head.bias)
        return self.head.reads(said, x[where], torch.zeros_like(where.float())[where] if t is None else t[where])

    def silence(self, t: Tensor) -> Tensor:
        """The feedback (B, L, E) when nothing was said of any position, for times t (B, L)."""
        return torch.zeros(*t.shape, self.network.embed.weight.shape[1], device=t.device)

    def recalled(self, said: Prediction, x: Tensor, t: Tensor) -> Tensor:
        """The feedback (N, E) for what was said at N positions, given x (N,) or (N, E) and t (N,) there. What was said
        is a fact: no gradient goes back through it."""
        echo = self.echo
        assert echo is not None, "this model is not told what it said"
        return said.map(lambda mu, rows: echo(self.network, mu.detach(), x[rows], t[rows]).float())

    def sought(self, where: Tensor, places: Places) -> Tensor:
        """The outputs (B, L) bool that some position of `where` (B, L) is read from; two positions may share one."""
        source = self.head.sources(places)
        if source is None:
            return where
        rows = torch.zeros_like(where)
        row, column = where.nonzero(as_tuple=True)
        rows[row, source[row, column]] = True
        return rows

"""One pass over rows of several caches, and over rows that keep nothing. Knows no policy and no text.

The tokens of all rows stand behind each other in one row, without padding. Attention is computed in the shapes that a
row has by itself, so that it sums in the same order whatever is fed beside it: the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from .attention import STRIPPED, Everything, Memory, Places, Rule, Sight, Visibility


def neighbours(asks: Sequence[Sequence[int]], keys: Sequence[object], device: torch.device) -> Iterator[slice]:
    """Runs of rows that share attention calls: each asks as many queries of as many keys, and sums as it would alone.
    asks: of each row, the queries in each of its calls.

    Not so where the queries are worked off in strips, without the keys that no row sees; and a single query's keys are
    spread over a processor's threads as the number of rows suggests.
    """
    spread = device.type == "cpu" and torch.get_num_threads() > 1
    start = 0
    for row in range(1, len(asks) + 1):
        sizes = asks[start]
        alike = row < len(asks) and (asks[row], keys[row]) == (sizes, keys[start])
        if not alike or max(sizes, default=0) >= STRIPPED or (1 in sizes and spread):
            yield slice(start, row)
            start = row


@dataclass(frozen=True)
class Unkept:
    """Rows that keep nothing: they see what is fed in this pass."""

    layers: int

    def open(self, rule: Rule, position: Tensor, feed: Tensor, clean: Tensor | None = None) -> Sequence[Sight]:
        places = Places(position[feed], None, None if clean is None else clean[feed])
        return [Fresh(rule, places, feed.sum(1).tolist())] * self.layers


@dataclass(frozen=True)
class Alike:
    """Rows as far as one attention call goes: where their queries and keys stand in the pass, and who sees whom."""

    rows: int
    queries: slice
    keys: slice
    see: Visibility

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q (Nq, H, D), k and v (N, Hkv, D) of the whole pass -> (rows, queries of each, H D)."""
        ours = q[self.queries], k[self.keys], v[self.keys]
        return self.see.mix(*(part.view(self.rows, -1, *part.shape[1:]) for part in ours))


@dataclass(frozen=True)
class Fresh:
    """What rows see that have nothing but what is fed. places: of N tokens, flat; sizes: how many of them each row has;
    index (Nq,): those that ask, all if None."""

    rule: Rule
    places: Places
    sizes: list[int]
    index: Tensor | None = None

    def only(self, index: Tensor) -> Sight:
        return replace(self, index=index[0])

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Packed: q (1, Nq, H, D), k and v (1, N, Hkv, D) -> (1, Nq, H D)."""
        packed = q[0], k[0], v[0]
        out = [some.mix(*packed).flatten(0, 1) for some in self.groups]
        return (torch.cat(out) if len(out) != 1 else out[0])[None] if out else q.flatten(2)

    @cached_property
    def groups(self) -> list[Alike]:
        """Made once a pass and shared by its layers."""
        asks, starts = self._asks(), [0, *accumulate(self.sizes)]
        found, first = [], 0
        for rows in neighbours([[size] for size in asks], self.sizes, self.places.position.device):
            count, queries = rows.stop - rows.start, slice(first, first + sum(asks[rows]))
            first = queries.stop
            if asks[rows.start]:
                keys = slice(starts[rows.start], starts[rows.stop])
                found.append(Alike(count, queries, keys, self._see(count, queries, keys)))
        return found

    def _asks(self) -> list[int]:
        if self.index is None:
            return self.sizes
        edges = torch.tensor([0, *accumulate(self.sizes)], device=self.index.device)
        found: list[int] = torch.searchsorted(self.index, edges).diff().tolist()
        return found

    def _see(self, rows: int, queries: slice, keys: slice) -> Visibility:
        here = self.places.map(lambda x: x[keys].view(rows, -1))
        see = Visibility(self.rule, here, here)
        if self.index is None or isinstance(self.rule, Everything):  # then it does not matter who asks
            return see
        begins = torch.arange(rows, device=self.index.device)[:, None] * here.position.shape[1] + keys.start
        return see.only(self.index[queries].view(rows, -1) - begins)


@dataclass(frozen=True)
class Together:
    """Rows of several memories in one pass, one memory after the other: how many rows, and what is kept of them."""

    parts: Sequence[tuple[int, Memory]]

    def open(self, rule: Rule, position: Tensor, feed: Tensor, clean: Tensor | None = None) -> Sequence[Sight]:
        bounds = [0, *accumulate(rows for rows, _ in self.parts)]
        ends = [0, *feed.sum(1).cumsum(0).tolist()]
        opened = [
            memory.open(rule, position[a:b], feed[a:b], None if clean is None else clean[a:b])
            for (a, b), (_, memory) in zip(pairwise(bounds), self.parts)
        ]
        tokens = [ends[b] - ends[a] for a, b in pairwise(bounds)]
        return [Mixed(sights, tokens, tokens) for sights in zip(*opened)]


@dataclass(frozen=True)
class Mixed:
    """One layer's sight of several memories. tokens, asks: how many tokens are fed of each, how many queries ask."""

    sights: Sequence[Sight]
    tokens: list[int]
    asks: list[int]

    def only(self, index: Tensor) -> Sight:
        edges = torch.tensor([0, *accumulate(self.tokens)], device=index.device)
        ends = torch.searchsorted(index[0], edges).tolist()
        starts = edges.tolist()
        parts = [sight.only(index[:, a:b] - at) for sight, (a, b), at in zip(self.sights, pairwise(ends), starts)]
        return Mixed(parts, self.tokens, [b - a for a, b in pairwise(ends)])

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        parts = zip(self.sights, q.split(self.asks, 1), k.split(self.tokens, 1), v.split(self.tokens, 1))
        return torch.cat([sight.mix(*one) for sight, *one in parts], 1)

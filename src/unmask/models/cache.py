"""Keys and values that outlive a pass, in slots addressed by absolute position. Knows no policy: who is fed is said.

A pass feeds N tokens of B rows, as many of each row as it likes, packed without padding. Every layer writes their keys
(after RoPE) and values into their slots and lets them attend to all filled slots that the rule lets them see. Memory is
2 x layers x B x Hkv x S x D numbers, linear in the slots; nothing of it is copied from pass to pass, only now and then
where a text grows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from .attention import STRIPPED, Places, Rule, Sight, Visibility, attend_uncompiled, attend_where, block_size
from .packed import neighbours

UNIT = 64  # positions, made up to whole blocks, that attend together where a model never looks ahead


def unit_of(size: int) -> int:
    """Positions of a unit in which a model sees its text in blocks of so many."""
    return -(-UNIT // size) * size


class Cache:
    """B rows of S slots. filled (B, S) bool: slots that hold something; a slot is written when its position is fed."""

    def __init__(
        self, layers: int, rows: int, slots: int, heads: int, width: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        """heads: key/value heads; width: of one head."""
        shape = (rows, heads, slots, width)
        # zeros: what is hidden is multiplied by zero, and zero times garbage may be nan
        self.layers = [Slots(*(torch.zeros(shape, dtype=dtype, device=device) for _ in "kv")) for _ in range(layers)]
        self.filled = torch.zeros(rows, slots, dtype=torch.bool, device=device)

    @property
    def rows(self) -> int:
        return self.filled.shape[0]

    @property
    def slots(self) -> int:
        return self.filled.shape[1]

    @property
    def n_bytes(self) -> int:
        return sum(part.nbytes for layer in self.layers for part in (layer.keys, layer.values))

    def open(self, rule: Rule, position: Tensor, feed: Tensor, clean: Tensor | None = None) -> list[Sight]:
        """Begin a pass: position (B, L) int64 of its tokens, feed (B, L) bool those that go through the network ->
        what each layer's queries see. The slots count as filled from here on. clean (B, L) bool, where a rule asks:
        what stands in the slots already counts as clean, so forget a noisy token after its pass."""
        assert not torch.is_grad_enabled(), "a cache keeps no gradients: open it under no_grad or inference_mode"
        assert len(feed) == len(self.filled), f"{len(feed)} rows, a cache of {len(self.filled)}"
        fed = Fed.of(feed, position)
        assert bool((fed.position < self.slots).all()), f"position {int(position.max())} in a cache of {self.slots}"
        self.filled[fed.row, fed.position] = True
        slot = torch.arange(1, self.slots + 1, device=feed.device)
        extents = torch.where(self.filled, slot, 0).amax(1).tolist()
        kinds = None
        if clean is not None:
            kinds = torch.ones_like(self.filled)
            kinds[fed.row, fed.position] = clean[feed]
        queries = Queries(fed.row, fed.position, rule, self.filled, extents, kinds)
        return [Kept(layer, fed, queries) for layer in self.layers]

    def reserve(self, slots: int, most: int) -> None:
        """Room for so many slots, and for twice as many as there were, but no more than `most`: as a text grows, all
        that is kept of it is copied so rarely that a token pays for it but once or twice."""
        if slots <= self.slots:
            return
        more = max(slots, min(2 * self.slots, most)) - self.slots
        self.filled = F.pad(self.filled, [0, more])
        for layer in self.layers:  # one after the other, as below
            layer.keys = F.pad(layer.keys, [0, 0, 0, more])
            layer.values = F.pad(layer.values, [0, 0, 0, more])

    def part(self, row: int, slots: slice) -> list[tuple[Tensor, Tensor]]:
        """A copy of each layer's keys and values (Hkv, S, D) in these slots of a row."""
        return [(layer.keys[row, :, slots].clone(), layer.values[row, :, slots].clone()) for layer in self.layers]

    def put(self, row: int, slots: slice, parts: Sequence[tuple[Tensor, Tensor]]) -> None:
        """What `part` has given, into such slots of any row; they count as filled."""
        for layer, (keys, values) in zip(self.layers, parts):
            layer.keys[row, :, slots], layer.values[row, :, slots] = keys, values
        self.filled[row, slots] = True

    def only(self, index: Tensor) -> None:
        """Keep the rows at index, in that order."""
        self.filled = self.filled[index]
        for layer in self.layers:  # one after the other: the peak is one layer above what is kept
            layer.keys, layer.values = layer.keys[index], layer.values[index]

    def truncate(self, lengths: Tensor) -> None:
        """Forget every slot from lengths (B,) on: what speculation wrote there was rejected."""
        self.filled &= torch.arange(self.slots, device=lengths.device) < lengths[:, None]

    def forget(self, where: Tensor) -> None:
        """Forget the slots at where (B, S) bool."""
        self.filled &= ~where


@dataclass
class Slots:
    """One layer's keys and values, (B, Hkv, S, D)."""

    keys: Tensor
    values: Tensor

    def write(self, k: Tensor, v: Tensor, fed: Fed) -> None:
        """k and v (N, Hkv, D) into the slots of what is fed."""
        rows = len(self.keys)
        for store, new in ((self.keys, k), (self.values, v)):
            if fed.span is not None:
                store[:, :, fed.span] = new.unflatten(0, (rows, -1)).transpose(1, 2)
            else:
                store[fed.row, :, fed.position] = new.to(store.dtype)


@dataclass(frozen=True)
class Fed:
    """N tokens in row order: row and position (N,) int64. span: their slots, where all rows feed the same stretch."""

    row: Tensor
    position: Tensor
    span: slice | None

    @classmethod
    def of(cls, feed: Tensor, position: Tensor) -> Fed:
        row, position = feed.nonzero()[:, 0], position[feed]
        return cls(row, position, _stretch(position, len(feed)))


def _stretch(position: Tensor, rows: int) -> slice | None:
    """The one range that every row feeds, if there is one."""
    if not len(position) or len(position) % rows:
        return None
    each = position.view(rows, -1)
    start, width = int(each[0, 0]), each.shape[1]
    same = bool((each == torch.arange(start, start + width, device=each.device)).all())
    return slice(start, start + width) if same else None


@dataclass(frozen=True)
class Kept:
    """One layer's sight in a pass with a cache."""

    slots: Slots
    fed: Fed
    queries: Queries

    def only(self, index: Tensor) -> Sight:
        return replace(self, queries=self.queries.only(index[0]))

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The batch is packed into one row: q (1, Nq, H, D), k and v (1, N, Hkv, D) -> (1, Nq, H D)."""
        self.slots.write(k[0], v[0], self.fed)
        return self.queries.mix(q[0], self.slots)[None]


@dataclass(frozen=True)
class Cut:
    """One attention call, on views of the slots: some of the queries that each row of a group asks."""

    asks: slice
    extent: int  # slots they look at: up to the last that is filled, or that they can see
    see: Visibility | None  # None where every slot is seen


@dataclass(frozen=True)
class Group:
    """Neighbouring rows that ask as many queries of as many slots, call by call."""

    rows: slice
    queries: slice
    cuts: list[Cut]


@dataclass(frozen=True)
class Queries:
    """Who asks: row and position (Nq,) in row order; filled (B, S): the slots there are to see, in each row below its
    extent."""

    row: Tensor
    position: Tensor
    rule: Rule
    filled: Tensor
    extents: list[int]
    clean: Tensor | None = None  # (B, S) bool

    def only(self, index: Tensor) -> Queries:
        return replace(self, row=self.row[index], position=self.position[index])

    def mix(self, q: Tensor, slots: Slots) -> Tensor:
        """q (Nq, H, D) -> (Nq, H D)."""
        parts = [self._attend(q[group.queries], slots, group) for group in self.groups]
        return torch.cat(parts) if parts else q.flatten(1)

    @staticmethod
    def _attend(q: Tensor, slots: Slots, group: Group) -> Tensor:
        asked = q.unflatten(0, (group.rows.stop - group.rows.start, -1)).transpose(1, 2)  # (rows, H, a row's, D)
        mixed = []
        for cut in group.cuts:
            keys, values = (part[group.rows, :, : cut.extent] for part in (slots.keys, slots.values))
            some, see = asked[:, :, cut.asks], cut.see
            seen = attend_where(some, keys, values, None) if see is None else attend_uncompiled(some, keys, values, see)
            mixed.append(seen)
        whole = mixed[0] if len(mixed) == 1 else torch.cat(mixed, 2)
        return whole.transpose(1, 2).flatten(2).flatten(0, 1)

    @cached_property
    def groups(self) -> Sequence[Group]:
        """Made once a pass and shared by its layers. Rows in step, as most are that began together, are one group."""
        calls = self._calls()
        asks = [[count for count, _ in of_row] for of_row in calls]
        groups, start = [], 0
        for rows in neighbours(asks, calls, self.row.device):
            size = sum(asks[rows.start])
            queries = slice(start, start + size * (rows.stop - rows.start))
            if size:
                groups.append(Group(rows, queries, self._cuts(rows, queries, calls[rows.start])))
            start = queries.stop
        return groups

    def _calls(self) -> list[list[tuple[int, int]]]:
        """Of each row, how many of its queries share an attention call, and the slots that these look at.

        A model that never looks ahead attends from one unit of positions at a time. So what comes of a unit depends on
        it and on what stands before it alone, to the last bit, however much more is fed in the pass: its keys and
        values can be those that another text has left (`prefixes`).
        """
        size, slots = block_size(self.rule), self.filled.shape[1]
        unit = slots if size is None else unit_of(size)
        found: list[list[tuple[int, int]]] = [[] for _ in self.extents]
        places = self.row * (slots + 1) + self.position // unit
        for place, count in zip(*(part.tolist() for part in places.unique_consecutive(return_counts=True))):
            row, number = divmod(place, slots + 1)
            found[row].append((count, min(self.extents[row], (number + 1) * unit)))
        return found

    def _cuts(self, rows: slice, queries: slice, calls: Sequence[tuple[int, int]]) -> list[Cut]:
        position = self.position[queries].view(rows.stop - rows.start, -1)
        cuts, start = [], 0
        for count, extent in calls:
            asks = slice(start, start + count)
            cuts.append(Cut(asks, extent, self._see(rows, position[:, asks], extent)))
            start = asks.stop
        return cuts

    def _see(self, rows: slice, position: Tensor, extent: int) -> Visibility | None:
        filled, size = self.filled[rows, :extent], block_size(self.rule)
        full = bool(filled.all())
        if full and size is not None and (int(position.min()) // size + 1) * size >= extent:
            return None  # most steps of block models: nothing stands behind the block that asks
        clean = None if self.clean is None else self.clean[rows, :extent]
        keys = Places(torch.arange(extent, device=filled.device).expand(filled.shape), filled.long() - 1, clean)
        mine = None if clean is None else clean.gather(1, position)
        asking = Places(position, None if full else torch.zeros_like(position), mine)
        see = Visibility(self.rule, asking, keys, same=False)
        if position.shape[1] >= STRIPPED:
            return see
        return None if see.dense is None or bool(see.dense.all()) else see

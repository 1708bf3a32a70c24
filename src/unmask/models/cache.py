"""Keys and values that outlive a pass, in slots addressed by absolute position. Knows no policy: who is fed is said.

A pass feeds N tokens of B rows, as many of each row as it likes, packed without padding. Every layer writes their keys
(after RoPE) and values into their slots and lets them attend to all filled slots that the rule lets them see. Memory is
2 x layers x B x Hkv x S x D numbers, linear in the slots; nothing of it is copied from pass to pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from .attention import STRIPPED, Places, Rule, Sight, Visibility, attend_uncompiled, attend_where, block_size
from .packed import neighbours


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
class Group:
    """Neighbouring rows that ask as many queries of as many slots: one attention call, on views of the slots."""

    rows: slice
    queries: slice
    extent: int  # slots they look at: up to the last that is filled
    see: Visibility | None  # None where every slot is seen


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
        keys, values = (part[group.rows, :, : group.extent] for part in (slots.keys, slots.values))
        asked = q.unflatten(0, (len(keys), -1)).transpose(1, 2)  # (rows, H, queries of a row, D)
        see = group.see
        mixed = attend_where(asked, keys, values, None) if see is None else attend_uncompiled(asked, keys, values, see)
        return mixed.transpose(1, 2).flatten(2).flatten(0, 1)

    @cached_property
    def groups(self) -> Sequence[Group]:
        """Made once a pass and shared by its layers. Rows in step, as most are that began together, are one group."""
        asks: list[int] = self.row.bincount(minlength=len(self.filled)).tolist()
        groups, start = [], 0
        for rows in neighbours(asks, self.extents, self.row.device):
            size, extent = asks[rows.start], self.extents[rows.start]
            queries = slice(start, start + size * (rows.stop - rows.start))
            if size:
                groups.append(Group(rows, queries, extent, self._see(rows, queries, extent)))
            start = queries.stop
        return groups

    def _see(self, rows: slice, queries: slice, extent: int) -> Visibility | None:
        filled, size = self.filled[rows, :extent], block_size(self.rule)
        position = self.position[queries].view(len(filled), -1)
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

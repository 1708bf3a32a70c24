"""Who sees whom, and the one attention call. A rule is a predicate on places; SDPA and flex attention both obey it.

A token's place is its position in its document, its document within the row, and the stream it belongs to (block
diffusion trains on a noisy and a clean copy). Rules compare places, not row indices, so that packing, caches and
doubled inputs need no rule of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from .strips import STRIP, Strip, attend_by_strips, in_strips

STRIPPED = 2 * STRIP  # queries from which on a processor leaves out what is hidden


@dataclass(frozen=True)
class Places:
    """position (B, L) int64; document (B, L) int64 (-1: padding) or None: one document a row; clean (B, L) or None."""

    position: Tensor
    document: Tensor | None = None
    clean: Tensor | None = None

    @classmethod
    def of(cls, tokens: Tensor, document: Tensor | None = None) -> Places:
        """One document a row, from position 0."""
        position = torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape[:2])
        return cls(position, document)

    @property
    def real(self) -> Tensor:
        """(B, L) bool: no padding."""
        return torch.ones_like(self.position, dtype=torch.bool) if self.document is None else self.document >= 0

    def map(self, change: Callable[[Tensor], Tensor]) -> Places:
        document = None if self.document is None else change(self.document)
        return Places(change(self.position), document, None if self.clean is None else change(self.clean))


@dataclass(frozen=True)
class Everything:
    """Bidirectional: every token sees its whole document."""

    def __call__(self, q: Places, k: Places) -> Tensor | None:
        return None


@dataclass(frozen=True)
class Causal:
    """Every token sees itself and what stands before it."""

    def __call__(self, q: Places, k: Places) -> Tensor | None:
        return k.position <= q.position


@dataclass(frozen=True)
class BlockCausal:
    """Every token sees its own block and the blocks before it; blocks are aligned to absolute positions.

    Where a text is fed twice, noisy and clean, a noisy token sees its own block noisy and the earlier ones clean, a
    clean token sees clean ones only (BD3-LM, arXiv 2503.09573, section 3.2).
    """

    size: int

    def __call__(self, q: Places, k: Places) -> Tensor | None:
        mine, theirs = q.position // self.size, k.position // self.size
        if q.clean is None or k.clean is None:
            return theirs <= mine
        return torch.where(k.clean, (theirs < mine) | (q.clean & (theirs == mine)), ~q.clean & (theirs == mine))


@dataclass(frozen=True)
class CausalContext(Causal):
    """Clean text reads left to right; a noisy block sees itself and the clean text before it. So the context's keys are
    the same whether it is continued by the next token or by a block (joint models).

    size: of the blocks, aligned to absolute positions; None: there is one, behind all clean text.
    """

    size: int | None = None

    def __call__(self, q: Places, k: Places) -> Tensor | None:
        if q.clean is None or k.clean is None:
            return super().__call__(q, k)
        mine, theirs = (x.position if self.size is None else x.position // self.size for x in (q, k))
        own = theirs == mine if self.size is not None else torch.ones_like(theirs == mine)
        return torch.where(k.clean, torch.where(q.clean, k.position <= q.position, theirs < mine), ~q.clean & own)


Rule = Everything | Causal | BlockCausal | Callable[[Places, Places], Tensor | None]


def block_size(rule: Rule) -> int | None:
    """The size of the blocks that a rule never looks beyond, aligned to absolute positions; None: it may look ahead."""
    if isinstance(rule, Causal):
        return 1
    return rule.size if isinstance(rule, BlockCausal) else None


class Sight(Protocol):
    """What one layer's queries see: the tokens beside them (Visibility), or slots of a cache too."""

    def only(self, index: Tensor) -> Sight:
        """The same keys seen from the queries at index (B, K)."""
        ...

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention: q (B, Lq, H, D) after RoPE, k and v (B, L, Hkv, D) of the tokens beside them -> (B, Lq, H D)."""
        ...


class Memory(Protocol):
    """Keys and values that outlive a pass: a cache, or another way to look at one."""

    def open(self, rule: Rule, position: Tensor, feed: Tensor, clean: Tensor | None = None) -> Sequence[Sight]:
        """Begin a pass: position (B, L) of its tokens, feed (B, L) bool those that go through the network, clean (B, L)
        bool where a rule asks -> what each layer's queries see."""
        ...


@dataclass(frozen=True)
class Visibility:
    """A rule applied to one batch of queries and keys. Built once a forward pass and shared by all layers."""

    rule: Rule
    queries: Places
    keys: Places
    same: bool = True  # queries and keys are the same tokens in the same order

    @cached_property
    def dense(self) -> Tensor | None:
        """(B, 1, Lq, Lk) bool, True where seen; None where nothing is hidden."""
        return self._seen_from(slice(None))

    @cached_property
    def strips(self) -> list[Strip] | None:
        """What `dense` says, without the keys that a strip of queries does not see; None where nothing is hidden."""
        if self._seen_from(slice(0, 1)) is None:
            return None
        return in_strips(self.queries.position.shape[1], lambda some: cast(Tensor, self._seen_from(some)))

    def _seen_from(self, some: slice) -> Tensor | None:
        """What some of the queries see: (B, 1, Q, Lk) bool, or (1, 1, Q, Lk) where all rows are alike."""
        if isinstance(self.rule, Everything) and self.keys.document is None:
            return None
        q, k = (p.map(lambda x: x[:1]) if self._alike else p for p in (self.queries, self.keys))
        q, k = q.map(lambda x: x[:, some, None]), k.map(lambda x: x[:, None, :])
        seen = self.rule(q, k)
        if q.document is not None and k.document is not None:
            own = q.document == k.document
            seen = own if seen is None else seen & own
        return None if seen is None else seen[:, None]

    @cached_property
    def _alike(self) -> bool:
        """Whether every row has the same places."""
        parts = [x for p in (self.queries, self.keys) for x in (p.position, p.document, p.clean) if x is not None]
        return all(bool((x == x[:1]).all()) for x in parts)

    @property
    def plainly_causal(self) -> bool:
        return self.same and isinstance(self.rule, Causal) and self.keys.document is None and self.keys.clean is None

    def only(self, index: Tensor) -> Visibility:
        return Visibility(self.rule, self.queries.map(lambda x: x.gather(1, index)), self.keys, same=False)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        mixed = attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), self)
        return mixed.transpose(1, 2).flatten(2)

    @cached_property
    def flex(self) -> Any:
        """The block mask of flex attention: whole tiles that nobody sees are skipped."""
        from torch.nn.attention.flex_attention import create_block_mask

        q, k = self.queries, self.keys

        def mask(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
            here, there = q.map(lambda x: x[b, i]), k.map(lambda x: x[b, j])
            seen = self.rule(here, there)
            seen = torch.ones_like(here.position, dtype=torch.bool) if seen is None else seen
            return seen if here.document is None else seen & (here.document == there.document)

        (rows, wide), long = q.position.shape, k.position.shape[1]
        return create_block_mask(mask, rows, None, wide, long, device=str(q.position.device))


def attend(q: Tensor, k: Tensor, v: Tensor, see: Visibility) -> Tensor:
    """q (B, H, Lq, D), k and v (B, Hkv, Lk, D) -> (B, H, Lq, D). Flex attention on CUDA when tiles can be skipped."""
    grouped = q.shape[1] != k.shape[1]
    if see.plainly_causal:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
    hides = not isinstance(see.rule, Everything) or see.keys.document is not None
    if q.is_cuda and hides and q.shape[2] >= 128:
        return _flex()(q, k, v, block_mask=see.flex, enable_gqa=grouped)
    return attend_uncompiled(q, k, v, see)


def attend_uncompiled(q: Tensor, k: Tensor, v: Tensor, see: Visibility) -> Tensor:
    """The same for shapes that do not come again."""
    if not q.is_cuda and q.shape[2] >= STRIPPED and see.strips is not None:
        return attend_by_strips(q, k, v, see.strips)
    return attend_where(q, k, v, see.dense)


def attend_where(q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None) -> Tensor:
    """The same with seen (B or 1, 1, Lq, Lk) bool; None where every key is."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=q.shape[1] != k.shape[1])


_compiled: list[Callable[..., Tensor]] = []


def _flex() -> Callable[..., Tensor]:
    """Flex attention is only fast compiled; compile it once a process."""
    if not _compiled:
        from torch.nn.attention.flex_attention import flex_attention

        _compiled.append(torch.compile(flex_attention, dynamic=False))
    return _compiled[0]

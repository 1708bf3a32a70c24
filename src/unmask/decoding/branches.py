"""One pass that checks a draft and makes the next ones: a text with a block of masks behind every place it may end at.

The text so far is in a cache. A pass feeds, behind it, its last token and the tokens drafted (the trunk), and blocks of
masks (the branches), each behind a trunk of its own length. The trunk reads left to right; a mask sees the text, the
trunk up to where its block begins, and its own block. So whichever part of the draft is kept, the output of the trunk
there is the law of the next token, and the block there drafts those after it. Knows no tokens and no probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from ..models.attention import Places, Rule, Sight, attend_where
from ..models.cache import Cache, Fed, Slots


@dataclass(frozen=True)
class Plan:
    """checked: drafted tokens in the trunk. masks: of the block behind each of the trunk's checked + 1 ends, in order;
    0: none there. A block's first mask stands where the trunk's own output already says the token, and drafts nothing.
    """

    checked: int
    masks: tuple[int, ...]

    def __post_init__(self) -> None:
        assert len(self.masks) == self.checked + 1, f"{self.checked} drafts have {self.checked + 1} ends: {self.masks}"

    @property
    def queries(self) -> int:
        """Tokens that a row is fed."""
        return 1 + self.checked + sum(self.masks)

    @property
    def guesses(self) -> tuple[int, ...]:
        """Tokens that each block drafts."""
        return tuple(max(masks - 1, 0) for masks in self.masks)


@dataclass(frozen=True)
class Shape:
    """A plan as N tokens: the trunk first, then block after block. Positions count from the trunk's first token.

    position (N,) int64; wanted (N,) bool: outputs that say something, trunk first, then guess after guess; first,
    count (checked + 1,): where a block's guesses begin among these outputs, and how many they are; seen (N, N + 2)
    float32, added to attention's scores: column 0 is what stands before the trunk, the last what lies behind it all.
    """

    position: Tensor
    wanted: Tensor
    first: Tensor
    count: Tensor
    seen: Tensor

    @staticmethod
    @lru_cache(maxsize=4096)
    def of(plan: Plan, device: torch.device) -> Shape:
        trunk = torch.arange(plan.checked + 1)
        masks = torch.tensor(plan.masks)
        owner = torch.cat([trunk, trunk.repeat_interleave(masks)])  # the trunk's token that a column follows, or is
        is_mask = torch.arange(len(owner)) > plan.checked
        starts = (masks.cumsum(0) - masks)[owner] + plan.checked + 1
        within = torch.arange(len(owner)) - starts  # place in its block
        position = torch.where(is_mask, owner + 1 + within, owner)
        own = is_mask[:, None] & is_mask & (owner[:, None] == owner)
        seen = (~is_mask & (owner <= owner[:, None])) | own
        edges = torch.ones(len(owner), 1, dtype=torch.bool)
        seen = torch.cat([edges, seen, ~edges], 1)
        count = torch.tensor(plan.guesses)
        parts = (
            position,
            ~is_mask | (within > 0),
            plan.checked + 1 + count.cumsum(0) - count,
            count,
            torch.zeros(seen.shape).masked_fill_(~seen, -torch.inf),
        )
        return Shape(*(part.to(device) for part in parts))


@dataclass(frozen=True)
class Branches:
    """A cache with B rows, as one pass sees it: row i's trunk begins in slot starts[i], at that position; blocks of
    masks take the slots behind the trunk for this pass only, whatever their positions."""

    cache: Cache
    shape: Shape
    starts: Sequence[int]

    @property
    def places(self) -> Places:
        return Places(self._begin + self.shape.position)

    @cached_property
    def _begin(self) -> Tensor:
        return torch.tensor(self.starts, device=self.shape.position.device)[:, None]

    def open(self, rule: Rule, position: Tensor, feed: Tensor, clean: Tensor | None = None) -> list[Sight]:
        (rows, width), most = position.shape, max(self.starts)
        slot = self._begin + torch.arange(width, device=position.device)
        row = torch.arange(rows, device=position.device).repeat_interleave(width)
        level = most == min(self.starts)
        fed = Fed(row, slot.flatten(), slice(most, most + width) if level else None)
        extent = torch.arange(most + width, device=position.device)
        column = (extent - self._begin).clamp_(-1, width) + 1  # (B, slots)
        seen = self.shape.seen[:, column].transpose(0, 1)[:, None].to(self.cache.layers[0].keys.dtype)
        return [Beside(slots, fed, seen) for slots in self.cache.layers]


@dataclass(frozen=True)
class Beside:
    """One layer's sight. seen (B, 1, Q, slots): what each row's queries see, added to their scores."""

    slots: Slots
    fed: Fed
    seen: Tensor

    def only(self, index: Tensor) -> Sight:
        columns = index.view(len(self.seen), -1)[0]  # rows are fed alike, so they are asked alike
        return replace(self, seen=self.seen[:, :, columns])

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The batch is packed into one row: q (1, B Q, H, D), k and v (1, B N, Hkv, D) -> (1, B Q, H D)."""
        self.slots.write(k[0], v[0], self.fed)
        keys, values = (part[:, :, : self.seen.shape[-1]] for part in (self.slots.keys, self.slots.values))
        asked = q.view(len(keys), -1, *q.shape[2:]).transpose(1, 2)
        return attend_where(asked, keys, values, self.seen).transpose(1, 2).flatten(2).view(1, q.shape[1], -1)

"""Attention on a processor, a strip of queries at a time, without the keys that nobody in the strip sees.

What tiles are to flex attention: half the work of a causal rule is not done, nor two thirds of that of a text fed twice
(block diffusion), nor that between packed documents. Knows masks, no rules.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

STRIP = 128  # queries in a strip


@dataclass(frozen=True)
class Strip:
    """`queries` consecutive queries; the runs of keys [a, b) that any of them sees; seen (B or 1, 1, Q, their sum)."""

    queries: int
    runs: list[tuple[int, int]]
    seen: Tensor
    masks: dict[torch.dtype, Tensor] = field(default_factory=dict)

    def mask(self, dtype: torch.dtype) -> Tensor:
        """What attention adds to the scores; made once, used by every layer."""
        if dtype not in self.masks:
            self.masks[dtype] = torch.zeros_like(self.seen, dtype=dtype).masked_fill_(~self.seen, -torch.inf)
        return self.masks[dtype]


def in_strips(queries: int, seen_from: Callable[[slice], Tensor]) -> list[Strip]:
    """seen_from(slice of the queries) -> (B or 1, 1, Q, Lk) bool."""
    strips = []
    for start in range(0, queries, STRIP):
        seen = seen_from(slice(start, min(start + STRIP, queries)))
        runs = _runs(seen.any(0).any(1)[0])
        strips.append(Strip(seen.shape[2], runs, _pick(seen, runs, 3)))
    return strips


def attend_by_strips(q: Tensor, k: Tensor, v: Tensor, strips: list[Strip]) -> Tensor:
    """q (B, H, Lq, D), k and v (B, Hkv, Lk, D) -> (B, H, Lq, D)."""
    grouped, out = q.shape[1] != k.shape[1], []
    for part, strip in zip(q.split([strip.queries for strip in strips], 2), strips):
        near, values = _pick(k, strip.runs, 2), _pick(v, strip.runs, 2)
        mask = strip.mask(q.dtype)
        out.append(F.scaled_dot_product_attention(part, near, values, attn_mask=mask, enable_gqa=grouped))
    return torch.cat(out, 2)


def _runs(seen: Tensor) -> list[tuple[int, int]]:
    """Where seen (L,) bool is True, as pairs of start and end."""
    none = seen.new_zeros(1, dtype=torch.int8)
    edges = torch.diff(seen.to(torch.int8), prepend=none, append=none)
    return list(zip((edges == 1).nonzero()[:, 0].tolist(), (edges == -1).nonzero()[:, 0].tolist()))


def _pick(x: Tensor, runs: list[tuple[int, int]], dim: int) -> Tensor:
    parts = [x.narrow(dim, start, end - start) for start, end in runs]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)

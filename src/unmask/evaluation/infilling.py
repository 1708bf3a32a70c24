"""Gaps cut out of real text and filled again: token by token right or not, and how plausible a judge finds it. Knows no
method: what cannot see behind a gap says so itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..data.store import TokenStore
from ..decoding.canvas import Row
from ..decoding.settings import one_sided
from ..errors import UserError
from ..noise.draws import seeded
from .judge import Pair
from .subject import Subject


@dataclass(frozen=True)
class Gap:
    """tokens[start:end] of a text are missing."""

    tokens: list[int]
    start: int
    end: int

    @property
    def row(self) -> Row:
        open = [self.start <= i < self.end for i in range(len(self.tokens))]
        return Row([0 if o else token for token, o in zip(self.tokens, open)], open)

    @property
    def truth(self) -> list[int]:
        return self.tokens[self.start : self.end]

    def with_(self, written: Sequence[int]) -> list[int]:
        return [*self.tokens[: self.start], *written, *self.tokens[self.end :]]


@dataclass(frozen=True)
class Filled:
    gap: Gap
    wrote: list[int]

    @property
    def right(self) -> float:
        """Share of the gap's tokens that are what stood there."""
        return sum(a == b for a, b in zip(self.wrote, self.gap.truth)) / len(self.gap.truth)

    @property
    def exact(self) -> bool:
        return self.wrote == self.gap.truth

    @property
    def pairs(self) -> tuple[Pair, Pair]:
        """What was written and what stood there, each with all that comes behind, after what comes before."""
        start = self.gap.start
        ours, true = (self.gap.with_(w)[start:] for w in (self.wrote, self.gap.truth))
        return (self.gap.tokens[:start], ours), (self.gap.tokens[:start], true)


def stretches(store: TokenStore, length: int, n: int, seed: int) -> list[list[int]]:
    """n stretches of exactly `length` tokens, none across two documents, spread evenly over the store. UserError where
    no document is as long."""
    sizes = (store.lengths - length + 1).clip(min=0)
    if not sizes.sum():
        raise UserError(f"data: no held-out document has {length} tokens; give longer texts, or ask for shorter ones")
    ends = sizes.cumsum()
    shift = float(torch.rand((), generator=seeded(seed).generator))
    found = []
    for i in range(n):
        at = int((i + shift) / n * int(ends[-1]))
        document = int(ends.searchsorted(at, side="right"))
        begin = int(store.offsets[document]) + at - int(ends[document] - sizes[document])
        found.append(store.tokens[begin : begin + length].tolist())
    return found


def gaps(store: TokenStore, *, n: int, size: int, length: int, seed: int = 0) -> list[Gap]:
    """n gaps of `size` tokens, each in the middle of `length` tokens of held-out text."""
    if not 0 < size < length:
        raise UserError(
            f"gap_tokens={size}: a gap must be shorter than the {length} tokens around it; use a smaller one"
        )
    start = (length - size) // 2
    return [Gap(tokens, start, start + size) for tokens in stretches(store, length, n, seed)]


def fill(subject: Subject, gaps: Sequence[Gap]) -> list[Filled]:
    """Greedily, one token a step. UserError where the model cannot."""
    if one_sided(subject.denoiser):
        raise UserError("infilling: this method sees only what stands before a gap")
    rows = [gap.row for gap in gaps]
    written = subject.write(rows, temperature=0.0)
    return [Filled(gap, done.tokens[gap.start : gap.end]) for gap, done in zip(gaps, written)]

"""How much to draft. A token that is fed costs time for sure and saves time perhaps: feed those that pay.

A pass of n tokens takes about base + n * slope seconds: weights are read and operations are started once, however many
tokens there are. A token of the draft, or a mask, is worth feeding while (the chance that its output is used) x (what a
token takes to write) exceeds one slope. All chances are learned from what became of earlier drafts; they decide how
fast a text is written, never which. Knows no network and no tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise, takewhile
from operator import mul
from typing import Protocol

from .branches import Plan

BINS = 12  # of how sure a draft was
PRIOR = 4.0  # drafts of each kind that count as seen before any is
HOPE = 0.5  # the chance of a guess of which nothing is known, given those before it
MEMORY = 0.98  # of what was seen, after each cycle: what is never drafted any more is forgotten, and tried again
# That they stay, before any is seen. More often than the model is sure of them: the best token of one law is often the
# best of another, and draws with the same numbers agree wherever two laws are alike, however flat.
FIRST = [PRIOR * ((i + 0.5) / BINS) ** 0.5 for i in range(BINS)]


class Budget(Protocol):
    def plan(self, sure: Sequence[Sequence[float]]) -> Plan:
        """What to feed next. sure (B, K): how sure the model was of each row's next drafts; 0 where there is none."""
        ...

    def learn(self, plan: Plan, sure: Sequence[Sequence[float]], stayed: Sequence[int]) -> None:
        """What became of a plan: how many drafts of each row stayed."""
        ...


@dataclass(frozen=True)
class Whole:
    """All drafts are checked, and every end gets a block of `size` masks."""

    size: int

    def plan(self, sure: Sequence[Sequence[float]]) -> Plan:
        return Plan(len(sure[0]), (self.size if self.size > 1 else 0,) * (len(sure[0]) + 1))

    def learn(self, plan: Plan, sure: Sequence[Sequence[float]], stayed: Sequence[int]) -> None:
        return


@dataclass
class Thrift:
    """What pays, with blocks of up to `size` masks. base, slope: seconds of a pass and of each token in it.

    tries, hits: drafts that were checked and those that stayed, by how sure the model was of them. depth: the chance
    that a block's first, second, ... guess and all before it stay, as blocks go. spent, written: seconds and tokens.
    """

    size: int
    base: float
    slope: float
    tries: list[float] = field(default_factory=lambda: [PRIOR] * BINS)
    hits: list[float] = field(default_factory=lambda: list(FIRST))
    depth: list[float] = field(init=False)
    spent: float = field(init=False)
    written: float = PRIOR

    def __post_init__(self) -> None:
        self.depth = self._reaching()
        self.spent = self.written * (self.base + self.slope)

    def plan(self, sure: Sequence[Sequence[float]]) -> Plan:
        price = self.slope * self.written / self.spent  # of one more token, in tokens that could be written instead
        stay = self._stay(sure)
        checked = sum(1 for chance in stay if chance > price)
        stay = [1.0, *stay[:checked], 0.0]
        return Plan(checked, tuple(self._masks(here - after, price) for here, after in pairwise(stay)))

    def _masks(self, chance: float, price: float) -> int:
        """Of a block that is used with this chance. Its first mask costs and drafts nothing."""
        gains = list(takewhile(lambda gain: gain > 0, (chance * reach - price for reach in self.depth)))
        return 1 + len(gains) if sum(gains) > price else 0

    def _stay(self, sure: Sequence[Sequence[float]]) -> list[float]:
        """The chance that a row's first, second, ... draft and all before it stay, on the rows' average."""
        rates = [hit / tried for hit, tried in zip(self.hits, self.tries)]
        rows = [accumulate((rates[_bin(p)] if p > 0 else 0.0 for p in row), mul) for row in sure]
        return [sum(column) / len(sure) for column in zip(*rows)]

    def learn(self, plan: Plan, sure: Sequence[Sequence[float]], stayed: Sequence[int]) -> None:
        self.spent = MEMORY * self.spent + self.base + self.slope * plan.queries * len(stayed)
        self.written = MEMORY * self.written + sum(stayed) + len(stayed)
        for i, first in enumerate(FIRST):
            self.tries[i] = PRIOR + MEMORY * (self.tries[i] - PRIOR)
            self.hits[i] = first + MEMORY * (self.hits[i] - first)
        for row, stays in zip(sure, stayed):
            for i, p in enumerate(row[: min(stays + 1, plan.checked)]):
                self.tries[_bin(p)] += 1
                self.hits[_bin(p)] += i < stays
        drafted = [row for row in sure if row and row[0] > 0]
        if drafted or not any(plan.masks):
            reached = self._reaching([chance for chance in self._stay(drafted) if chance > 0])
            self.depth = [MEMORY * was + (1 - MEMORY) * now for was, now in zip(self.depth, reached)]

    def _reaching(self, known: Sequence[float] = ()) -> list[float]:
        """What is known of a block's guesses, and of those behind it what one thinks before any is seen."""
        last = known[-1] if known else 1.0
        return [*known, *(last * HOPE**more for more in range(1, self.size - len(known)))]


def _bin(sure: float) -> int:
    return min(int(sure * BINS), BINS - 1)

"""How much to draft. A token that is fed costs time for sure and saves time perhaps: feed those that pay.

A pass of n tokens takes about base + n * slope seconds: weights are read and operations are started once, however many
tokens there are. A token of the draft, or a mask, is worth feeding while (the chance that its output is used) x (what a
token takes to write) exceeds one slope. All chances are learned from what became of earlier drafts; they decide how
fast a text is written, never which. Knows no network and no tokens.

What is remembered of guesses is remembered by their sort: how sure the model was of one that it made (`by_chance`), or
how much of the text before one that was looked up stood there before (`by_match`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise, takewhile
from operator import mul
from typing import Protocol

from .branches import Plan

BINS = 12  # sorts of guesses by the model, and as many of guesses that were looked up
NONE = -1  # where nothing was guessed
FURTHEST = 24  # guesses that are looked up at a time
PRIOR = 4.0  # drafts of each kind that count as seen before any is
HOPE = 0.5  # the chance of a guess of which nothing is known, given those before it
MEMORY = 0.98  # of what was seen, after each cycle: what is never drafted any more is forgotten, and tried again
# That they stay, before any is seen. More often than the model is sure of them: the best token of one law is often the
# best of another, and draws with the same numbers agree wherever two laws are alike, however flat.
FIRST = [PRIOR * ((i + 0.5) / BINS) ** 0.5 for i in range(BINS)] * 2
Sorts = Sequence[Sequence[int]]  # (B, K), of each row's next guesses


def by_chance(sure: float) -> int:
    """The sort of a guess that the model made with this probability."""
    return min(int(sure * BINS), BINS - 1)


def by_match(length: int) -> int:
    """The sort of a guess that was looked up: so many tokens before it, 1 or more, are those of the place it is from.
    A guess behind others that were looked up counts them: where it matters, they stay."""
    return BINS + min(length, BINS) - 1


def is_looked_up(sort: int) -> bool:
    return sort >= BINS


class Budget(Protocol):
    @property
    def most(self) -> int:
        """Tokens that a plan feeds to a row at most."""
        ...

    def plan(self, sorts: Sorts) -> Plan:
        """What to feed next."""
        ...

    def learn(self, plan: Plan, sorts: Sorts, stayed: Sequence[int]) -> None:
        """What became of a plan: how many guesses of each row stayed."""
        ...

    def better(self, found: Sequence[int], drafted: Sequence[int]) -> list[float]:
        """Of the guesses that were looked up, by their sorts: the chance that each stays if those before it do; none
        where those that the model made are better."""
        ...


@dataclass(frozen=True)
class Whole:
    """All drafts are checked, and every end gets a block of `size` masks."""

    size: int

    @property
    def most(self) -> int:
        return self.size * (self.size + 1)

    def plan(self, sorts: Sorts) -> Plan:
        return Plan(len(sorts[0]), (self.size if self.size > 1 else 0,) * (len(sorts[0]) + 1))

    def learn(self, plan: Plan, sorts: Sorts, stayed: Sequence[int]) -> None:
        return

    def better(self, found: Sequence[int], drafted: Sequence[int]) -> list[float]:
        return []


@dataclass
class Thrift:
    """What pays, with blocks of up to `size` masks. base, slope: seconds of a pass and of each token in it.

    tries, hits: guesses that were checked and those that stayed, by sort. depth: the chance that a block's first,
    second, ... guess and all before it stay, as blocks go; used: that it is not better to look guesses up. spent,
    written: seconds and tokens.
    """

    size: int
    base: float
    slope: float
    tries: list[float] = field(default_factory=lambda: [PRIOR] * len(FIRST))
    hits: list[float] = field(default_factory=lambda: list(FIRST))
    depth: list[float] = field(init=False)
    spent: float = field(init=False)
    written: float = PRIOR
    used: float = 1.0

    def __post_init__(self) -> None:
        self.depth = self._reaching()
        self.spent = self.written * (self.base + self.slope)

    @property
    def most(self) -> int:
        return max(Whole(self.size).most, 1 + FURTHEST)

    def plan(self, sorts: Sorts) -> Plan:
        price = self.slope * self.written / self.spent  # of one more token, in tokens that could be written instead
        stay = self._stay(sorts)
        checked = sum(1 for chance in stay if chance > price)
        stay, room = [1.0, *stay[:checked], 0.0], self.most - 1 - checked
        masks = []
        for here, after in pairwise(stay):
            masks.append(min(self._masks(here - after, price), room))
            room -= masks[-1]
        return Plan(checked, tuple(masks))

    def _masks(self, chance: float, price: float) -> int:
        """Of a block that is used with this chance. Its first mask costs and drafts nothing."""
        gains = list(takewhile(lambda gain: gain > 0, (chance * self.used * reach - price for reach in self.depth)))
        return 1 + len(gains) if sum(gains) > price else 0

    def _chances(self, sorts: Sequence[int]) -> list[float]:
        return [self.hits[sort] / self.tries[sort] if sort != NONE else 0.0 for sort in sorts]

    def _stay(self, sorts: Sorts) -> list[float]:
        """The chance that a row's first, second, ... draft and all before it stay, on the rows' average."""
        rows = [accumulate(self._chances(row), mul) for row in sorts]
        return [sum(column) / len(sorts) for column in zip(*rows)]

    def learn(self, plan: Plan, sorts: Sorts, stayed: Sequence[int]) -> None:
        self.spent = MEMORY * self.spent + self.base + self.slope * plan.queries * len(stayed)
        self.written = MEMORY * self.written + sum(stayed) + len(stayed)
        for i, first in enumerate(FIRST):
            self.tries[i] = PRIOR + MEMORY * (self.tries[i] - PRIOR)
            self.hits[i] = first + MEMORY * (self.hits[i] - first)
        for row, stays in zip(sorts, stayed):
            for i, sort in enumerate(row[: min(stays + 1, plan.checked)]):
                if sort != NONE:
                    self.tries[sort] += 1
                    self.hits[sort] += i < stays
        drafted = [row for row in sorts if row and row[0] != NONE and not is_looked_up(row[0])]
        if drafted or not any(plan.masks):
            reached = self._reaching([chance for chance in self._stay(drafted) if chance > 0])
            self.depth = [MEMORY * was + (1 - MEMORY) * now for was, now in zip(self.depth, reached)]

    def better(self, found: Sequence[int], drafted: Sequence[int]) -> list[float]:
        chances = self._chances(found)
        better = sum(accumulate(chances, mul)) > sum(accumulate(self._chances(drafted), mul))
        in_vain = better and any(sort != NONE for sort in drafted)
        self.used = MEMORY * self.used + (1 - MEMORY) * (not in_vain)
        return chances if better else []

    def _reaching(self, known: Sequence[float] = ()) -> list[float]:
        """What is known of a block's guesses, and of those behind it what one thinks before any is seen."""
        last = known[-1] if known else 1.0
        return [*known, *(last * HOPE**more for more in range(1, self.size - len(known)))]

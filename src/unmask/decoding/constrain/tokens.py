"""An automaton over bytes as one over tokens: where each token of a vocabulary leads from every state.

Thousands of tokens do the same to every state: they are of one sort, and between two states leads a group of sorts that
many pairs of states share. So what a model says of V tokens is added up once, into hundreds of numbers. Knows no laws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from .automaton import Automaton

KEPT = 64  # automata that a vocabulary remembers


class Vocabulary:
    """spell: asked once it is needed for the bytes (V,) that each token stands for; None or nothing: it is not written
    under a constraint. fillers: tokens that may stand behind an end of text, besides itself."""

    def __init__(self, spell: Callable[[], Sequence[bytes | None]], fillers: Sequence[int] = ()) -> None:
        self.spell, self.fillers = spell, tuple(fillers)
        self._lifted: dict[tuple[int, int | None, int], tuple[Automaton, TokenAutomaton]] = {}

    @cached_property
    def spelled(self) -> Spelled:
        return Spelled.of(self.spell())

    def lift(self, automaton: Automaton, end: int | None, size: int) -> TokenAutomaton:
        """The automaton over these tokens and, up to `size`, others that are never written; it is made once."""
        key = (id(automaton), end, size)
        if key not in self._lifted:
            if len(self._lifted) >= KEPT:
                self._lifted.pop(next(iter(self._lifted)))
            found = _lifted(automaton, self.spelled, end, self.fillers)
            spare = found.sort.new_full((size - len(found.sort),), found.sorts)
            self._lifted[key] = automaton, replace(found, sort=torch.cat([found.sort, spare]))
        return self._lifted[key][1]


@dataclass(frozen=True)
class Spelled:
    """All tokens in one row of bytes: token i begins at begin[i] and is length[i] long, both (V,)."""

    row: Tensor
    begin: Tensor
    length: Tensor

    @classmethod
    def of(cls, spelled: Sequence[bytes | None]) -> Spelled:
        length = torch.tensor([len(text or b"") for text in spelled])
        row = bytearray(b"".join(text or b"" for text in spelled) or b"\0")
        return cls(torch.frombuffer(row, dtype=torch.uint8), length.cumsum(0) - length, length)


@dataclass(frozen=True)
class TokenAutomaton:
    """S states, `start` the first. K sorts of tokens, G groups of sorts, P pairs of states with a group between them.

    sort (V,): of each token, K where it may never be written. next (K + 1, S): the state after a token, S where none
    can follow; accepts (S,) bool. source, target, group (P,): pairs in order of source, then target. member_group,
    member_sort (M,): which sorts are in which group. end: the sort of the end of text, which leads from acceptance to
    a state of its own, the last, where only it and its fillers may follow; None: there is none.
    """

    start: int
    end: int | None
    sort: Tensor
    next: Tensor
    accepts: Tensor
    source: Tensor
    target: Tensor
    group: Tensor
    member_group: Tensor
    member_sort: Tensor
    contains: Tensor = field(repr=False)  # (G, K + 1) bool: the same as member_*

    @property
    def states(self) -> int:
        return self.next.shape[1]

    @property
    def sorts(self) -> int:
        return len(self.next) - 1

    @property
    def groups(self) -> int:
        return len(self.contains)

    def to(self, device: torch.device) -> TokenAutomaton:
        moved: dict[str, Any] = {name: p.to(device) for name, p in vars(self).items() if isinstance(p, Tensor)}
        return replace(self, **moved)


def _lifted(automaton: Automaton, spelled: Spelled, end: int | None, fillers: Sequence[int]) -> TokenAutomaton:
    maps, sort = _maps(automaton, spelled)
    dead, accepts = len(automaton.next), torch.tensor(automaton.accepts)
    if end is not None:
        maps, sort = _with_end(maps, sort, accepts, end, fillers)
        accepts = torch.cat([accepts, torch.tensor([True])])
        dead += 1
    maps, accepts, start = _reached(maps, accepts, dead)
    maps, same = maps.unique(dim=0, return_inverse=True)  # states that no token reaches told some of them apart
    nowhere = (maps == maps.shape[1]).all(1)
    number = torch.where(nowhere, int((~nowhere).sum()), (~nowhere).cumsum(0) - 1)
    sort, maps = number[same][sort], maps[~nowhere]
    maps = torch.cat([maps, torch.full((1, len(accepts)), len(accepts))])
    return _grouped(maps, sort, accepts, start, None if end is None else int(sort[end]))


def _maps(automaton: Automaton, spelled: Spelled) -> tuple[Tensor, Tensor]:
    """What the tokens do to the S states: maps (n, S) int64 from a state to the next, S where there is none; and which
    of them each token is, (V,).

    All tokens are read at once, byte by byte. Two that have done the same so far, and go on with bytes that no state
    tells apart, go on alike: each such case is worked out once, however many tokens there are.
    """
    states, kinds = len(automaton.next), max(automaton.kind) + 1
    table = torch.tensor([*automaton.next, [-1] * kinds])
    table = table.masked_fill(table < 0, states)  # (S + 1, kinds)
    kind = torch.tensor(automaton.kind)[spelled.row.long()]
    known, maps = _Interned(), torch.arange(states)[None]
    known.add(maps)
    dead = int(known.add(torch.full_like(maps, states))[0])
    now = torch.where(spelled.length > 0, 0, dead)
    after: dict[int, int] = {}
    depth, open = 0, (spelled.length > 0).nonzero()[:, 0]
    while len(open):
        case, which = (now[open] * kinds + kind[spelled.begin[open] + depth]).unique(return_inverse=True)
        fresh = torch.tensor([c for c in case.tolist() if c not in after], dtype=torch.int64)
        for some in fresh.split(4096) if len(fresh) else ():
            found = table[known.rows(some // kinds), (some % kinds)[:, None]]
            after.update(zip(some.tolist(), known.add(found).tolist()))
        now[open] = torch.tensor([after[c] for c in case.tolist()])[which]
        depth += 1
        open = open[(spelled.length[open] > depth) & (now[open] != dead)]
    return known.rows(torch.arange(len(known))), now


class _Interned:
    """Rows of int64 by number, equal rows by the same one."""

    def __init__(self) -> None:
        self.number: dict[bytes, int] = {}
        self.parts: list[Tensor] = []

    def __len__(self) -> int:
        return len(self.number)

    def add(self, rows: Tensor) -> Tensor:
        out = []
        for row in rows.unbind():
            name = row.numpy().tobytes()
            if name not in self.number:
                self.number[name] = len(self.number)
                self.parts.append(row)
            out.append(self.number[name])
        return torch.tensor(out, dtype=torch.int64)

    def rows(self, numbers: Tensor) -> Tensor:
        return torch.stack([self.parts[i] for i in numbers.tolist()])


def _with_end(maps: Tensor, sort: Tensor, accepts: Tensor, end: int, fillers: Sequence[int]) -> tuple[Tensor, Tensor]:
    """One more state, in which the text is over: the end of text leads there, and it and its fillers stay there."""
    states = len(accepts)
    over, dead = states, states + 1
    maps = torch.cat([torch.where(maps == states, dead, maps), torch.full((len(maps), 1), dead)], 1)
    ends = torch.cat([torch.where(accepts, over, dead), torch.tensor([over])])
    fills = torch.full_like(ends, dead).index_fill(0, torch.tensor(over), over)
    sort = sort.clone()
    sort[list(fillers)] = len(maps) + 1
    sort[end] = len(maps)
    return torch.cat([maps, ends[None], fills[None]]), sort


def _reached(maps: Tensor, accepts: Tensor, dead: int) -> tuple[Tensor, Tensor, int]:
    """Without the states that no tokens lead to from the first."""
    seen = torch.zeros(dead + 1, dtype=torch.bool)
    front = torch.tensor([0])
    while len(front):
        seen[front] = True
        reached = maps[:, front].unique()
        front = reached[(reached < dead) & ~seen[reached]]
    kept = seen[:dead].nonzero()[:, 0]
    number = torch.full((dead + 1,), len(kept))
    number[kept] = torch.arange(len(kept))
    return number[maps[:, kept]], accepts[kept], 0


def _grouped(maps: Tensor, sort: Tensor, accepts: Tensor, start: int, end: int | None) -> TokenAutomaton:
    """Which sorts lead from where to where; pairs of states between which the same ones do share a group."""
    states = len(accepts)
    which, source = (maps[:-1] < states).nonzero(as_tuple=True)
    pair = source * states + maps[which, source]
    order = pair.argsort(stable=True)
    pairs, counts = pair[order].unique_consecutive(return_counts=True)
    groups: dict[tuple[int, ...], int] = {}
    group = [groups.setdefault(tuple(some.tolist()), len(groups)) for some in which[order].split(counts.tolist())]
    members = [(number, one) for some, number in groups.items() for one in some]
    member_group, member_sort = torch.tensor(members, dtype=torch.int64).view(-1, 2).unbind(1)
    contains = torch.zeros(len(groups), len(maps), dtype=torch.bool)
    contains[member_group, member_sort] = True
    return TokenAutomaton(
        start=start,
        end=end,
        sort=sort,
        next=maps,
        accepts=accepts,
        source=pairs // states,
        target=pairs % states,
        group=torch.tensor(group, dtype=torch.int64),
        member_group=member_group,
        member_sort=member_sort,
        contains=contains,
    )

"""Regular languages as trees: sets of characters, and what is joined, chosen and repeated of them. `regex` reads them,
`schema` writes them, `automaton` runs them. Knows no bytes and no tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

LAST = 0x10FFFF
SURROGATES = (0xD800, 0xDFFF)  # halves of pairs: no characters, and no UTF-8
Ranges = tuple[tuple[int, int], ...]  # code points, both ends included; sorted, apart


@dataclass(frozen=True)
class Chars:
    """One character out of a set; of the empty set there is none, and no text."""

    ranges: Ranges


@dataclass(frozen=True)
class Joined:
    """One part after the other; of no parts, the empty text."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Either:
    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Repeated:
    """`least` to `most` times; None: without end."""

    part: Node
    least: int = 0
    most: int | None = None


@dataclass(frozen=True)
class Edge:
    """Nothing, but only where the text begins, or ends."""

    end: bool


Node: TypeAlias = "Chars | Joined | Either | Repeated | Edge"
NOTHING = Joined(())


def spanning(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Any ranges, in any order, as a set."""
    out: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if out and low <= out[-1][1] + 1:
            out[-1] = (out[-1][0], max(high, out[-1][1]))
        else:
            out.append((low, high))
    return tuple(out)


def of(characters: str) -> Ranges:
    return spanning((ord(c), ord(c)) for c in characters)


def complement(ranges: Ranges) -> Ranges:
    """All other characters."""
    starts = [0, *(high + 1 for _, high in ranges)]
    ends = [*(low - 1 for low, _ in ranges), LAST]
    return tuple((low, high) for low, high in zip(starts, ends) if low <= high)


def without(ranges: Ranges, others: Ranges) -> Ranges:
    return complement(spanning([*complement(ranges), *others]))


def text(characters: str) -> Node:
    """Exactly these."""
    return Joined(tuple(Chars(of(c)) for c in characters))


def joined(*parts: Node | str) -> Node:
    return Joined(tuple(text(part) if isinstance(part, str) else part for part in parts))


def either(*parts: Node | str) -> Node:
    return Either(tuple(text(part) if isinstance(part, str) else part for part in parts))


def optional(part: Node | str) -> Node:
    return Repeated(joined(part), 0, 1)


def every(node: Node, change: Callable[[Ranges], Ranges]) -> Node:
    """The same tree over other sets of characters."""
    if isinstance(node, Chars):
        return Chars(change(node.ranges))
    if isinstance(node, Repeated):
        return Repeated(every(node.part, change), node.least, node.most)
    if isinstance(node, Edge):
        return node
    return type(node)(tuple(every(part, change) for part in node.parts))

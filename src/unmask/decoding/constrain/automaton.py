"""A regular language as a deterministic automaton over the bytes of UTF-8, as small as can be. Knows no tokens."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ...errors import UserError
from .language import SURROGATES, Chars, Edge, Either, Node, Ranges, Repeated, without

MOST = 10_000  # states, before those that do the same are joined
DEAD = -1
Span = tuple[int, int]  # bytes, both ends included


@dataclass(frozen=True)
class Automaton:
    """S states, 0 the first; from every one some text leads to acceptance. kind (256): bytes that no state tells apart
    are of one kind. next (S, kinds): the state after a byte, DEAD where none can follow."""

    next: list[list[int]]
    kind: list[int]
    accepts: list[bool]

    def accepts_bytes(self, text: bytes) -> bool:
        state = 0
        for byte in text:
            state = self.next[state][self.kind[byte]]
            if state == DEAD:
                return False
        return self.accepts[state]


@functools.lru_cache(maxsize=64)
def automaton(language: Node, field: str) -> Automaton:
    """UserError, naming the field, where it would be gigantic or accepts nothing at all."""
    graph = _Graph(field)
    graph.final = graph.add(language, graph.new())
    found = minimal(_determined(graph, field))
    if found is None:
        raise UserError(f"{field}: there is no text that matches it; write one that can be met")
    return found


# -- characters as bytes


def utf8(ranges: Ranges) -> Iterator[tuple[Span, ...]]:
    """Sequences of byte ranges: every choice of one byte from each is a character of the set, and all are."""
    for low, high in without(ranges, (SURROGATES,)):
        for limit in (0x7F, 0x7FF, 0xFFFF, 0x10FFFF):  # the last that 1, 2, 3 and 4 bytes can hold
            if low <= limit:
                yield from _equally_long(low, min(high, limit))
                low = limit + 1
            if low > high:
                break


def _equally_long(low: int, high: int) -> Iterator[tuple[Span, ...]]:
    """The range cut where its bytes do not run through all their values independently."""
    first, last = chr(low).encode(), chr(high).encode()
    for i in range(1, len(first)):
        rest = (1 << 6 * i) - 1  # what the last i bytes hold
        if low & ~rest == high & ~rest:
            continue
        if low & rest:
            yield from _equally_long(low, low | rest)
            yield from _equally_long((low | rest) + 1, high)
            return
        if high & rest != rest:
            yield from _equally_long(low, (high & ~rest) - 1)
            yield from _equally_long(high & ~rest, high)
            return
    yield tuple(zip(first, last))


# -- trees as graphs with choices (Thompson 1968)


@dataclass
class _Graph:
    """moves: byte spans to a state; free: states that come for free; begins, ends: for free at the edges of a text."""

    option: str
    moves: list[list[tuple[Span, int]]] = field(default_factory=list)
    free: list[list[int]] = field(default_factory=list)
    begins: list[list[int]] = field(default_factory=list)
    ends: list[list[int]] = field(default_factory=list)
    final: int = 0

    def new(self) -> int:
        if len(self.moves) >= 5 * MOST:
            raise _too_large(self.option)
        for part in (self.moves, self.free, self.begins, self.ends):
            part.append([])
        return len(self.moves) - 1

    def add(self, node: Node, at: int) -> int:
        """The state in which the node's text, begun at `at`, is over."""
        if isinstance(node, Chars):
            return self._chars(node.ranges, at)
        if isinstance(node, Repeated):
            return self._repeated(node, at)
        if isinstance(node, Edge):
            out = self.new()
            (self.ends if node.end else self.begins)[at].append(out)
            return out
        if isinstance(node, Either):
            out = self.new()
            for part in node.parts:
                inside = self.new()
                self.free[at].append(inside)
                self.free[self.add(part, inside)].append(out)
            return out
        for part in node.parts:
            at = self.add(part, at)
        return at

    def _chars(self, ranges: Ranges, at: int) -> int:
        out = self.new()
        known: dict[tuple[int, Span], int] = {}  # characters that begin alike share their first bytes
        for spans in utf8(ranges):
            here = at
            for span in spans[:-1]:
                if (here, span) not in known:
                    known[here, span] = self.new()
                    self.moves[here].append((span, known[here, span]))
                here = known[here, span]
            self.moves[here].append((spans[-1], out))
        return out

    def _repeated(self, node: Repeated, at: int) -> int:
        for _ in range(node.least):
            at = self.add(node.part, at)
        out = self.new()
        if node.most is None:
            loop = self.new()
            self.free[at].append(loop)
            self.free[self.add(node.part, loop)].append(loop)
            self.free[loop].append(out)
            return out
        self.free[at].append(out)
        for _ in range(node.most - node.least):
            at = self.add(node.part, at)
            self.free[at].append(out)
        return out

    def closure(self, states: Iterable[int], *edges: list[list[int]]) -> frozenset[int]:
        """With what comes for free, and over these edges of the text."""
        found, todo = set(), list(states)
        while todo:
            state = todo.pop()
            if state not in found:
                found.add(state)
                todo += self.free[state]
                for edge in edges:
                    todo += edge[state]
        return frozenset(found)


def _too_large(field: str) -> UserError:
    return UserError(f"{field}: needs more than {MOST} states to follow; use smaller or fewer counted repeats")


# -- graphs as automata: sets of states (Rabin and Scott 1959)


def _determined(graph: _Graph, field: str) -> Automaton:
    kind = _kinds(span for moves in graph.moves for span, _ in moves)
    kinds = max(kind) + 1
    first = graph.closure([0], graph.begins)
    number, todo, rows = {first: 0}, [first], []
    while todo:
        here, todo = todo, []
        for states in here:
            reached: dict[int, set[int]] = defaultdict(set)
            for state in states:
                for (low, high), out in graph.moves[state]:
                    for k in range(kind[low], kind[high] + 1):
                        reached[k].add(out)
            row = [DEAD] * kinds
            for k, out_states in reached.items():
                after = graph.closure(out_states)
                if after not in number:
                    if len(number) >= MOST:
                        raise _too_large(field)
                    number[after] = len(number)
                    todo.append(after)
                row[k] = number[after]
            rows.append(row)
    accepts = [graph.final in graph.closure(states, graph.ends) for states in number]
    accepts[0] = graph.final in graph.closure(first, graph.ends, graph.begins)
    return Automaton(rows, kind, accepts)


def _kinds(spans: Iterable[Span]) -> list[int]:
    """Bytes in order, numbered anew wherever a span begins or has ended."""
    cuts = {cut for low, high in spans for cut in (low, high + 1)} - {0}
    out, now = [], 0
    for byte in range(256):
        now += byte in cuts
        out.append(now)
    return out


def minimal(given: Automaton) -> Automaton | None:
    """States that accept the same texts are one (Hopcroft 1971), and those that lead nowhere are none."""
    n, kinds = len(given.next), max(given.kind) + 1
    before: list[list[list[int]]] = [[[] for _ in range(n + 1)] for _ in range(kinds)]  # state n: dead
    for state, row in enumerate([*given.next, [n] * kinds]):
        for k, out in enumerate(row):
            before[k][out].append(state)  # DEAD, -1, is the last: n
    block = _refined(before, [i for i in range(n) if given.accepts[i]], n + 1)
    dead = block[n]
    if block[0] == dead:
        return None
    order = [b for b in dict.fromkeys(block) if b != dead]
    number = {b: i for i, b in enumerate(order)} | {dead: DEAD}
    member = {b: state for state, b in reversed(list(enumerate(block)))}
    rows = [[number[block[out]] for out in given.next[member[b]]] for b in order]
    return Automaton(rows, given.kind, [given.accepts[member[b]] for b in order])


def _refined(before: list[list[list[int]]], accepting: list[int], n: int) -> list[int]:
    """The block of each of n states: before[kind][state] are those that a byte of this kind leads to it from."""
    block = [0] * n
    blocks = [set(range(n)) - set(accepting), set(accepting)]
    for state in accepting:
        block[state] = 1
    todo = {(b, k) for b in (0, 1) for k in range(len(before))}
    while todo:
        b, k = todo.pop()
        hit: dict[int, set[int]] = defaultdict(set)
        for state in blocks[b]:
            for source in before[k][state]:
                hit[block[source]].add(source)
        for whole, part in hit.items():
            if len(part) == len(blocks[whole]):
                continue
            rest = blocks[whole] - part
            small, large = sorted((part, rest), key=len)
            blocks[whole] = large
            blocks.append(small)
            for state in small:
                block[state] = len(blocks) - 1
            todo |= {(len(blocks) - 1, kind) for kind in range(len(before))}
    return block

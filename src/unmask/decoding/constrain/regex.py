"""Regular expressions as trees. Python's own parser reads them, so what they mean is what `re.fullmatch` says."""

from __future__ import annotations

import functools
import importlib
import re
import sys
from collections.abc import Callable, Iterable
from typing import Any

from ...errors import UserError
from . import language
from .language import Chars, Edge, Either, Joined, Node, Ranges, Repeated

parser: Any = importlib.import_module("re._parser" if sys.version_info >= (3, 11) else "sre_parse")
LINE_END = language.of("\n")
REFUSED = {
    "ASSERT": "a look ahead or behind",
    "ASSERT_NOT": "a look ahead or behind",
    "GROUPREF": "a back-reference",
    "GROUPREF_EXISTS": "a conditional group",
    "ATOMIC_GROUP": "an atomic group",
    "POSSESSIVE_REPEAT": "a possessive repeat",
}


@functools.lru_cache(maxsize=64)
def read(pattern: str, field: str = "regex") -> Node:
    """The texts that `re.fullmatch(pattern, text)` accepts, but that \\d, \\w and \\s are ASCII.

    Where they are negated they exclude all that Unicode knows of them, so that whoever checks the text with or without
    re.ASCII is content. `$` is the end of the text, never before a last newline. Lazy repeats are repeats.
    """
    try:
        tree = parser.parse(pattern)
    except re.error as error:
        raise UserError(f"{field}: {pattern!r} is no regular expression ({error}); mend it") from error
    except (RecursionError, OverflowError) as error:
        raise UserError(f"{field}: {pattern[:40]!r}... nests or counts too far; make it simpler") from error
    return _Reader(pattern, field).joined(tree, tree.state.flags)


class _Reader:
    def __init__(self, pattern: str, field: str) -> None:
        self.pattern, self.field = pattern, field

    def joined(self, tree: Iterable[tuple[Any, Any]], flags: int) -> Node:
        return Joined(tuple(self.node(str(op), what, flags) for op, what in tree))

    def node(self, op: str, what: Any, flags: int) -> Node:
        make: Callable[[Any, int], Node] | None = getattr(self, f"_{op.lower()}", None)
        if make is None:
            raise self._refusal(REFUSED.get(op, op.lower().replace("_", " ")))
        return make(what, flags)

    def _literal(self, code: int, flags: int) -> Node:
        return Chars(cased(((code, code),), flags))

    def _not_literal(self, code: int, flags: int) -> Node:
        return Chars(language.complement(cased(((code, code),), flags)))

    def _any(self, _: None, flags: int) -> Node:
        return Chars(language.complement(() if flags & re.DOTALL else LINE_END))

    def _in(self, items: list[tuple[Any, Any]], flags: int) -> Node:
        negated = str(items[0][0]) == "NEGATE"
        found = [span for op, what in items[negated:] for span in _set(str(op), what, flags, negated)]
        ranges = cased(language.spanning(found), flags)
        return Chars(language.complement(ranges) if negated else ranges)

    def _branch(self, what: tuple[None, list[Any]], flags: int) -> Node:
        return Either(tuple(self.joined(part, flags) for part in what[1]))

    def _max_repeat(self, what: tuple[int, Any, Any], flags: int) -> Node:
        least, most, part = what
        return Repeated(self.joined(part, flags), least, None if most == parser.MAXREPEAT else int(most))

    _min_repeat = _max_repeat

    def _subpattern(self, what: tuple[Any, int, int, Any], flags: int) -> Node:
        _, added, taken, part = what
        return self.joined(part, (flags | added) & ~taken)

    def _at(self, where: Any, flags: int) -> Node:
        kind = str(where)
        if "BOUNDARY" in kind:
            raise self._refusal("a word boundary")
        if flags & re.MULTILINE and not kind.endswith("STRING"):
            raise self._refusal("the start or end of a line")
        return Edge(end="END" in kind)

    def _refusal(self, what: str) -> UserError:
        return UserError(
            f"{self.field}: {self.pattern!r} holds {what}, which no automaton can follow; write it without"
        )


def _set(op: str, what: Any, flags: int, negated: bool) -> Ranges:
    """What one item of [...] adds."""
    if op == "LITERAL":
        return ((what, what),)
    if op == "RANGE":
        return (tuple(what),)
    name = str(what).removeprefix("CATEGORY_")
    opposite = name.startswith("NOT_")
    wide = negated != opposite and not flags & re.ASCII
    ranges = category(name.removeprefix("NOT_"), wide)
    return language.complement(ranges) if opposite else ranges


@functools.lru_cache(maxsize=8)
def category(name: str, wide: bool) -> Ranges:
    """DIGIT, SPACE or WORD: of ASCII, or wide, of all of Unicode."""
    characters = "".join(map(chr, range(language.LAST + 1 if wide else 128)))
    runs = re.finditer(f"\\{name[0].lower()}+", characters)
    return tuple((run.start(), run.end() - 1) for run in runs)


def cased(ranges: Ranges, flags: int) -> Ranges:
    """With what else matches one of them where case does not count."""
    if not flags & re.IGNORECASE:
        return ranges
    own = (c for c in _letters() if any(low <= ord(c) <= high for low, high in ranges))
    others = [ord(d) for c in own for d in re.findall(re.escape(c), _letters(), flags & (re.IGNORECASE | re.ASCII))]
    return language.spanning([*ranges, *((code, code) for code in others)])


@functools.lru_cache(maxsize=1)
def _letters() -> str:
    """All that have another case."""
    return "".join(c for c in map(chr, range(language.LAST + 1)) if c.lower() != c or c.upper() != c)

"""Whole numbers within bounds, digit by digit."""

from __future__ import annotations

from . import language
from .language import Chars, Either, Node, Repeated, either, joined

MOST_DIGITS = 18
DIGIT = Chars(language.of("0123456789"))


def between(low: int | None, high: int | None) -> Node:
    """low <= n <= high as JSON writes it, without leading zeros; None: no bound but MOST_DIGITS."""
    end = 10**MOST_DIGITS - 1
    low, high = (-max(end, -(high or 0)) if low is None else low), (max(end, low or 0) if high is None else high)
    parts: list[Node] = []
    if low < 0:
        parts.append(joined("-", _positive(max(1, -high), -low)))
    if high >= 0:
        parts.append(_positive(max(0, low), high))
    return Either(tuple(parts))


def _positive(low: int, high: int) -> Node:
    """0 <= low <= high, one alternative for each number of digits."""
    parts = []
    for digits in range(len(str(low)), len(str(high)) + 1):
        first, last = (10 ** (digits - 1) if digits > 1 else 0), 10**digits - 1
        parts.append(_equally_long(str(max(low, first)), str(min(high, last))))
    return Either(tuple(parts))


def _equally_long(low: str, high: str) -> Node:
    """Digits from low to high: at the first that differs, the lowest goes on above low, the highest below high, and
    what lies between is free."""
    if set(low) <= {"0"} and set(high) <= {"9"}:
        return Repeated(DIGIT, len(low), len(low))
    if low[0] == high[0]:
        return joined(low[0], _equally_long(low[1:], high[1:]))
    nines, zeros, free = "9" * len(low[1:]), "0" * len(low[1:]), Repeated(DIGIT, len(low) - 1, len(low) - 1)
    parts = [joined(low[0], _equally_long(low[1:], nines)), joined(high[0], _equally_long(zeros, high[1:]))]
    inside = range(int(low[0]) + 1, int(high[0]))
    if inside:
        parts.append(joined(Chars(language.of("".join(map(str, inside)))), free))
    return either(*parts)

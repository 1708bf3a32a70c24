"""The automaton of an expression against `re`, text by text."""

from __future__ import annotations

import itertools
import math
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.decoding.constrain import language
from unmask.decoding.constrain.automaton import automaton, minimal, utf8
from unmask.decoding.constrain.regex import read

PATTERNS = [
    "", "a|", "a*b|c+", "(a|b)*abb", "a{2,4}?", "(?:a*)$^", "^(ab|a)(c|bcd)?$", r"\d{2}-\d", r"[^a-c\d]{1,3}", r"\W+",
    r"\s*\S+", r"\D{2}", "é.ü", "[à-ü]{2}", "(?s:.)x", "(?i)[^k]", "(?i:é)b", r"[\x00-\uffff]a",
    "[\U00010000-\U0010ffff]", "x(?:)y?", "(?a:\\w)é", "((a|b){2}c){1,2}", ".+", "[^\\W\\d]+", "(?x) a  b # c",
    r"\Aab\Z",
]  # fmt: skip
LETTERS = "abcxyké1 \nü\U00010000\U0001f600_-٣K"


@pytest.mark.parametrize("pattern", PATTERNS)
def test_what_matches(pattern: str) -> None:
    """What is accepted matches, with and without re.ASCII; and where these two agree, all that matches is accepted."""
    found, rng = automaton(read(pattern), "regex"), random.Random(pattern)
    texts = ["".join(rng.choices(LETTERS, k=rng.randrange(7))) for _ in range(1500)]
    for text in [*texts, *map("".join, itertools.product("abc1", repeat=3))]:
        if "(?i" in pattern and "K" in text:  # the Kelvin sign is a k to Unicode alone
            continue
        both = {bool(re.fullmatch(pattern, text, flags)) for flags in (0, re.ASCII if "(?a" not in pattern else 0)}
        assert found.accepts_bytes(text.encode()) == (both == {True}), text


@settings(max_examples=60, deadline=None)
@given(st.from_regex(r"([ab.]|\[\^?ab\]|\(a\|b?c\))([*+?]|\{0,2\})?([ab]|\(ba\)\+)?", fullmatch=True))
def test_any_expression(pattern: str) -> None:
    found = automaton(read(pattern), "regex")
    for n in range(5):
        for text in map("".join, itertools.product("abc", repeat=n)):
            assert found.accepts_bytes(text.encode()) == bool(re.fullmatch(pattern, text))


def test_case_is_what_python_says_it_is() -> None:
    for letter in "aKsßéΣ":
        found = automaton(read(f"(?i){letter}"), "regex")
        for other in "aAkKKsSſßẞéÉΣσς":
            assert found.accepts_bytes(other.encode()) == bool(re.fullmatch(f"(?i){letter}", other))


def test_bytes_are_those_of_utf8() -> None:
    """Every character of a set and no other sequence, surrogates never."""
    edges = [0, 0x7F, 0x80, 0x7FF, 0x800, 0xD7FF, 0xD800, 0xDFFF, 0xE000, 0xFFFF, 0x10000, 0x10FFFF]
    rng = random.Random(0)
    for low, high in [
        *itertools.combinations(edges, 2),
        *(sorted(rng.choices(range(0x110000), k=2)) for _ in range(9)),
    ]:
        sequences = list(utf8(((low, high),)))
        size = sum(math.prod(b - a + 1 for a, b in s) for s in sequences)
        halves = max(0, min(high, 0xDFFF) - max(low, 0xD800) + 1)
        assert size == high - low + 1 - halves
        for code in {low, high, (low + high) // 2} - set(range(0xD800, 0xE000)):
            text = chr(code).encode()
            assert any(len(s) == len(text) and all(a <= c <= b for c, (a, b) in zip(text, s)) for s in sequences)


@pytest.mark.parametrize(("pattern", "states"), [("(a|b)*abb", 4), ("a{3}|a{5}", 6), ("(ab|cb)d", 4), (".*", 8)])
def test_automata_are_as_small_as_can_be(pattern: str, states: int) -> None:
    found = automaton(read(pattern), "regex")
    assert len(found.next) == states
    again = minimal(found)
    assert again is not None
    assert len(again.next) == states


def test_sets_of_characters() -> None:
    assert language.complement(language.complement(language.of("ax"))) == language.of("xa")
    assert language.without(((0, 10),), ((3, 4), (10, 20))) == ((0, 2), (5, 9))
    assert language.spanning([(5, 9), (1, 2), (3, 4)]) == ((1, 9),)

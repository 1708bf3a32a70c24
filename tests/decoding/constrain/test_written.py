"""Whatever the model, the rule and the temperature: what is written matches."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from schema_judge import SCHEMAS, meets
from spelled_model import END, MASK, SPELLED, denoiser_of, read, settings_of

from unmask.decoding.canvas import Row
from unmask.decoding.constrain.tokens import Vocabulary
from unmask.decoding.sampler import Decoded, Sampler
from unmask.decoding.settings import Decoding
from unmask.denoiser import Denoiser
from unmask.errors import UserError
from unmask.noise.schedule import Linear
from unmask.noise.tokens import Masking, TokenNoise

REGEXES = [
    r"\d{4}-\d{2}-\d{2}", r"yes|no|maybe", r"[a-z]+(, [a-z]+)*", r"(ab|ba)*", r"-?(0|[1-9]\d*)(\.\d+)?", r".*", r".+\.",
    r"[A-Z][a-z]{2,8}( [A-Z][a-z]{2,8}){1,2}", r"(?i)true|false", r"\w+@\w+\.(com|org)", r"#[0-9a-f]{6}",
    r"(\d{1,3}\.){3}\d{1,3}", r"[^aeiou\s]*", r"\S+", r"\D{3,}", r"(a|b)*abb", r"é+|世{2}", r"[à-ü]{1,4}x?",
    r'"([^"\\]|\\.)*"', r"https?://[a-z]+(\.[a-z]+)+(/\w*)*", r"(?s:.){5}", r"[\u4e00-\u9fff]{2,4}", r"x{3,}y?",
    r"(\(\d\)|\[\d\])+", r"def [a-z_]\w*\((\w+(, \w+)*)?\):", r"^\s*return .*$", r"(1|2|3)(,(1|2|3)){2,5}",
    r"[+-]?\d+e\d", r"(Mr|Ms)\. \w+", r"\W\w\W",
]  # fmt: skip
RULES: list[dict[str, Any]] = [
    {},
    {"threshold": 0.2},
    {"rule": "entropy", "block": 8, "steps": 12},
    {"rule": "margin", "factor": 1.0},
    {"rule": "random", "steps": 9},
    {"rule": "left_to_right"},
    {"rule": "ancestral", "steps": 8},
    {"rule": "first_hitting"},
    {"rule": {"kind": "psi", "middle": 0.3}, "steps": 10},
    {"rule": {"kind": "remdm_cap", "eta": 0.2}, "steps": 12},
    {"rule": {"kind": "after_cuts", "of": "entropy", "noise": 0.5}, "quota": "proportional", "steps": 8},
    {"revise": {"kind": "take_back", "threshold": 0.3}, "threshold": 0.1, "block": 8},
    {"guidance": 1.0, "steps": 6},
    {"cache": "dual", "block": 8, "steps": 12},
]
HEATS: list[dict[str, Any]] = [{}, {"temperature": 1.0}, {"temperature": 0.6, "top_p": 0.8}, {"temperature": 3.0}]
N = 22


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary(lambda: SPELLED)


@pytest.fixture(scope="module")
def speller() -> Denoiser:
    return denoiser_of(3)


@pytest.fixture(scope="module")
def forward_speller() -> Denoiser:
    return denoiser_of(4, forward=True)


def write(denoiser: Denoiser, rows: list[Row], settings: Any, process: Any = None) -> list[Decoded]:
    return Sampler(denoiser, process or Masking.over(len(SPELLED), MASK), settings)(rows)


def rows(seed: int = 0, n: int = 3) -> list[Row]:
    """Unequal prompts and lengths; the shortest is what every pattern above has room for."""
    return [Row.after([7 * i] * (5 * i), N + 9 * i, seed + i) for i in range(n)]


@pytest.mark.parametrize(("number", "pattern"), enumerate(REGEXES))
def test_thirty_regular_expressions(number: int, pattern: str, speller: Denoiser, vocabulary: Vocabulary) -> None:
    rule, heat = RULES[number % len(RULES)], HEATS[number % len(HEATS)]
    for text in write(speller, rows(number), settings_of(vocabulary, regex=pattern, **rule, **heat)):
        assert re.fullmatch(pattern, read(text.tokens)), (pattern, rule, heat, read(text.tokens))


@pytest.mark.parametrize("every", [10, pytest.param(1, marks=pytest.mark.thorough)])
@pytest.mark.parametrize("heat", HEATS, ids=str)
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_every_rule_at_every_temperature(
    rule: dict[str, Any], heat: dict[str, Any], every: int, speller: Denoiser, vocabulary: Vocabulary
) -> None:
    for seed in range(RULES.index(rule) % every, len(REGEXES), every):
        pattern = REGEXES[seed]
        for text in write(speller, rows(seed, 2), settings_of(vocabulary, regex=pattern, **rule, **heat)):
            assert re.fullmatch(pattern, read(text.tokens)), (pattern, read(text.tokens))


@pytest.mark.parametrize(("number", "schema"), enumerate(SCHEMAS))
def test_ten_json_schemas(number: int, schema: Any, speller: Denoiser, vocabulary: Vocabulary) -> None:
    rule, heat = RULES[(3 * number) % len(RULES)], HEATS[(number + 1) % len(HEATS)]
    rows = [Row.after([1] * i, 60 + 8 * i, number + i) for i in range(2)]
    for text in write(speller, rows, settings_of(vocabulary, json_schema=schema, **({"steps": 12} | rule), **heat)):
        assert meets(schema, json.loads(read(text.tokens))), read(text.tokens)


@pytest.mark.parametrize("pattern", REGEXES[:12])
def test_from_left_to_right(pattern: str, forward_speller: Denoiser, vocabulary: Vocabulary) -> None:
    """An autoregressive model, which is asked about one position at a time."""
    for heat in HEATS[:2]:
        for text in write(forward_speller, rows(2, 2), settings_of(vocabulary, regex=pattern, **heat)):
            assert re.fullmatch(pattern, read(text.tokens))


def test_on_a_canvas_of_random_tokens(speller: Denoiser, vocabulary: Vocabulary) -> None:
    """Under uniform noise every state is a token: what stands there binds nothing until it is settled."""
    uniform = TokenNoise(1.0 - 1.0 * (torch.arange(len(SPELLED)) == MASK), Linear())
    for rule in ({}, {"rule": "ancestral", "steps": 6}, {"threshold": 0.3}):
        how = settings_of(vocabulary, regex=r"(\d|ab)+", temperature=1.0, **rule)
        for text in write(speller, rows(5, 2), how, uniform):
            assert re.fullmatch(r"(\d|ab)+", read(text.tokens))


def test_gaps(speller: Denoiser, vocabulary: Vocabulary) -> None:
    """Each gap by itself, with exactly its tokens; or the whole text with what is given."""
    a, b = ord("a"), ord("b")
    row = Row.gaps([a, None, None, None, b, None, None], seed=4)
    (each,) = write(speller, [row], settings_of(vocabulary, regex=r"\d+|x", temperature=1.0))
    assert re.fullmatch(r"a\d+b\d+", read(each.canvas))
    assert END not in each.canvas
    (whole,) = write(speller, [row], settings_of(vocabulary, regex=r"a(ab)*b+c{2,6}", matches="whole"))
    assert re.fullmatch(r"a(ab)*b+c{2,6}", read(whole.canvas))


def test_the_given_text_may_begin_what_matches(speller: Denoiser, vocabulary: Vocabulary) -> None:
    row = Row.after(list(b'{"name'), 20, seed=1)
    (text,) = write(speller, [row], settings_of(vocabulary, regex=r'\{"name": "[a-z]*"\}', matches="whole"))
    assert re.fullmatch(r'\{"name": "[a-z]*"\}', '{"name' + read(text.tokens))


def test_rows_of_a_batch_are_rows_alone(speller: Denoiser, vocabulary: Vocabulary) -> None:
    for rule, heat in [(RULES[1], HEATS[2]), (RULES[4], HEATS[1]), (RULES[9], HEATS[1])]:
        how = settings_of(vocabulary, regex=r"[a-z]+(, [a-z]+)*", **rule, **heat)
        many = write(speller, rows(3), how)
        for row, text in zip(rows(3), many):
            (alone,) = write(speller, [row], how)
            assert (alone.tokens, alone.settled_at, alone.confidence) == (
                text.tokens,
                text.settled_at,
                text.confidence,
            )


@pytest.mark.parametrize("pattern", [r".*", r"(?s:.)*"])
def test_a_language_of_all_texts_changes_little(pattern: str, speller: Denoiser, vocabulary: Vocabulary) -> None:
    """Where the best tokens are a text already, it is written."""
    rows = [Row.after([1, 2], 8, 5)]
    free = write(speller, rows, settings_of(vocabulary, suppress_eos=True))
    kept = write(speller, rows, settings_of(vocabulary, suppress_eos=True, regex=pattern))
    try:
        fits = bool(re.fullmatch(pattern, read(free[0].tokens)))
    except UnicodeDecodeError:
        fits = False
    assert not fits or kept[0].tokens == free[0].tokens
    assert re.fullmatch(pattern, read(kept[0].tokens))


@settings(max_examples=25, deadline=None)
@given(
    st.from_regex(r"([ab]|\[ab\]|\(a\|bb\)|\.)([*+?]|\{1,3\})?([cé]|\\d|\[\^a\])?", fullmatch=True),
    st.integers(3, 9),
    st.integers(0, 10_000),
    st.sampled_from(RULES[:8]),
    st.sampled_from(HEATS),
)
def test_any_expression(pattern: str, length: int, seed: int, rule: dict[str, Any], heat: dict[str, Any]) -> None:
    vocabulary = Vocabulary(lambda: SPELLED)
    how = settings_of(vocabulary, regex=pattern, **rule, **heat)
    (text,) = write(denoiser_of(seed), [Row.after([3], length, seed)], how)
    assert re.fullmatch(pattern, read(text.tokens))


# -- what cannot be done is said before anything is


@pytest.mark.parametrize(
    ("said", "row", "complaint"),
    [
        ({"regex": "x{9}"}, Row.after([], 3), "needs at least 9"),
        ({"regex": "(abc){2}", "suppress_eos": True}, Row.after([], 7), "exactly 7 tokens"),
        ({"regex": "x+", "matches": "whole"}, Row.after([ord("y")], 3), "cannot match"),
        ({"regex": "[0-9]{5}"}, Row.gaps([None, 1]), "no text of exactly 1 token"),
        ({"regex": "a+", "ban": [ord("a")]}, Row.after([], 3), "no text of 3 tokens"),
    ],
)
def test_texts_that_cannot_be(
    said: dict[str, Any], row: Row, complaint: str, speller: Denoiser, vocabulary: Vocabulary
) -> None:
    with pytest.raises(UserError, match=complaint):
        write(speller, [row], settings_of(vocabulary, **said))


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ({"regex": "("}, "no regular expression"),
        ({"regex": r"(a)\1"}, "back-reference"),
        ({"regex": "(?=a)b"}, "look ahead"),
        ({"regex": r"\bword"}, "word boundary"),
        ({"regex": r"[^\s\S]"}, "no text that matches"),
        ({"regex": "(a|b)*a(a|b){20}"}, "states"),
        ({"regex": "a", "json_schema": {}}, "drop one"),
        ({"regex": "a", "matches": "some"}, "new .* or whole"),
        ({"regex": "a", "rule": "entropy_renoise"}, "entropy_renoise"),
        ({"regex": "a", "rule": "ddpm"}, "ddpm"),
        ({"regex": "a", "rule": "euler"}, "euler"),
        ({"regex": "a", "rule": "self_speculation"}, "left_to_right"),
        ({"regex": "a", "revise": "edit"}, "take_back"),
        ({"json_schema": "{"}, "no JSON"),
    ],
)
def test_settings_that_cannot_be(said: dict[str, Any], complaint: str, vocabulary: Vocabulary) -> None:
    with pytest.raises(UserError, match=complaint):
        settings_of(vocabulary, **said)


def test_a_model_without_its_tokenizer(speller: Denoiser) -> None:
    with pytest.raises(UserError, match="how tokens are spelled"):
        write(speller, [Row.after([], 3)], Decoding(regex="a"))

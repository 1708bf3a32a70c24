"""What the language of a schema holds, and that what cannot be kept is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.decoding.constrain.automaton import Automaton, automaton
from unmask.decoding.constrain.numbers import between
from unmask.decoding.constrain.schema import read_schema
from unmask.errors import UserError


def of(schema: Any) -> Automaton:
    return automaton(read_schema(schema), "json_schema")


def holds(schema: Any, text: str) -> bool:
    return of(schema).accepts_bytes(text.encode())


POINT = {"type": "object", "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}}}
LIST = {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 2}


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": "boolean"}, ["true", "false"], ["True", "1", ""]),
        ({"type": "integer"}, ["0", "-7", "120"], ["01", "1.0", "+1", "-"]),
        ({"type": "number"}, ["0.5", "-1e9", "3"], [".5", "1.", "NaN"]),
        ({"type": "string"}, ['""', '"é\\n"', '"a\\"b"'], ['"', '"\n"', '"\\x"', "a"]),
        ({"type": "string", "minLength": 2, "maxLength": 3}, ['"ab"', '"é\\\\世"'], ['"a"', '"abcd"']),
        ({"type": "string", "pattern": "b"}, ['"abc"', '"b"'], ['"ac"', '"b\n"']),
        ({"type": "string", "pattern": "^(a|b)$"}, ['"a"'], ['"ab"', '"xa"']),
        ({"type": "string", "pattern": "^a|b$"}, ['"ax"', '"xb"', '"a"'], ['"xa"', '"bx"', '"c"']),
        ({"type": "string", "pattern": '^.*$'}, ['"x y"'], ['"a"b"']),
        ({"type": "string", "format": "date"}, ['"2024-02-28"', '"1999-12-31"'], ['"2024-02-30"', '"0000-01-01"']),
        ({"const": {"a": [1, "é"]}}, ['{"a":[1,"é"]}', '{"a": [1, "\\u00e9"]}'], ['{"a":[1]}']),
        ({"enum": [1, None]}, ["1", "null"], ["2"]),
        (POINT, ["{}", '{"x":1}', '{"y": 2}', '{"x": 1, "y": 2}'], ['{"y":1,"x":2}', '{"x":1,}', '{,"y":1}']),
        (POINT | {"required": ["y"]}, ['{"y":2}', '{"x":1,"y":2}'], ["{}", '{"x":1}']),
        (LIST, ["[true]", "[true, false]"], ["[]", "[true,true,true]", "[true,]"]),
        ({"type": "array", "items": {"type": "null"}}, ["[]", "[null,null,null]"], ["[,]"]),
        ({"type": "array", "prefixItems": [{"const": 1}, {"const": 2}], "items": False}, ["[]", "[1,2]"], ["[2]"]),
        ({"type": "array", "prefixItems": [{"const": 1}], "minItems": 3}, ['[1,2,"a"]'], ["[1]", "[1,2]"]),
        ({"type": "object", "additionalProperties": {"const": 1}}, ["{}", '{"a":1,"b":1}'], ['{"a":2}']),
        ({"type": "object", "additionalProperties": False}, ["{}"], ['{"a":1}']),
        ({"anyOf": [{"type": "null"}, {"const": 3}]}, ["null", "3"], ["4"]),
        ({"oneOf": [{"type": "null"}, {"type": "boolean"}]}, ["null", "true"], ["4"]),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"const": 1}}}, ["1"], ["2"]),
        ({"minLength": 1}, ['"a"'], ['""', "1"]),
        ({"type": ["string", "null"], "maxLength": 1}, ["null", '"a"'], ['"ab"']),
        (True, ["1", "[[1], {}]", '{"a": {"b": "c"}}'], ["[[[1]]]", "{1:2}"]),
    ],
)  # fmt: skip
def test_what_is_in_the_language(schema: Any, good: list[str], bad: list[str]) -> None:
    for text in good:
        json.loads(text)
        assert holds(schema, text), text
        assert holds(json.dumps(schema), text), text
    for text in bad:
        assert not holds(schema, text), text


@settings(max_examples=60, deadline=None)
@given(st.integers(-3000, 3000), st.integers(0, 4000), st.integers(-8000, 8000))
def test_integers_within_bounds(low: int, more: int, n: int) -> None:
    high = low + more
    found = automaton(between(low, high), "json_schema")
    for number in {n, low, high, low - 1, high + 1, 0}:
        assert found.accepts_bytes(str(number).encode()) == (low <= number <= high)


@pytest.mark.parametrize(("low", "high", "good", "bad"), [(None, -5, -5, -4), (7, None, 10**9, 6), (0, 0, 0, 1)])
def test_integers_with_one_bound(low: int | None, high: int | None, good: int, bad: int) -> None:
    found = automaton(between(low, high), "json_schema")
    assert found.accepts_bytes(str(good).encode())
    assert not found.accepts_bytes(str(bad).encode())


@pytest.mark.parametrize(
    ("schema", "complaint"),
    [
        ({"type": "number", "minimum": 0}, "'minimum' is a keyword that cannot be kept"),
        ({"type": "array", "uniqueItems": True}, "'uniqueItems'"),
        ({"type": "object", "properties": {"a": {"type": "strnig"}}}, "json_schema/a: .*'string'"),
        ({"type": "object", "required": ["a"]}, "'a' is required"),
        ({"not": {}}, "'not'"),
        ({"allOf": [{}, {}]}, "allOf"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "anyOf"),
        ({"$ref": "#"}, "leads back to itself"),
        ({"$ref": "#/$defs/no"}, "points nowhere"),
        ({"type": "string", "minLength": 3, "maxLength": 2}, "minLength=3"),
        ({"type": "string", "pattern": "("}, "pattern"),
        ({"type": "string", "format": "hostname"}, "hostname"),
        ({"type": "integer", "minimum": 3, "exclusiveMaximum": 3}, "no integer from 3 to 2"),
        ({"enum": []}, "enum is empty"),
        (False, "admits nothing"),
        ("{", "no JSON"),
    ],
)
def test_what_cannot_be_kept_is_refused(schema: Any, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        of(schema)

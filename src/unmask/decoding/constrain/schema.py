"""JSON schemas as regular languages: every text of the language is valid JSON that meets the schema, though not every
such JSON is in it. What a schema says and this cannot keep is refused by name, never ignored.

Objects have their properties in the order of the schema, at most one space after a colon or comma, and no properties
that the schema does not name. Where anything goes, it is at most two deep.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from ...errors import UserError, nearest
from . import language
from .language import NOTHING, Chars, Edge, Either, Joined, Node, Repeated, either, every, joined, optional
from .numbers import between
from .regex import read

FREE = 2  # levels of a value that nothing is said of
NOTES = {"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "discriminator"}
NAMES = {"$schema", "$id", "$comment", "$defs", "definitions", "$anchor"}

SPACE = optional(" ")
COLON, COMMA = joined(":", SPACE), joined(",", SPACE)
ESCAPED = language.spanning([*language.of('"\\'), (0, 0x1F), language.SURROGATES])  # may not stand in a string as it is
LETTER = either(Chars(language.complement(ESCAPED)), joined("\\", Chars(language.of('"\\/bfnrt'))))
INTEGER = read(r"-?(0|[1-9]\d{0,17})")
NUMBER = read(r"-?(0|[1-9]\d{0,17})(\.\d{1,17})?([eE][+-]?\d{1,2})?")
YEAR = r"(\d{3}[1-9]|\d{2}[1-9]0|\d[1-9]00|[1-9]000)"  # there was no year 0
DAY = rf"{YEAR}-((0[13578]|1[02])-(0[1-9]|[12]\d|3[01])|(0[469]|11)-(0[1-9]|[12]\d|30)|02-(0[1-9]|1\d|2[0-8]))"
TIME = r"([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,6})?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)"
BYTE = r"(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
FORMATS = {
    "date": DAY,
    "time": TIME,
    "date-time": f"{DAY}T{TIME}",
    "uuid": r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    "ipv4": rf"{BYTE}(\.{BYTE}){{3}}",
    "email": r"[a-z0-9_]{1,32}([.+-][a-z0-9_]{1,32}){0,3}@([a-z0-9]{1,32}\.){1,3}[a-z]{2,16}",
}
Schema = Mapping[str, Any]
Trail = tuple[str, ...]  # the $refs that led here


def read_schema(schema: str | Schema | bool) -> Node:
    """JSON text that meets the schema, which is given as JSON or parsed."""
    if isinstance(schema, str):
        try:
            schema = json.loads(schema)
        except json.JSONDecodeError as error:
            raise UserError(f"json_schema: is no JSON ({error}); give a schema such as {{'type': 'object'}}") from error
    return _Reader(schema).value(schema, "", ())


class _Reader:
    def __init__(self, root: Any) -> None:
        self.root = root
        self.types: dict[str, Callable[[Schema, str, Trail], Node]] = {
            "string": self.string,
            "integer": self.integer,
            "number": self.number,
            "boolean": lambda schema, at, trail: self.only(schema, at) or either("true", "false"),
            "null": lambda schema, at, trail: self.only(schema, at) or language.text("null"),
            "array": self.array,
            "object": self.object,
        }

    def value(self, schema: Any, at: str, trail: Trail) -> Node:
        """at: where in the schema this is, for complaints."""
        if schema is True or schema == {}:
            return anything(FREE)
        if not isinstance(schema, Mapping):
            raise _wrong(at, f"{schema!r} admits nothing or is no schema; give an object such as {{'type': 'string'}}")
        said = {name: value for name, value in schema.items() if name not in NOTES | NAMES}
        for name, read_it in (("$ref", self.reference), ("const", self.const), ("enum", self.enum)):
            if name in said:
                return read_it(said, at, trail)
        for name in ("allOf", "anyOf", "oneOf"):
            if name in said:
                return self.choice(name, said, at, trail)
        return self.typed(said, at, trail)

    def typed(self, said: Schema, at: str, trail: Trail) -> Node:
        kinds = said.get("type", _implied(said))
        if kinds is None:
            raise _wrong(at, f"has {next(iter(said), 'nothing')!r} but no type; say which")
        several = [kinds] if isinstance(kinds, str) else list(kinds)
        for kind in several:
            if kind not in self.types:
                raise _wrong(at, f"type {kind!r} is unknown; {nearest(str(kind), self.types)}")
        rest = {name: value for name, value in said.items() if name != "type"}
        if len(several) > 1:  # what is said of strings is nothing to a number
            parts = [self.types[kind]({k: v for k, v in rest.items() if k in OWN[kind]}, at, trail) for kind in several]
            self.only({k: v for k, v in rest.items() if not any(k in OWN[kind] for kind in several)}, at)
            return Either(tuple(parts))
        return self.types[several[0]](rest, at, trail)

    def only(self, said: Schema, at: str, *known: str) -> Node | None:
        """None; UserError where there is more than is known."""
        for name in said:
            if name not in known:
                raise _wrong(at, f"{name!r} is a keyword that cannot be kept here; leave it out")
        return None

    # -- values

    def reference(self, said: Schema, at: str, trail: Trail) -> Node:
        self.only(said, at, "$ref")
        here, path = self.root, str(said["$ref"])
        if path in trail:
            raise _wrong(
                at, f"$ref {path!r} leads back to itself, and no regular language nests without end; unfold it"
            )
        for part in path.removeprefix("#").strip("/").split("/") if path != "#" else []:
            name = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(here, Mapping) or name not in here:
                raise _wrong(at, f"$ref {path!r} points nowhere; it may point into this schema only")
            here = here[name]
        return self.value(here, at, (*trail, path))

    def const(self, said: Schema, at: str, trail: Trail) -> Node:
        self.only(said, at, "const", "type")
        return written(said["const"])

    def enum(self, said: Schema, at: str, trail: Trail) -> Node:
        self.only(said, at, "enum", "type")
        if not said["enum"]:
            raise _wrong(at, "enum is empty and admits nothing; name a value")
        return Either(tuple(written(value) for value in said["enum"]))

    def choice(self, name: str, said: Schema, at: str, trail: Trail) -> Node:
        self.only(said, at, name)
        parts = said[name]
        if name == "allOf" and len(parts) > 1:
            raise _wrong(at, "allOf of several schemas cannot be kept; write them as one")
        if name == "oneOf" and not _apart(parts):
            raise _wrong(at, "oneOf has alternatives that one value may meet at once; use anyOf, or different types")
        return Either(tuple(self.value(part, f"{at}/{name}/{i}", trail) for i, part in enumerate(parts)))

    def string(self, said: Schema, at: str, trail: Trail) -> Node:
        if "pattern" in said:
            self.only(said, at, "pattern")
            return joined('"', found_anywhere(read(said["pattern"], f"json_schema{at}: pattern")), '"')
        if "format" in said:
            self.only(said, at, "format")
            if said["format"] not in FORMATS:
                raise _wrong(at, f"format {said['format']!r} is unknown; {nearest(str(said['format']), FORMATS)}")
            return joined('"', read(FORMATS[said["format"]]), '"')
        self.only(said, at, "minLength", "maxLength")
        return joined('"', Repeated(LETTER, *_counts(said, at, "minLength", "maxLength")), '"')

    def integer(self, said: Schema, at: str, trail: Trail) -> Node:
        self.only(said, at, "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
        lows = [said[name] + more for name, more in (("minimum", 0), ("exclusiveMinimum", 1)) if name in said]
        highs = [said[name] - less for name, less in (("maximum", 0), ("exclusiveMaximum", 1)) if name in said]
        low, high = max(lows, default=None), min(highs, default=None)
        if low is None and high is None:
            return INTEGER
        if any(bound is not None and bound != int(bound) for bound in (low, high)):
            raise _wrong(at, "the bounds of an integer are no integers; round them")
        if low is not None and high is not None and low > high:
            raise _wrong(at, f"there is no integer from {low} to {high}; widen the bounds")
        return between(None if low is None else int(low), None if high is None else int(high))

    def number(self, said: Schema, at: str, trail: Trail) -> Node:
        self.only(said, at)
        return NUMBER

    def array(self, said: Schema, at: str, trail: Trail) -> Node:
        self.only(said, at, "items", "prefixItems", "minItems", "maxItems")
        least, most = _counts(said, at, "minItems", "maxItems")
        first = [self.value(s, f"{at}/prefixItems/{i}", trail) for i, s in enumerate(said.get("prefixItems", []))]
        if most is not None:
            first = first[:most]
        items = said.get("items", least > len(first) or not first)
        rest = None if items is False else self.value(items, f"{at}/items", trail)
        if rest is None:
            if least > len(first):
                raise _wrong(at, f"minItems={least}, but there are {len(first)} items to choose from; lower it")
            most = len(first) if most is None else min(most, len(first))
        return joined("[", _listed(first, rest, least, most), "]")

    def object(self, said: Schema, at: str, trail: Trail) -> Node:
        self.only(said, at, "properties", "required", "additionalProperties")
        properties, required = said.get("properties", {}), set(said.get("required", ()))
        if missing := sorted(required - set(properties)):
            raise _wrong(at, f"{missing[0]!r} is required, but no property; describe it under properties")
        if not properties:
            return self._dictionary(said.get("additionalProperties", True), at, trail)
        written_out = {
            name: joined(written(name), COLON, self.value(schema, f"{at}/{name}", trail))
            for name, schema in properties.items()
        }
        return joined("{", _properties(written_out, required), "}")

    def _dictionary(self, value: Any, at: str, trail: Trail) -> Node:
        if value is False:
            return language.text("{}")
        pair = joined('"', Repeated(LETTER), '"', COLON, self.value(value, f"{at}/additionalProperties", trail))
        return joined("{", _listed([], pair, 0, None), "}")


OWN: dict[str, set[str]] = {
    "string": {"pattern", "format", "minLength", "maxLength"},
    "integer": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"},
    "number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"},
    "array": {"items", "prefixItems", "minItems", "maxItems", "uniqueItems"},
    "object": {"properties", "required", "additionalProperties"},
    "boolean": set(),
    "null": set(),
}


def _implied(said: Schema) -> str | None:
    """The type that the keywords are of; values of other types would meet them too, and are never written."""
    return next((kind for kind, own in OWN.items() if any(name in own for name in said)), None)


def _wrong(at: str, what: str) -> UserError:
    return UserError(f"json_schema{at}: {what}")


def _apart(parts: list[Any]) -> bool:
    """Whether no value meets two of them, as far as types and constants tell."""
    if all(isinstance(part, Mapping) and "const" in part for part in parts):
        values = [json.dumps(part["const"], sort_keys=True) for part in parts]
        return len(set(values)) == len(values)
    kinds = [part.get("type") if isinstance(part, Mapping) else None for part in parts]
    told = all(isinstance(kind, str) for kind in kinds) and len(set(kinds)) == len(kinds)
    return told and not {"integer", "number"} <= set(kinds)


def _counts(said: Schema, at: str, least: str, most: str) -> tuple[int, int | None]:
    low, high = said.get(least, 0), said.get(most)
    if high is not None and low > high:
        raise _wrong(at, f"{least}={low} is above {most}={high}; lower it")
    return low, high


def written(value: Any) -> Node:
    """A value that is known, as JSON with or without spaces."""
    if isinstance(value, Mapping):
        pairs = [joined(written(str(name)), COLON, written(one)) for name, one in value.items()]
        return joined("{", *_with_commas(pairs), "}")
    if isinstance(value, list):
        return joined("[", *_with_commas([written(one) for one in value]), "]")
    plain, escaped = json.dumps(value, ensure_ascii=False), json.dumps(value)
    return language.text(plain) if plain == escaped else either(plain, escaped)


def _with_commas(parts: list[Node]) -> list[Node]:
    return [joined(COMMA, part) if i else part for i, part in enumerate(parts)]


def _listed(first: list[Node], rest: Node | None, least: int, most: int | None) -> Node:
    """Parts with commas between them: `first` as far as they go, then `rest`; least to most in all."""
    out: Node = NOTHING
    if rest is not None and (most is None or most > len(first)):
        more = None if most is None else most - len(first)
        begins = 0 if first else 1
        again = Repeated(
            joined(COMMA, rest), max(least - len(first), begins) - begins, None if more is None else more - begins
        )
        out = again if first else joined(rest, again)
        if not first and least == 0:
            return optional(out)
    for i in reversed(range(len(first))):
        out = joined(COMMA if i else NOTHING, first[i], out)
        if i >= least:
            out = optional(out)
    return out


def _properties(pairs: dict[str, Node], required: set[str]) -> Node:
    """In order, with commas between those that are there."""
    names = list(pairs)
    lead = next((i for i, name in enumerate(names) if name in required), None)
    if lead is not None:
        before = [optional(joined(pairs[name], COMMA)) for name in names[:lead]]
        return joined(*before, pairs[names[lead]], *_after(names[lead + 1 :], pairs, required))
    starts = [joined(pairs[name], *_after(names[i + 1 :], pairs, required)) for i, name in enumerate(names)]
    return optional(Either(tuple(starts)))


def _after(names: list[str], pairs: dict[str, Node], required: set[str]) -> list[Node]:
    parts = [(name in required, joined(COMMA, pairs[name])) for name in names]
    return [part if needed else optional(part) for needed, part in parts]


def anything(levels: int) -> Node:
    """Any JSON value that is at most so many levels deep."""
    text = joined('"', Repeated(LETTER), '"')
    plain = either(text, NUMBER, "true", "false", "null")
    if levels == 0:
        return plain
    inner = anything(levels - 1)
    pair = joined(text, COLON, inner)
    return either(plain, joined("[", _listed([], inner, 0, None), "]"), joined("{", _listed([], pair, 0, None), "}"))


def found_anywhere(pattern: Node) -> Node:
    """A pattern of JSON schema may match any part of a string, unless it is tied to its ends. Characters that would
    have to be escaped are left out, and so is what is tied to an end inside a group only."""
    if isinstance(pattern, Joined) and len(pattern.parts) == 1:
        return found_anywhere(pattern.parts[0])
    if isinstance(pattern, Either):
        return Either(tuple(found_anywhere(part) for part in pattern.parts))
    rest = Repeated(Chars(language.complement(())))
    for end in (False, True):
        if _tied(pattern, end):
            pattern = _untied(pattern, end)
        else:
            pattern = joined(pattern, rest) if end else joined(rest, pattern)
    return every(pattern, lambda ranges: language.without(ranges, ESCAPED))


def _tied(node: Node, end: bool) -> bool:
    """Whether every text of it is tied to this edge of the string."""
    if isinstance(node, Edge):
        return node.end == end
    if isinstance(node, Joined) and node.parts:
        return _tied(node.parts[-end], end)
    return isinstance(node, Either) and all(_tied(part, end) for part in node.parts)


def _untied(node: Node, end: bool) -> Node:
    """Without the edges that tie it."""
    if isinstance(node, Either):
        return Either(tuple(_untied(part, end) for part in node.parts))
    if isinstance(node, Joined):
        parts = list(node.parts)
        parts[-end] = _untied(parts[-end], end)
        return Joined(tuple(parts))
    return NOTHING

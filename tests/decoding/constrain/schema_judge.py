"""Ten schemas, and a small judge of them that shares nothing with what is tested."""

from __future__ import annotations

import re
from typing import Any

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 6},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "email": {"type": "string", "pattern": "^[a-z]{1,4}@[a-z]{2}\\.de$"},
    },
    "required": ["name", "age"],
}
SCHEMAS: list[Any] = [
    {"type": "boolean"},
    {"type": ["integer", "null"]},
    {"enum": ["red", "grün", 3, None, {"a": [1, 2]}]},
    PERSON,
    {"type": "array", "items": {"type": "integer", "minimum": -20, "maximum": 105}, "minItems": 2, "maxItems": 5},
    {"type": "array", "prefixItems": [{"type": "string", "maxLength": 3}, {"type": "number"}], "items": False},
    {"anyOf": [{"type": "string", "format": "date"}, {"const": "never"}]},
    {
        "$defs": {"point": {"type": "object", "properties": {"x": {"type": "number"}, "y": {"type": "number"}}}},
        "type": "object",
        "properties": {"from": {"$ref": "#/$defs/point"}, "to": {"$ref": "#/$defs/point"}},
        "required": ["to"],
    },
    {"type": "object", "additionalProperties": {"type": "integer"}},
    {},
]
TYPES: dict[str, Any] = {
    "string": str, "integer": int, "number": (int, float), "boolean": bool, "array": list, "object": dict,
    "null": type(None),
}  # fmt: skip


def meets(schema: Any, value: Any, root: Any = None) -> bool:
    """JSON Schema, as far as the schemas above go."""
    root = schema if root is None else root
    if isinstance(schema, bool):
        return schema
    return all(_keeps(name, said, schema, value, root) for name, said in schema.items())


def _keeps(name: str, said: Any, schema: Any, value: Any, root: Any) -> bool:
    if name == "$ref":
        return meets(root["$defs"][said.rsplit("/", 1)[1]], value, root)
    if name == "type":
        kinds = [said] if isinstance(said, str) else said
        return any(isinstance(value, TYPES[k]) and (k == "boolean" or not isinstance(value, bool)) for k in kinds)
    if name in ("enum", "const"):
        return value in ([said] if name == "const" else said)
    if name == "anyOf":
        return any(meets(part, value, root) for part in said)
    if name == "format":
        return bool(re.fullmatch(r"\d{4}-\d\d-\d\d", value)) if isinstance(value, str) else True
    if name == "pattern":
        return not isinstance(value, str) or re.search(said, value) is not None
    if name in ("minimum", "minLength", "minItems", "maximum", "maxLength", "maxItems"):
        size = value if name.endswith("imum") else len(value)
        return bool(size >= said if name.startswith("min") else size <= said)
    if name == "required":
        return set(said) <= set(value)
    if name == "properties":
        return all(meets(said[key], one, root) for key, one in value.items() if key in said)
    if name == "additionalProperties":
        return all(meets(said, one, root) for key, one in value.items() if key not in schema.get("properties", {}))
    if name == "prefixItems":
        return all(meets(part, one, root) for part, one in zip(said, value))
    if name == "items":
        return all(meets(said, one, root) for one in value[len(schema.get("prefixItems", [])) :])
    return name == "$defs"

"""What a text must be: from OpenAI's `response_format` to settings. Knows no automaton."""

from __future__ import annotations

from typing import Any

from ..errors import UserError
from .schema import Texts


def constrained(asked: Texts) -> dict[str, Any]:
    """What the client has said of `Decoding`, its format included."""
    form = asked.response_format
    if form is None or form.type == "text":
        return asked.said
    for name in ("regex", "json_schema"):
        if name in asked.said:
            raise UserError(f"{name}: response_format says already what the text must be; drop one of the two")
    if form.type == "regex":
        return asked.said | {"regex": form.regex}
    schema = {"type": "object"} if form.json_schema is None else form.json_schema.schema_
    return asked.said | {"json_schema": schema}

"""What a text is asked for with, from Python, a recipe or the command line: the fields of `Decoding`, which stand there
alone, and what only a request knows. Checked as a whole, without a model."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, model_validator

from .decoding.settings import Decoding
from .errors import UserError
from .recipe import sentence

GAP = re.compile(r"<gap(?::(\d+))?>")
MOST_DIGITS = 9  # of a gap's size
KNOWN = {"eos_id", "vocabulary"}  # by the tokenizer: not for the user to say
Self = TypeVar("Self", bound="Request")


def _fields() -> dict[str, Any]:
    """Every field of `Decoding` but what the tokenizer knows."""
    hints = typing.get_type_hints(Decoding)
    return {f.name: (hints[f.name], f.default) for f in dataclasses.fields(Decoding) if f.name not in KNOWN}


class Request(BaseModel):
    """Made by `Generate.of` or `Fill.of`."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    seed: int = Field(default=0, ge=0, lt=2**63)
    preset: str | None = Field(
        default=None, description="a published way of writing, such as fast-dllm; the rest on top"
    )
    samples: int | None = Field(default=None, gt=0, lt=2**31, description="so many texts; text i gets seed + i")

    @classmethod
    def of(cls: type[Self], options: Mapping[str, Any]) -> Self:
        try:
            return cls(**options)
        except ValidationError as error:
            raise UserError(sentence(error, cls)) from error

    @model_validator(mode="after")
    def _can_be_done(self) -> Request:
        Decoding().saying({"eos_id": 0} | self.said)
        if max(self.seeds) >= 2**63:
            raise ValueError(f"seed={self.seed}: with samples={self.samples} it does not fit into 64 bits; use a less")
        return self

    @property
    def said(self) -> dict[str, Any]:
        """Of `Decoding`, what the user has said and no more: the model's own way of writing fills in the rest."""
        return {name: getattr(self, name) for name in (*DECODING, "preset") if name in self.model_fields_set}

    @property
    def seeds(self) -> range:
        """One for each text of a prompt."""
        return range(self.seed, self.seed + (self.samples or 1))


DECODING = _fields()
Asked: Any = create_model("Asked", __base__=Request, **DECODING)


class Generate(Asked):
    max_tokens: int | None = Field(default=None, gt=0, description="default 64, or what the context has room for")


class Fill(Asked):
    gap_tokens: int = Field(default=16, gt=0, description="of a <gap> that does not say")


def gaps(parts: Sequence[str], tokens: int | Sequence[int]) -> tuple[list[str], list[int]]:
    """Parts and gap sizes, from several parts or from one text with marks."""
    if len(parts) == 1:
        split = GAP.split(parts[0])
        parts, marked = split[::2], split[1::2]
    else:
        marked = [""] * (len(parts) - 1)
    if len(parts) < 2:
        raise UserError("fill: there is no gap; write <gap> or <gap:12> in the text, or give the parts around it")
    asked = [tokens] * len(marked) if isinstance(tokens, int) else list(tokens)
    if len(asked) != len(marked):
        raise UserError(f"tokens: {len(asked)} sizes for {len(marked)} gaps; give one a gap, or one number for all")
    if longest := next((mark for mark in marked if len(mark or "") > MOST_DIGITS), None):
        raise UserError(f"fill: <gap:{longest[:20]}> is longer than any context; use fewer tokens")
    sizes = [int(mark) if mark else size for mark, size in zip(marked, asked)]
    if min(sizes) < 1:
        raise UserError(f"tokens: a gap of {min(sizes)} tokens cannot be written; use 1 or more")
    return list(parts), sizes

"""What a family of published checkpoints is: its config.json read as ours, its tensor names beside ours, its facts.

Tables say where each of our tensors comes from; the same table read backwards exports. Nothing here reads a file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ...errors import UserError
from ..config import ModelConfig, RopeScaling


class Raw(dict[str, Any]):
    """A published config.json. A key that is needed and not there is the user's error, not a KeyError."""

    def __missing__(self, key: str) -> Any:
        raise UserError(f"config.json: {key!r} is missing; restore the file as it was published")

    def only(self, key: str, *allowed: Any) -> None:
        """UserError where a switch asks for what the transformer does not do. A missing or null key is fine."""
        value = self.get(key)
        if value is not None and value not in allowed:
            choices = " or ".join(map(repr, allowed)) or "null"
            raise UserError(f"config.json: {key}={value!r} is not supported, only {choices}; use another checkpoint")


@dataclass(frozen=True)
class Rows:
    """Rows start to stop of one of their tensors. turned: it is stored as (in, out), the transpose of ours."""

    name: str
    start: int = 0
    stop: int | None = None
    turned: bool = False


Source = str | Rows
Table = dict[str, Source | list[Source]]  # our module or parameter -> theirs, stacked by rows; see `transfer`


@dataclass(frozen=True)
class Facts:
    """What a checkpoint is written with. method: the way of diffusing text that it was trained for, as in a recipe.

    mask_id None: there is no mask among its tokens. pads: what padding on the left does in the published network: its
    keys are hidden and text keeps its columns as positions, or text counts from its first token. twice: rows of twice
    the context are a noisy text and the clean one behind it. tokenizer: where the tokens come from if the checkpoint
    has none of its own.
    """

    method: Mapping[str, Any]
    mask_id: int | None = None
    eos_id: int | None = None
    pads: Literal["hidden", "uncounted"] = "hidden"
    twice: bool = False
    tokenizer: str | None = None

    @property
    def block(self) -> int | None:
        """The blocks that it never looks beyond: 1 is left to right, None a bidirectional model."""
        size: int | None = self.method.get("size")
        return 1 if self.method["kind"] == "autoregressive" else size

    @property
    def shifted(self) -> bool:
        """Whether the output at i speaks of token i + 1."""
        return self.method["kind"] == "autoregressive" or bool(self.method.get("shifted"))


@dataclass(frozen=True)
class Family:
    """shape: their config.json -> ours; describe: backwards, all they need to run it; names: the table for a shape and
    the prefix that the file uses; prefixes: those to look for, the usual one first; buffers: a pattern of tensors that
    are no weights."""

    name: str
    architectures: tuple[str, ...]
    shape: Callable[[Raw], ModelConfig]
    describe: Callable[[ModelConfig], dict[str, Any]]
    names: Callable[[ModelConfig, str], Table]
    facts: Callable[[Raw], Facts]
    prefixes: tuple[str, ...] = ("",)
    buffers: str | None = None
    matches: Callable[[Raw], bool] = field(default=lambda raw: False)  # for configs that name no architecture


def first_id(value: Any) -> int | None:
    """An id that some configs give as a list."""
    return int(value[0]) if isinstance(value, list) else value


def rope_of(raw: Raw) -> dict[str, Any]:
    """Rotary switches of a Hugging Face config, in the form before and after transformers 5."""
    new = raw.get("rope_parameters") or {}
    scaling = raw.get("rope_scaling") or new
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind not in ("default", "llama3"):
        raise UserError(f"config.json: rope_type={kind!r} is not supported, only 'default' or 'llama3'")
    found: dict[str, Any] = {"rope_theta": float(raw.get("rope_theta", new.get("rope_theta", 10_000.0)))}
    if kind == "llama3":
        found["rope_scaling"] = RopeScaling(
            factor=scaling["factor"],
            low=scaling["low_freq_factor"],
            high=scaling["high_freq_factor"],
            original=scaling["original_max_position_embeddings"],
        )
    return found


def rope_to(c: ModelConfig) -> dict[str, Any]:
    s = c.rope_scaling
    scaling = s and {
        "rope_type": "llama3",
        "factor": s.factor,
        "low_freq_factor": s.low,
        "high_freq_factor": s.high,
        "original_max_position_embeddings": s.original,
    }
    return {"rope_theta": c.rope_theta, "rope_scaling": scaling}

"""What may be asked, as data. How a text is written is said by the fields of `Decoding`, which stand there alone; this
adds what OpenAI's interface has. Nothing is coerced: a number in quotes is an error, and so is an unknown field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator

from ..errors import nearest
from ..request import DECODING
from .settings import MiB

CALLABLES = {"guide"}  # fields of Decoding that are code, not data
SAMPLING: dict[str, Any] = {name: (hint | None, None) for name, (hint, _) in DECODING.items() if name not in CALLABLES}
MOST_STEPS = 4096  # steps cost time even where they need no pass

# Fields of OpenAI's that say nothing about the text; taken and not looked at.
IGNORED = (
    "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
    "parallel_tool_calls", "tool_choice", "function_call", "reasoning_effort", "verbosity", "best_of",
)  # fmt: skip
# Fields that would change the text and cannot here: taken where they change nothing.
NEUTRAL = (
    "frequency_penalty", "presence_penalty", "logit_bias", "tools", "functions", "modalities", "audio", "prediction",
    "web_search_options", "top_logprobs",
)  # fmt: skip
PLAIN: tuple[Any, ...] = (["text"], {}, [], 0, False, None)

Stop = Annotated[str, Field(min_length=1, max_length=256)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Count = Annotated[int, Field(gt=0, lt=2**31)]
Id = Annotated[int, Field(ge=0, lt=2**31)]


class Body(BaseModel):
    """A JSON object all of whose fields are known."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known(cls, said: Any) -> Any:
        unknown = next((name for name in said if name not in cls.model_fields), None) if type(said) is dict else None
        if unknown is not None:
            name = ascii(unknown)[1:-1][:40]
            raise ValueError(f"{name}: no such field; {nearest(name, cls.model_fields)}")
        return said


class StreamOptions(Body):
    include_usage: bool = False
    include_obfuscation: bool = False


class JsonSchema(Body):
    name: str = ""
    description: str | None = None
    strict: bool | None = None
    schema_: dict[str, Any] = Field(alias="schema")

    @model_validator(mode="before")
    @classmethod
    def _known(cls, said: Any) -> Any:
        return said  # by its alias; what is unknown is still forbidden


class ResponseFormat(Body):
    """What the text must be: any text, any JSON object, JSON of a schema, or what a regular expression matches."""

    type: Literal["text", "json_object", "json_schema", "regex"]
    json_schema: JsonSchema | None = None
    regex: Annotated[str, Field(min_length=1, max_length=MiB)] | None = None

    @model_validator(mode="after")
    def _complete(self) -> ResponseFormat:
        for kind in ("json_schema", "regex"):
            if (self.type == kind) != (getattr(self, kind) is not None):
                raise ValueError(f"response_format.{kind}: belongs to type {kind!r} and only there; give both or none")
        return self


class Request(Body):
    """What every way of writing may be asked for."""

    model: str | None = Field(default=None, description="the name that /v1/models tells; may be left out")
    preset: str | None = Field(default=None, description="a published way of writing, see /v1/presets; the rest on top")
    seed: Seed | None = Field(default=None, description="default drawn, and told in the answer")
    stream: bool | None = Field(default=False, description="server-sent events, whose text is never taken back")
    stream_options: StreamOptions | None = None
    diffusing: bool | None = Field(default=False, description="with stream: frames of the canvas, in the field unmask")

    @property
    def said(self) -> dict[str, Any]:
        """Of `Decoding`, and the preset: what the client has said, and no more."""
        values = {name: getattr(self, name) for name in (*SAMPLING, "preset")}
        return {name: value for name, value in values.items() if value is not None}

    @model_validator(mode="after")
    def _bounded(self) -> Request:
        for name in ("steps", "block_steps"):
            if (getattr(self, name) or 0) > MOST_STEPS:
                raise ValueError(f"{name}={str(getattr(self, name))[:20]} is too many; use {MOST_STEPS} or fewer")
        for name in ("rule", "quota", "revise", "grow", "cache", "guidance"):
            kind = getattr(self, name)
            kind = kind.get("kind") if isinstance(kind, Mapping) else kind
            if isinstance(kind, str) and ":" in kind:  # package.module:Class would run whatever it names
                raise ValueError(
                    f"{name}={kind[:40]!r} names code; over the network only what `unmask` has can be named"
                )
        return self


class _Neutral(Body):
    @model_validator(mode="after")
    def _neutral(self) -> _Neutral:
        for name in NEUTRAL:
            if getattr(self, name) not in PLAIN:
                raise ValueError(f"{name}: this server has no such thing; leave it out")
        return self


_IGNORED: Any = {name: (Any, Field(default=None, description="ignored")) for name in IGNORED}
_NEUTRAL: Any = {name: (Any, Field(default=None, description="has no effect here: empty or 0")) for name in NEUTRAL}
Asked: Any = create_model("Asked", __base__=Request, **SAMPLING)
Compatible: Any = create_model("Compatible", __base__=(Asked, _Neutral), **_IGNORED, **_NEUTRAL)


class Texts(Compatible):
    """Texts after a prompt."""

    max_tokens: Count | None = Field(default=None, description="new tokens; default the server's, see /v1/models")
    n: Count | None = Field(default=None, description="texts of a prompt; text i is what seed + i gives alone")
    stop: Stop | Annotated[list[Stop], Field(max_length=16)] | None = None
    response_format: ResponseFormat | None = None

    @property
    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or ())


class TextPart(Body):
    type: Literal["text"]
    text: str


class Turn(Body):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    name: str | None = Field(default=None, description="ignored")
    refusal: str | None = Field(default=None, description="ignored")
    tool_call_id: str | None = Field(default=None, description="ignored")

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class ChatRequest(Texts):
    messages: list[Turn] = Field(min_length=1)
    max_completion_tokens: Count | None = Field(default=None, description="the same as max_tokens")
    logprobs: bool | None = Field(default=False, description="the probability under which each token was settled")


class CompletionRequest(Texts):
    prompt: str | list[str] | list[Id] | list[list[Id]] = Field(default="", description="texts, or tokens")
    suffix: str | None = Field(default=None, description="what stands behind the new text")
    echo: bool | None = Field(default=False, description="give the prompt back before the text")
    logprobs: Literal[0, 1] | None = Field(default=None, description="the probability of each token, when settled")


class FimRequest(Texts):
    prompt: str
    suffix: str | None = None
    min_tokens: Count | None = Field(default=None, description="of what is in between; default 1")
    random_seed: Seed | None = Field(default=None, description="the same as seed")


class FillRequest(Asked):
    text: str = Field(description="with gaps: <gap>, <gap:8> (tokens), or <gap:4-12> (the length that fits best)")
    gap_tokens: Count = Field(default=16, description="of a <gap> that does not say")


class EditRequest(Asked):
    text: str
    spans: list[Annotated[list[Id], Field(min_length=2, max_length=2)]] | None = Field(
        default=None, description="[start, end) in characters, to reconsider"
    )
    share: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None,
        description="of the tokens, those the model is least sure of; default 0.2 where no spans are given",
    )

    @model_validator(mode="after")
    def _one_way(self) -> EditRequest:
        if self.spans is not None and self.share is not None:
            raise ValueError("share: spans say already what to reconsider; drop one of the two")
        return self

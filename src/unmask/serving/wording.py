"""What the wordings of the endpoints have in common. Knows no model."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from .writing import News, Said, Writing


@dataclass(frozen=True)
class Wording:
    """kind: the object's name, and that of a stream's chunks."""

    kind: ClassVar[str]
    chunk_kind: ClassVar[str]
    prefix: ClassVar[str]
    model: str
    logprobs: bool = False
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))

    def head(self, kind: str) -> dict[str, Any]:
        return {"id": f"{self.prefix}-{self.id}", "object": kind, "created": self.created, "model": self.model}

    def first(self, choice: int) -> dict[str, Any] | None:
        return None

    def chunk(self, choice: int, news: News) -> dict[str, Any]:
        return self.head(self.chunk_kind) | {"choices": [self.part(choice, news)]}

    def part(self, choice: int, news: News) -> dict[str, Any]:
        """A text's share of a chunk."""
        raise NotImplementedError

    def end(self, writing: Writing) -> dict[str, Any]:
        """What the chunk that ends the last text has besides."""
        return {}

    def last(self, writing: Writing) -> dict[str, Any]:
        return self.head(self.chunk_kind) | {"choices": []}

    def whole(self, writing: Writing) -> dict[str, Any]:
        raise NotImplementedError


class OneText(Wording):
    """Of an endpoint that gives a single text, whose last chunk has all that a whole answer has."""

    def chunk(self, choice: int, news: News) -> dict[str, Any]:
        return self.head(self.chunk_kind) | {"delta": news.text}

    def end(self, writing: Writing) -> dict[str, Any]:
        return self.whole(writing)


def spelt(said: Said) -> dict[str, Any]:
    """A token as chats tell it. What else might have stood there is not known: no alternatives."""
    return {"token": said.text, "logprob": said.logprob, "bytes": list(said.text.encode()), "top_logprobs": []}


def listed(said: Sequence[Said], offset: int = 0) -> dict[str, Any]:
    """Tokens as completions tell them; offset: where in the text the first begins."""
    begins = [offset + sum(len(one.text) for one in said[:i]) for i in range(len(said))]
    return {
        "tokens": [one.text for one in said],
        "token_logprobs": [one.logprob for one in said],
        "top_logprobs": None,
        "text_offset": begins,
    }

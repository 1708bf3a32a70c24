"""A request while it is being written: its texts as their client sees them, from the engine's events. Knows no HTTP and
no endpoint's wording."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..data.tokenizer import Tokenizer
from ..decoding.length import Finish, cut
from ..decoding.outcome import Decoded, Frame
from .engine import Drafted, Event, Failed, Job
from .errors import told
from .frames import Canvas, in_a_row
from .served import Order
from .settled import REPLACEMENT, Settled

LEAST = -9999.0  # the logarithm of nothing, as OpenAI writes it


@dataclass(frozen=True)
class Said:
    """A token of the answer, and the logarithm of the probability under which it was settled."""

    text: str
    logprob: float


@dataclass(frozen=True)
class News:
    """What an event means to the client. text: what has settled since; said: the tokens it is made of, if they were
    asked for; frame: what changed on the canvas, if that was; finish: why the text ends, if it does."""

    text: str = ""
    said: Sequence[Said] = ()
    frame: dict[str, Any] | None = None
    finish: Finish | None = None


class Choice:
    """One text. tokens, passes: what it took so far."""

    def __init__(self, order: Order, index: int, tokenizer: Tokenizer, *, logprobs: bool, watched: bool) -> None:
        row, start = order.rows[index], order.start[index]
        self.span = slice(start, len(row.tokens) - order.tail)
        self.end = None if row.infill else order.settings.eos_id
        self.tokenizer, self.logprobs = tokenizer, logprobs
        self.settled = Settled(tokenizer.decode, order.stops)
        pieces = in_a_row(tokenizer.pieces, tokenizer.decode)
        begins = row if order.settings.growth is None else row.beginning(0)  # how long it is, the first frame tells
        self.canvas = Canvas(begins, self.span, pieces, tokenizer.mask_id) if watched else None
        self.said: list[Said] = []
        self.tokens = self.passes = 0
        self.finish: Finish | None = None
        self.decoded: Decoded | None = None

    @property
    def text(self) -> str:
        return self.settled.text

    def drafted(self, frame: Frame) -> News:
        """What stands is everything before the first open position."""
        open = frame.open[self.span]
        ready = open.index(True) if True in open else len(open)
        tokens, _ = cut(frame.tokens[self.span][:ready], self.end)
        self.tokens, self.passes = len(tokens), frame.step + 1
        text = self.settled.grow(tokens)
        if self.settled.stopped:
            self.finish = "stop"
        shown = None if self.canvas is None else self.canvas.after(frame)
        return News(text, self._said(tokens, frame.confidence), shown, self.finish)

    def finished(self, decoded: Decoded) -> News:
        tokens, finish = cut(decoded.canvas[self.span], self.end)
        self.decoded, self.passes, self.tokens = decoded, decoded.counts.forwards, decoded.counts.written
        text = self.settled.grow(tokens, last=True)
        self.finish = "stop" if self.settled.stopped else finish
        return News(text, self._said(tokens, decoded.confidence), None, self.finish)

    def _said(self, tokens: Sequence[int], confidence: Sequence[float]) -> list[Said]:
        """The tokens whose text the client now has whole, from where it was told the last."""
        if not self.logprobs:
            return []
        begin = len(self.said)
        for end in range(begin + 1, len(tokens) + 1):
            if len(self.tokenizer.decode(tokens[:end]).rstrip(REPLACEMENT)) > len(self.text):
                break
            sure = confidence[self.span.start + end - 1]
            logprob = math.log(sure) if sure > 0 and math.isfinite(sure) else LEAST
            self.said.append(Said(self.tokenizer.pieces([tokens[end - 1]])[0], logprob))
        return self.said[begin:]


@dataclass
class Writing:
    """All texts of a request. Iterate once for (choice, news); `cancel` when nobody listens any more.

    When a text meets a stop string its row leaves the batch. first: told once when a text is "drafted", and once when
    one begins to be "settled"."""

    job: Job
    order: Order
    choices: list[Choice]
    first: Callable[[str], None] | None = None
    _seen: set[str] = field(default_factory=set)

    async def __aiter__(self) -> AsyncIterator[tuple[int, News]]:
        for index, choice in enumerate(self.choices):
            if choice.canvas is not None:
                yield index, News(frame=choice.canvas.blank())
        async for index, event in self.job:
            news = self._news(self.choices[index], event)
            if news.finish is not None and isinstance(event, Drafted):
                self.job.cancel(index)
            self._note(news)
            yield index, news

    async def finished(self) -> Writing:
        async for _ in self:
            pass
        return self

    def cancel(self) -> None:
        self.job.cancel()

    @property
    def whole(self) -> bool:
        return all(choice.finish is not None for choice in self.choices)

    @property
    def tokens(self) -> int:
        return sum(choice.tokens for choice in self.choices)

    @property
    def passes(self) -> int:
        return sum(choice.passes for choice in self.choices)

    def usage(self) -> dict[str, Any]:
        """forward_passes: that each text took part in, added up, so that it does not depend on who else was there."""
        return {
            "prompt_tokens": self.order.prompt_tokens,
            "completion_tokens": self.tokens,
            "total_tokens": self.order.prompt_tokens + self.tokens,
            "forward_passes": self.passes,
            "tokens_per_pass": round(self.tokens / self.passes, 3) if self.passes else 0.0,
        }

    def _news(self, choice: Choice, event: Event) -> News:
        if isinstance(event, Failed):
            self.cancel()
            raise told(event.error)
        return choice.drafted(event.frame) if isinstance(event, Drafted) else choice.finished(event.decoded)

    def _note(self, news: News) -> None:
        happened = {"drafted"} | ({"settled"} if news.text else set())
        for what in happened - self._seen:
            self._seen.add(what)
            if self.first is not None:
                self.first(what)

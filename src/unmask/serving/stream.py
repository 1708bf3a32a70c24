"""Answers: whole as JSON, or event by event (server-sent events), and in both cases given up as soon as the client is
gone. Knows no endpoint's wording: that is a `Wording`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from .errors import ApiError, told
from .schema import Request as Asked
from .served import Order
from .service import Service
from .wording import Wording
from .writing import News, Writing

DONE = b"data: [DONE]\n\n"
SHORT = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}


async def answer(request: Request, service: Service, order: Order, asked: Asked, wire: Wording) -> Response:
    stream, watched = bool(asked.stream), bool(asked.diffusing)
    writing = await service.begin(request, order, stream=stream, watched=watched, logprobs=wire.logprobs)
    if stream:
        apart = asked.stream_options is not None and asked.stream_options.include_usage
        return EventStream(_events(writing, wire, apart), writing, service)
    try:
        await _unless_gone(request, writing)
    finally:
        writing.cancel()
        service.over(writing)
    return JSONResponse(wire.whole(writing) | _closing(writing))


async def _events(writing: Writing, wire: Wording, apart: bool) -> AsyncIterator[bytes]:
    """The usage stands in the last chunk: in one of its own, or in that which ends the last text."""
    try:
        for index in range(len(writing.choices)):
            opening = wire.first(index)
            if opening is not None:
                yield event(opening)
        async for index, news in writing:
            if news != NOTHING:
                chunk = wire.chunk(index, news) | ({"unmask": news.frame} if news.frame is not None else {})
                if news.finish is not None and writing.whole:
                    chunk |= wire.end(writing) | ({} if apart else _closing(writing))
                yield event(chunk)
        if apart:
            yield event(wire.last(writing) | _closing(writing))
        yield DONE
    except Exception as error:
        yield event(told(error).body())


NOTHING = News()


def _closing(writing: Writing) -> dict[str, Any]:
    return {"usage": writing.usage(), "seed": writing.order.seed}


def event(data: dict[str, Any]) -> bytes:
    return b"data: " + SHORT.encode(data).encode("utf-8", "replace") + b"\n\n"


class EventStream(StreamingResponse):
    """Whatever ends it, the client's leaving too, ends the writing."""

    def __init__(self, content: AsyncIterator[bytes], writing: Writing, service: Service) -> None:
        super().__init__(content, media_type="text/event-stream", headers=HEADERS)
        self.writing, self.service = writing, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.writing.cancel()
            self.service.over(self.writing)


async def _unless_gone(request: Request, writing: Writing) -> None:
    """Until it is written, or nobody waits for it any more."""
    work = asyncio.ensure_future(writing.finished())
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise ApiError(499, "the client has closed the connection")
        work.result()
    finally:
        work.cancel()
        gone.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass

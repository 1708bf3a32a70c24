"""`unmask batch`: a file of requests through the server's own app, without a network between: many at a time, so that
they share passes. Every answer is what the endpoint would have sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.types import Message, Scope

from .app import ROUTERS, open_app
from .batch_file import METHOD, Answered, Answers, Asked, requests
from .errors import ApiError
from .settings import ServeOptions

ROUTES = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
URLS = [route.path for route in ROUTES if METHOD in (route.methods or ())]
AHEAD = 2  # requests under way for each row of the batch: as one ends, the next is there
PATIENT = {"waiting": 2**31, "timeout": 1e9, "body": 2**40, "api_key_file": None, "rate": None}  # nobody else is here


@dataclass(frozen=True)
class Tally:
    """total: requests; done: of them answered, now or before; refused: of those answered now, with an error."""

    total: int
    done: int
    refused: int = 0


def run(source: Path, target: Path, options: ServeOptions, tell: Callable[[Tally], None]) -> Tally:
    """Both files are checked before the model is loaded; with nothing left to do it is not loaded at all."""
    asked = requests(source, URLS)
    with Answers(target, asked) as answers:
        left = [one for one in asked if one.custom_id not in answers.done]
        tally = Tally(len(asked), len(asked) - len(left))
        if not left:
            return tally
        app = open_app(options.model_copy(update=PATIENT))
        return asyncio.run(_write(app, left, answers, options.rows * AHEAD, tally, tell))


async def _write(
    app: FastAPI, left: Sequence[Asked], answers: Answers, at_once: int, tally: Tally, tell: Callable[[Tally], None]
) -> Tally:
    async with app.router.lifespan_context(app):
        tell(tally)
        async for ready in _answered(app, left, at_once):
            answers.add(ready)
            refused = tally.refused + sum(not one.ok for one in ready)
            tally = Tally(tally.total, tally.done + len(ready), refused)
            tell(tally)
    return tally


async def _answered(app: FastAPI, left: Iterable[Asked], at_once: int) -> AsyncIterator[list[Answered]]:
    """Answers as they come; those that are ready together, together."""
    waiting = iter(left)
    going: set[asyncio.Task[Answered]] = set()
    while True:
        while len(going) < at_once and (one := next(waiting, None)) is not None:
            going.add(asyncio.create_task(ask(app, one)))
        if not going:
            return
        done, going = await asyncio.wait(going, return_when=asyncio.FIRST_COMPLETED)
        yield [task.result() for task in done]


async def ask(app: FastAPI, asked: Asked) -> Answered:
    """One request to the app (ASGI), as if it had come over a network."""
    if asked.body.get("stream"):
        refusal = ApiError(400, "stream: in a file answers are whole; leave it out", param="stream")
        return Answered(asked, refusal.status, refusal.body())
    sent = {"type": "http.request", "body": json.dumps(asked.body).encode(), "more_body": False}
    todo: list[Message] = [sent]
    came: list[Message] = []

    async def receive() -> Message:
        if not todo:
            await asyncio.Event().wait()  # nobody hangs up
        return todo.pop()

    async def send(message: Message) -> None:
        came.append(message)

    await app(_scope(asked.url), receive, send)
    content = b"".join(message.get("body", b"") for message in came)
    return Answered(asked, came[0]["status"], json.loads(content))


def _scope(path: str) -> Scope:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": METHOD,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"content-type", b"application/json")],
    }

"""What stands before every request: its key, its rate, its size, and the clock. Plain ASGI, so that nothing of a stream
is held up; knows no endpoint but by its path."""

from __future__ import annotations

import asyncio
import hmac
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import ApiError
from .metrics import Meters

PATIENCE = 30.0  # seconds for a body to arrive
LINGER = 64  # times the limit that is still read, and dropped, so that the client gets to hear the answer
MOST_CLIENTS = 10_000  # that are remembered at a time


@dataclass
class Rate:
    """A bucket for each client: so many requests a minute, as many at once after a pause."""

    minute: float
    _buckets: dict[str, tuple[float, float]] = field(default_factory=dict)

    def take(self, client: str, now: float) -> float:
        """0, or the seconds until the client may ask again."""
        most = max(1.0, self.minute)
        left, since = self._buckets.get(client, (most, now))
        left = min(most, left + (now - since) * self.minute / 60)
        if left < 1:
            return (1 - left) * 60 / self.minute
        if len(self._buckets) >= MOST_CLIENTS and client not in self._buckets:
            self._buckets.pop(next(iter(self._buckets)))
        self._buckets[client] = (left - 1, now)
        return 0.0


class Keys:
    """Hashes of the keys that are let in; none: everybody."""

    def __init__(self, hashes: Sequence[bytes]) -> None:
        self.hashes = hashes

    def owner(self, header: str) -> int | None:
        """Which key it is. Every key is compared, whole, so that the time it takes tells nothing."""
        kind, _, key = header.partition(" ")
        asked = sha256(key.strip().encode("utf-8", "surrogateescape")).digest()
        matches = [hmac.compare_digest(asked, known) for known in self.hashes]
        return matches.index(True) if any(matches) and kind.lower() == "bearer" else None


@dataclass
class Guard:
    app: ASGIApp
    keys: Keys
    meters: Meters
    body: int
    rate: Rate | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = scope["unmask.came"] = time.perf_counter()
        status = [500]

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                status[0] = message["status"]
            await send(message)

        try:
            await self._serve(scope, receive, watched)
        finally:
            route = scope.get("route")
            endpoint = getattr(route, "path", "other")
            self.meters.requests.labels(endpoint, str(status[0])).inc()
            self.meters.latency.labels(endpoint).observe(time.perf_counter() - began)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            scope["unmask.client"] = self._client(scope)
            if scope["method"] in ("POST", "PUT", "PATCH"):
                self._paced(scope["unmask.client"])
                receive = replayed(await whole_body(receive, self.body), receive)
        except ApiError as error:
            await refuse(error, send)
            return
        await self.app(scope, receive, send)

    def _client(self, scope: Scope) -> str:
        """Who asks: a key, or an address where none is needed."""
        if self.keys.hashes and scope["path"].startswith(("/v1", "/metrics")):
            headers = dict(scope["headers"])
            owner = self.keys.owner(headers.get(b"authorization", b"").decode("utf-8", "surrogateescape"))
            if owner is None:
                message = "api key: is missing or unknown; send the header Authorization: Bearer KEY"
                raise ApiError(401, message, code="invalid_api_key")
            return f"key {owner}"
        return str((scope.get("client") or ["unknown"])[0])

    def _paced(self, client: str) -> None:
        wait = self.rate.take(client, time.monotonic()) if self.rate is not None else 0.0
        if wait:
            seconds = math.ceil(wait)
            message = f"too many requests; try again in {seconds} s"
            raise ApiError(429, message, code="rate_limit_exceeded", retry_after=seconds)


async def whole_body(receive: Receive, most: int) -> bytes:
    """ApiError where it is larger, or does not come."""
    try:
        return await asyncio.wait_for(_read(receive, most), PATIENCE)
    except asyncio.TimeoutError:
        raise ApiError(408, f"body: has not arrived within {PATIENCE:g} s") from None


async def _read(receive: Receive, most: int) -> bytes:
    parts: list[bytes] = []
    size, more = 0, True
    while more and size <= most * LINGER:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ApiError(400, "body: is not whole; the connection was closed")
        size += len(message.get("body", b""))
        if size <= most:
            parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    if size > most:
        raise ApiError(413, f"body: is larger than {most:,} bytes; send less", code="request_too_large")
    return b"".join(parts)


def replayed(body: bytes, receive: Receive) -> Receive:
    """The body that was read, then whatever comes after it."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def refuse(error: ApiError, send: Send) -> None:
    headers = [(name.encode(), value.encode("latin-1")) for name, value in error.headers().items()]
    content = error.content()
    headers.append((b"content-length", str(len(content)).encode()))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": content})

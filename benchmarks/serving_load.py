"""The server under load: many streaming clients at once, every answer held against the same request alone.

    python benchmarks/serving_load.py --clients 200 --seconds 60

Starts `unmask serve` with the packaged model (or asks --address), writes every request of a pool alone first, then lets
the clients ask for them, at random, and compares. Prints lost and mixed-up answers, retracted text, tokens a second at
1, 16 and --clients clients, and what HTTP adds to a request's own passes (median and 95th percentile of short ones).

The clients read their sockets themselves: they share the processor with the server, and what a client library does with
a chunk is no part of it. Figures taken with such a library are not to be compared with these.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

PROMPTS = [
    "import ",
    "def main():\n    ",
    "class Reader:\n",
    "    return ",
    "# This module ",
    "for name in ",
    "try:\n    ",
]
WAYS: list[dict[str, Any]] = [
    {"steps": 8},
    {"rule": "entropy", "steps": 16},
    {"preset": "fast-dllm", "block": 8},
    {"temperature": 1.0, "block": 16},
    {"rule": "ancestral", "temperature": 1.0, "steps": 12},
]
Body = dict[str, Any]


@dataclass
class Tally:
    """done: answers that are right, with their tokens; wrong: what else became of requests."""

    done: int = 0
    tokens: int = 0
    wrong: Counter[str] = field(default_factory=Counter)

    @property
    def summary(self) -> str:
        wrong = ", ".join(f"{count} {what}" for what, count in self.wrong.items())
        return f"{self.done} answers, {wrong or 'none lost or mixed up'}"


def pool(size: int) -> list[Body]:
    """Requests that differ in everything: prompt, length, rule, steps, seed."""
    rng = random.Random(0)
    return [
        {
            "prompt": rng.choice(PROMPTS), "max_tokens": rng.choice([8, 16, 24, 32]), "seed": rng.randrange(1000),
            "stream": True, **rng.choice(WAYS),
        }
        for _ in range(size)
    ]  # fmt: skip


class Client:
    """One connection, one request at a time. ConnectionError where the server ends it, ValueError where it refuses."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        self.host, self.port = parts.hostname or "127.0.0.1", parts.port or 80
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def lines(self, method: str, path: str, body: Body | None = None) -> AsyncIterator[bytes]:
        """Of the answer, without those of the protocol."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(self.host, self.port)
        reader, writer = self._streams
        content = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nhost: {self.host}\r\ncontent-type: application/json\r\n"
        writer.write(f"{head}content-length: {len(content)}\r\n\r\n".encode() + content)
        whole = False
        try:
            status, length = await self._head(reader)
            async for line in _chunked(reader) if length is None else _lines(await reader.readexactly(length)):
                if status != 200:
                    raise ValueError(line.decode())
                yield line
            whole = True
        finally:
            if not whole:
                writer.close()
                self._streams = None

    @staticmethod
    async def _head(reader: asyncio.StreamReader) -> tuple[int, int | None]:
        """Status, and the length of the body where it is known beforehand."""
        first, *fields = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        length = [int(field[15:]) for field in fields if field.lower().startswith(b"content-length:")]
        return int(first.split()[1]), length[0] if length else None


async def _lines(body: bytes) -> AsyncIterator[bytes]:
    for line in body.splitlines():
        yield line


async def _chunked(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """The server sends whole lines in a chunk."""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        for line in (await reader.readexactly(size + 2)).splitlines():
            if line:
                yield line
    await reader.readexactly(2)


async def answer(client: Client, body: Body) -> tuple[str, int]:
    """The text of a stream, and how many tokens it is."""
    text, tokens, last = "", 0, b""
    async for last in client.lines("POST", "/v1/completions", body):
        if last.startswith(b"data: {"):
            chunk = json.loads(last.removeprefix(b"data: "))
            text += "".join(choice["text"] for choice in chunk.get("choices", []))
            tokens = chunk.get("usage", {}).get("completion_tokens", tokens)
    if last != b"data: [DONE]":
        raise ConnectionError(f"the answer ends early: {last.decode()}")
    return text, tokens


async def one_client(client: Client, asked: list[Body], alone: list[str], end: float, seed: int, to: Tally) -> None:
    rng = random.Random(seed)
    while time.monotonic() < end:
        number = rng.randrange(len(asked))
        try:
            text, tokens = await answer(client, asked[number])
        except (asyncio.IncompleteReadError, OSError, ValueError) as error:
            to.wrong[f"{type(error).__name__}: {str(error)[:60]}"] += 1
            continue
        if text == alone[number]:
            to.done, to.tokens = to.done + 1, to.tokens + tokens
        else:
            to.wrong["mixed up" if text in alone else "other than alone"] += 1


async def load(address: str, asked: list[Body], alone: list[str], clients: int, seconds: float) -> float:
    """Tokens a second of right answers."""
    tally, began = Tally(), time.monotonic()
    end = began + seconds
    await asyncio.gather(*(one_client(Client(address), asked, alone, end, seed, tally) for seed in range(clients)))
    rate = tally.tokens / (time.monotonic() - began)
    print(f"{clients:4d} clients: {rate:8.1f} tokens/s, {tally.summary}", flush=True)
    return rate


async def overhead(client: Client, count: int) -> tuple[float, float]:
    """Milliseconds beside the passes, median and 95th percentile of requests for a single token, one at a time."""
    body = {"prompt": "import ", "max_tokens": 1, "seed": 0}
    beside = []
    for _ in range(count):
        before = await stepping(client)
        began = time.perf_counter()
        async for _ in client.lines("POST", "/v1/completions", body):
            pass
        took = time.perf_counter() - began
        beside.append(1000 * (took - (await stepping(client) - before)))
    return statistics.median(beside), statistics.quantiles(beside, n=20)[-1]


async def stepping(client: Client) -> float:
    """Seconds that the server has spent in steps."""
    found = [line async for line in client.lines("GET", "/metrics") if line.startswith(b"unmask_step_seconds_sum ")]
    assert found, "the server measures its steps"
    return float(found[0].split()[1])


@contextmanager
def server(address: str | None, words: list[str]) -> Iterator[str]:
    """The one at an address, or one of its own."""
    if address is not None:
        yield address
        return
    command = [sys.executable, "-m", "unmask.cli", "serve", "--port", "0", "--dtype", "fp32", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().split(" at ")[1].strip()
    finally:
        process.terminate()
        process.wait()


async def main(options: argparse.Namespace, address: str) -> None:
    client, asked = Client(address), pool(options.pool)
    median, most = await overhead(client, 100)
    print(f"HTTP adds {median:.1f} ms (median), {most:.1f} ms (95th percentile)", flush=True)
    alone = [(await answer(client, body))[0] for body in asked]
    single = await load(address, asked, alone, 1, options.seconds / 3)
    several = await load(address, asked, alone, 16, options.seconds / 3)
    print(f"16 clients: {several / single:.1f} times one at a time", flush=True)
    await load(address, asked, alone, options.clients, options.seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", help="of a server that runs, in fp32")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--pool", type=int, default=40, help="different requests")
    parser.add_argument("words", nargs="*", help="for `unmask serve`: rows=64 ...")
    told = parser.parse_args()
    with server(told.address, told.words) as there:
        asyncio.run(main(told, there))

"""The server under load: many streaming clients at once, every answer held against the same request alone.

    python benchmarks/serving_load.py --clients 200 --seconds 60

Starts `unmask serve` with the packaged model (or asks --address), writes every request of a pool alone first, then lets
the clients ask for them, at random, and compares. Prints lost and mixed-up answers, retracted text, tokens a second at
1, 16 and --clients clients, and what HTTP adds to a request's own passes (95th percentile of short requests).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

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


async def pieces(client: httpx.AsyncClient, body: Body) -> AsyncIterator[dict[str, Any]]:
    async with client.stream("POST", "/v1/completions", json=body) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if line == "data: [DONE]":
                return
            if line:
                yield json.loads(line.removeprefix("data: "))
    raise httpx.RemoteProtocolError("the answer ends early")


async def answer(client: httpx.AsyncClient, body: Body) -> tuple[str, int]:
    """The text of a stream, and how many tokens it is."""
    text, tokens = "", 0
    async for chunk in pieces(client, body):
        if "error" in chunk:
            raise ValueError(chunk["error"]["message"])
        text += "".join(choice["text"] for choice in chunk["choices"])
        tokens = chunk.get("usage", {}).get("completion_tokens", tokens)
    return text, tokens


async def one_client(
    client: httpx.AsyncClient, asked: list[Body], alone: list[str], end: float, seed: int, to: Tally
) -> None:
    rng = random.Random(seed)
    while time.monotonic() < end:
        number = rng.randrange(len(asked))
        try:
            text, tokens = await answer(client, asked[number])
        except (httpx.HTTPError, ValueError) as error:
            to.wrong[f"{type(error).__name__}: {str(error)[:60]}"] += 1
            continue
        if text == alone[number]:
            to.done, to.tokens = to.done + 1, to.tokens + tokens
        else:
            to.wrong["mixed up" if text in alone else "other than alone"] += 1


async def load(client: httpx.AsyncClient, asked: list[Body], alone: list[str], clients: int, seconds: float) -> float:
    """Tokens a second of right answers."""
    tally, began = Tally(), time.monotonic()
    end = began + seconds
    await asyncio.gather(*(one_client(client, asked, alone, end, seed, tally) for seed in range(clients)))
    rate = tally.tokens / (time.monotonic() - began)
    print(f"{clients:4d} clients: {rate:8.1f} tokens/s, {tally.summary}", flush=True)
    return rate


async def overhead(client: httpx.AsyncClient, count: int) -> float:
    """Milliseconds beside the passes, 95th percentile of requests for a single token, one at a time."""
    body = {"prompt": "import ", "max_tokens": 1, "seed": 0}
    beside = []
    for _ in range(count):
        before = await stepping(client)
        began = time.perf_counter()
        (await client.post("/v1/completions", json=body)).raise_for_status()
        took = time.perf_counter() - began
        beside.append(1000 * (took - (await stepping(client) - before)))
    return statistics.quantiles(beside, n=20)[-1]


async def stepping(client: httpx.AsyncClient) -> float:
    """Seconds that the server has spent in steps."""
    found = re.search(r"^unmask_step_seconds_sum (\S+)", (await client.get("/metrics")).text, re.MULTILINE)
    assert found is not None, "the server measures its steps"
    return float(found[1])


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
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(base_url=address, timeout=600, limits=limits) as client:
        asked = pool(options.pool)
        print(f"HTTP adds {await overhead(client, 100):.1f} ms (95th percentile)", flush=True)
        alone = [(await answer(client, body))[0] for body in asked]
        single = await load(client, asked, alone, 1, options.seconds / 3)
        several = await load(client, asked, alone, 16, options.seconds / 3)
        print(f"16 clients: {several / single:.1f} times one at a time", flush=True)
        await load(client, asked, alone, options.clients, options.seconds)


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

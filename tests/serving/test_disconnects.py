"""Clients that go away: their rows leave within a step, and nothing of them stays."""

import ctypes
import gc
import random
import socket
import time

import httpx
import pytest


def leave(server, rng):
    """Ask for something long, and be gone at some moment."""
    body = {"prompt": "a", "max_tokens": 80, "n": rng.randint(1, 3), "stream": rng.random() < 0.6}
    if rng.random() < 0.2:  # in the middle of the request
        with socket.create_connection(server.socket.getsockname()) as raw:
            raw.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 999\r\n\r\n{")
        return
    try:
        with httpx.stream(
            "POST", f"{server.address}/v1/completions", json=body, timeout=rng.uniform(0.02, 0.3)
        ) as response:
            end = time.monotonic() + rng.uniform(0.0, 0.3)
            for _ in response.iter_raw():
                if time.monotonic() > end:
                    break
    except httpx.TimeoutException:
        pass


def some(server, count, seed):
    rng = random.Random(seed)
    kept = server.ask("/v1/completions", prompt="stay", max_tokens=40, seed=1, temperature=1.0)
    for number in range(count):
        leave(server, rng)
        if number % 10 == 5:  # who stays is not touched
            again = server.ask("/v1/completions", prompt="stay", max_tokens=40, seed=1, temperature=1.0)
            assert again["choices"] == kept["choices"]
    server.settles()
    batch = server.service.engine._batch
    assert (len(batch), batch.slots_taken) == (0, 0)


def test_who_goes_leaves_nothing(server):
    some(server, 10, seed=0)


@pytest.mark.slow
def test_many_who_go_leave_no_memory(server):
    some(server, 300, seed=1)  # by then kernels of all shapes are made: pages grow until then, and measured no longer
    before = resident()
    some(server, 100, seed=2)
    assert resident() < 1.02 * before


def resident():
    """Pages in use, without what is only waiting to be used again."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/statm", encoding="ascii") as status:
        return int(status.read().split()[1])

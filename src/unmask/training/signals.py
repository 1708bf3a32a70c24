"""Ctrl-C and a scheduler's SIGTERM, heard without breaking off what is being done."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def heard(asked: Callable[[], None]) -> Iterator[None]:
    """Call `asked` at the first signal; a second one leaves at once, as a KeyboardInterrupt."""
    caught: list[int] = []

    def stop(number: int, frame: Any) -> None:
        if caught:
            raise KeyboardInterrupt
        caught.append(number)
        asked()

    try:
        old = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: no signals to take over
        old = {}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)

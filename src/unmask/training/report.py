"""What a run tells, gathered: the live line, the metrics file, the trackers, its speed and share of the peak."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol

from .progress import TRACKERS, Display, MetricsFile, Record, clock
from .work import Work


class Sink(Protocol):
    def write(self, record: Record) -> None: ...
    def close(self) -> None: ...


class Report:
    """Use it in a `with`: that gives the terminal back and ends the trackers, so that a next run can have them.

    silent: a process that is not the first writes nothing and shows nothing.
    """

    def __init__(
        self, folder: Path, work: Work, bytes_per_token: float, *, title: str, quiet: bool, silent: bool
    ) -> None:
        self.folder, self.work, self.bytes_per_token = folder, work, bytes_per_token
        self.silent, self.display = silent, Display(title, quiet=quiet or silent)
        self.sinks: list[Sink] = []
        self.since = (time.perf_counter(), 0)

    def __enter__(self) -> Report:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.display.close()
        self.work.close()
        for sink in self.sinks:
            sink.close()

    def begin(self, step: int, tokens: int, trackers: Sequence[str]) -> None:
        """Measurements begin here; of what a killed run wrote beyond this step, nothing stays."""
        self.work.measure_peak()
        if not self.silent:
            self.sinks.append(MetricsFile(self.folder / "metrics.jsonl", step))
            self.sinks += [TRACKERS[name](self.folder) for name in trackers]
        self.since = (time.perf_counter(), tokens)

    def say(self, message: str) -> None:
        self.display.say(message)

    def pace(self, loss: float, tokens: int, length: int) -> Record:
        """Loss and speed since the last call. tokens: of all processes; the share of the peak is this process's own.
        The bytes are the corpus's mean a token; a validation counts its own."""
        now = (time.perf_counter(), tokens)
        seconds, seen = max(now[0] - self.since[0], 1e-9), now[1] - self.since[1]
        self.since = now
        return {
            "loss": loss,
            "bits_per_byte": loss / math.log(2) / self.bytes_per_token,
            "tokens_per_second": round(seen / seconds, 1),
            "peak_share": round(self.work.take(length) / seconds / self.work.peak, 4),
        }

    def write(self, record: Record, progress: float) -> None:
        for sink in self.sinks:
            sink.write(record)
        self.display.show(progress, _line(record, progress))


def _line(record: Record, progress: float) -> str:
    left = record["seconds"] * (1 / max(progress, 1e-9) - 1)
    parts = [f"step {record['step']}"]
    if "loss" in record:
        parts += [f"loss {record['loss']:.3f}", f"{record['bits_per_byte']:.3f} bits/byte"]
        parts += [f"{record['tokens_per_second']:,.0f} tokens/s", f"{record['peak_share']:.0%} of peak"]
    if "valid_bits_per_byte" in record:
        parts.append(f"valid {record['valid_bits_per_byte']:.3f} bits/byte")
    return ", ".join([*parts, f"{clock(left)} left"])

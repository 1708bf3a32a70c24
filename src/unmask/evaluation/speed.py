"""How fast texts are written, by several writers that take turns in one process. Knows no preset and no table.

A busy machine moves tokens a second, but hardly the ratio of two that run in turn; so every round lets each writer
write once, and medians are reported.
"""

from __future__ import annotations

import ctypes
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import torch
from torch import Tensor

from ..decoding.canvas import Row
from ..decoding.sampler import Sampler
from ..decoding.settings import Decoding
from ..denoiser import Denoiser
from ..models.transformer import Transformer
from ..noise.process import Process

Prompts = Sequence[Sequence[int]]
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")  # of Linux: memory in use, and its high mark


@dataclass(frozen=True)
class Work:
    """forwards: network passes; queries: tokens fed in them; flops: useful floating point operations of the matrix
    products, head and last layer only where an output is wanted."""

    forwards: int = 0
    queries: int = 0
    flops: float = 0.0


def prompts_of(symbols: Tensor, rows: int, length: int, seed: int = 0) -> list[list[int]]:
    """Random texts of the symbols (K,), the same for all who are timed."""
    rng = torch.Generator().manual_seed(seed)
    found: list[list[int]] = symbols[torch.randint(0, len(symbols), (rows, length), generator=rng)].tolist()
    return found


class Writer(Protocol):
    """Whoever is timed."""

    @property
    def n_bytes(self) -> int:
        """Of the weights."""
        ...

    def write(self, prompts: Prompts, length: int) -> tuple[list[list[int]], Work]:
        """Up to `length` new tokens after each prompt, without the end of a text and what stands behind it."""
        ...


class Diffusion:
    """Our sampler as a writer."""

    def __init__(self, denoiser: Denoiser, process: Process, settings: Decoding, seed: int = 0) -> None:
        self.sampler, self.seed = Sampler(denoiser, process, settings), seed

    @property
    def n_bytes(self) -> int:
        return sum(p.nbytes for p in self.sampler.denoiser.network.parameters())

    def write(self, prompts: Prompts, length: int) -> tuple[list[list[int]], Work]:
        before = self.sampler.counts
        with counted(self.sampler.denoiser.network) as operations:
            done = self.sampler([Row.after(prompt, length, self.seed + i) for i, prompt in enumerate(prompts)])
        counts = self.sampler.counts
        forwards, queries = counts.forwards - before.forwards, counts.queries - before.queries
        return [one.tokens for one in done], Work(forwards, queries, sum(operations))


@contextmanager
def counted(network: Transformer) -> Iterator[list[float]]:
    """Useful operations of every pass inside. A query counts against the whole row, as is usual (PaLM, arXiv
    2204.02311, appendix B), cached or not."""
    passes: list[float] = []

    @cache  # counting the weights takes longer than a small pass
    def bounds(length: int) -> tuple[int, int]:
        return network.matmul_flops(length, 0.0), network.matmul_flops(length, 1.0)

    def saw(_: torch.nn.Module, given: tuple[Any, ...], named: Mapping[str, Any], hidden: Tensor) -> None:
        rows, length = given[0].shape[:2]
        feed = named.get("feed")
        fed, asked = rows * length if feed is None else int(feed.sum()), hidden.shape[:-1].numel()
        least, most = bounds(length)
        passes.append(fed * least + asked * (most - least))

    hook = network.register_forward_hook(saw, with_kwargs=True)
    try:
        yield passes
    finally:
        hook.remove()


@dataclass(frozen=True)
class Speed:
    """texts: what was written; seconds: of the median round; memory: bytes of the weights and the most that
    writing took on top, None where the system does not say."""

    texts: list[list[int]]
    seconds: float
    work: Work
    memory: int | None

    @property
    def tokens(self) -> int:
        return sum(map(len, self.texts))

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds

    @property
    def tokens_per_pass(self) -> float:
        """Of one text, on average."""
        return self.tokens / max(len(self.texts) * self.work.forwards, 1)

    def share(self, peak: float) -> float:
        """Of the machine's peak (FLOP/s) in one large matrix product."""
        return self.work.flops / self.seconds / peak


def race(
    writers: Sequence[Writer], prompts: Prompts, length: int, device: torch.device, rounds: int = 1
) -> list[Speed]:
    """Each writer's speed. They warm up with a short text, then take turns."""
    for writer in writers:
        writer.write(prompts, min(length, 2))
    laps = [[_lap(writer, prompts, length, device) for writer in writers] for _ in range(rounds)]
    return [_middle([lap[i] for lap in laps]) for i in range(len(writers))]


def _lap(writer: Writer, prompts: Prompts, length: int, device: torch.device) -> Speed:
    memory = Memory(device)
    start = time.perf_counter()
    texts, work = writer.write(prompts, length)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    seconds = time.perf_counter() - start
    grown = memory.grown()
    return Speed(texts, seconds, work, None if grown is None else writer.n_bytes + grown)


def _middle(laps: Sequence[Speed]) -> Speed:
    known = [lap.memory for lap in laps if lap.memory is not None]
    return replace(laps[0], seconds=median(lap.seconds for lap in laps), memory=max(known, default=None))


class Memory:
    """The most memory in use since this was made, above what was in use then: the GPU's, or the process's own."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self.start = torch.cuda.memory_allocated(device)
        else:
            self.known = _forget_the_most()
            self.start = _resident("VmRSS") if self.known else 0

    def grown(self) -> int | None:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) - self.start
        return max(_resident("VmHWM") - self.start, 0) if self.known else None


def _forget_the_most() -> bool:
    """Give freed memory back and begin the high mark anew; whether this system can."""
    if not sys.platform.startswith("linux"):
        return False
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc
        trim(0)
    try:
        CLEAR.write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def _resident(name: str) -> int:
    """A line of the process's status, in bytes."""
    found = re.search(rf"{name}:\s+(\d+) kB", STATUS.read_text(encoding="ascii"))
    return int(found[1]) << 10 if found else 0

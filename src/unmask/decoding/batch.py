"""Rows in progress on one model, each written by settings of its own. Rows join and leave between steps.

A step is one pass of the network for all of them, wherever each of them is, and then every row moves. What a row
becomes does not depend on the rows beside it: its random numbers are its own, and so is the order in which its sums
are taken. Rows with equal settings move together (`lane`); rows of all lanes are fed together (`context.predict`).
Rows that speculate have passes of their own, as what they open and close is no block of the text (`speculating`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, islice

import torch

from ..denoiser import Denoiser
from ..errors import UserError
from ..models.attention import CausalContext, block_size
from ..models.prefixes import Prefixes
from ..noise.process import Process
from .by_blocks import ByBlocks
from .canvas import Canvas, Row
from .context import predict
from .growth import check_rows
from .lane import Lane
from .outcome import Counts, Decoded, Frame, frames
from .settings import FORWARD, SPECULATING, Decoding
from .shadows import Shadowed
from .speculating import Speculating


class NoRoom(Exception):
    """The slots of a batch are taken: wait until a row is done, or leaves, and join then."""


@dataclass(frozen=True)
class Step:
    """done: the rows that are written now, by ticket; counts: of this step; moved: the rows as its pass left them;
    drafted: how those look that speculate, until the next step."""

    done: dict[int, Decoded]
    counts: Counts
    moved: Sequence[Canvas]
    process: Process
    drafted: Sequence[Callable[[], list[Frame]]] = ()

    @cached_property
    def frames(self) -> tuple[Frame, ...]:
        """The rows that took part, each called by its ticket. Made when asked for: they are lists."""
        shown = [frames(canvas, self.process.read(canvas.x)) for canvas in self.moved]
        return tuple(chain(*shown, *(look() for look in self.drafted)))


@dataclass(frozen=True)
class _Joined:
    row: Row
    clock: float  # of the batch when it joined


class Batch:
    """The model is put into evaluation mode: nothing of it may change while rows are in progress. slots: most positions
    that caches keep keys and values of, None: no bound. prefixes: where exact caches look for prompts that begin alike,
    and leave their own; of this model alone."""

    def __init__(
        self, denoiser: Denoiser, process: Process, *, slots: int | None = None, prefixes: Prefixes | None = None
    ) -> None:
        self.denoiser, self.process, self.slots = denoiser.eval() if denoiser.training else denoiser, process, slots
        self.prefixes = prefixes
        self._lanes: list[Lane | Speculating] = []
        self._rows: dict[int, _Joined] = {}
        self._tickets = 0
        self._clock = 0.0  # seconds of all passes so far

    def __len__(self) -> int:
        """Rows in progress."""
        return len(self._rows)

    @property
    def slots_taken(self) -> int:
        return sum(lane.slots for lane in self._lanes)

    def join(self, row: Row, settings: Decoding) -> int:
        """A ticket for the row. UserError where it or the settings do not fit the model, NoRoom for the time being; the
        batch is as it was then."""
        return self.join_all([row], settings)[0]

    @torch.inference_mode()
    def check(self, rows: Sequence[Row], settings: Decoding) -> None:
        """The same refusals, room apart, and nothing joins."""
        self._lane(rows, settings).check(rows)

    @torch.inference_mode()
    def join_all(self, rows: Sequence[Row], settings: Decoding) -> range:
        """The same for rows that begin together; their caches are one."""
        lane = self._lane(rows, settings)
        lane.check(rows)
        self._check_room(lane.slots_for(rows))
        tickets = range(self._tickets, self._tickets + len(rows))
        lane.join(rows, tickets)
        self._tickets = tickets.stop
        self._rows |= {ticket: _Joined(row, self._clock) for ticket, row in zip(tickets, rows)}
        if len(lane) and lane not in self._lanes:
            self._lanes.append(lane)
        return tickets

    @torch.inference_mode()
    def leave(self, ticket: int) -> None:
        """The row is not wanted any more: it and its memory are gone at once. A row that is done has left already."""
        if ticket in self._rows:
            self._leave([ticket])

    @torch.inference_mode()
    def step(self) -> Step:
        """One pass for all rows in progress. Rows that have nothing to write are done without."""
        done, began = self._written(), time.perf_counter()
        shared = [lane for lane in self._lanes if isinstance(lane, Lane)]
        counts = sum((_pass(lanes) for lanes in _by_network(shared)), Counts())
        drafted = []
        for lane in self._lanes:
            if isinstance(lane, Speculating):
                own, found, look = lane.step()
                counts, done = counts + own, done | found
                drafted.append(look)
        moved = [lane.canvas for lane in shared]
        counts = replace(counts, seconds=time.perf_counter() - began)
        self._clock += counts.seconds
        self._leave([ticket for ticket in done if ticket in self._rows])
        done |= self._written()
        written = sum(text.counts.written for text in done.values())
        return Step(done, replace(counts, written=written), moved, self.process, drafted)

    def _lane(self, rows: Sequence[Row], settings: Decoding) -> Lane | Speculating:
        """Where rows with these settings are, or will be."""
        denoiser = self.denoiser
        if isinstance(denoiser.rule, CausalContext) and settings.kind not in (None, FORWARD, SPECULATING):
            denoiser, settings = self._by_blocks, replace(settings, cache=settings.cache or "none")
        if settings.shadows:
            denoiser = self._shadowed
        check(rows, denoiser)
        settings = settings.for_model(denoiser, max((row.n_open for row in rows), default=0))
        check_rows(settings.growth, rows)
        for lane in self._lanes:
            if lane.denoiser is denoiser and lane.settings == settings:
                return lane
        if settings.kind == SPECULATING:
            return Speculating(denoiser, settings)
        return Lane(denoiser, self.process, settings, self.prefixes)

    @cached_property
    def _by_blocks(self) -> ByBlocks:
        """A joint model that writes its blocks with the rules of block models."""
        return ByBlocks(self.denoiser)

    @cached_property
    def _shadowed(self) -> Shadowed:
        """A model that reads again what may still be taken back."""
        return Shadowed(self.denoiser)

    def _check_room(self, wanted: int) -> None:
        if self.slots is None:
            return
        if wanted > self.slots:
            raise UserError(f"tokens: the row needs {wanted} slots of a cache with {self.slots}; ask for fewer tokens")
        if wanted > self.slots - self.slots_taken:
            raise NoRoom(f"{self.slots_taken} of {self.slots} slots are taken, {wanted} are needed")

    def _written(self) -> dict[int, Decoded]:
        """The rows of lanes that have nothing left to write; they leave."""
        done = {}
        for lane in self._lanes:
            if isinstance(lane, Lane):
                for i in lane.written():
                    ticket = int(lane.canvas.row[i])
                    joined = self._rows[ticket]
                    done[ticket] = lane.decoded(i, joined.row, self._clock - joined.clock)
        self._leave(list(done))
        return done

    def _leave(self, tickets: Sequence[int]) -> None:
        if tickets:
            for ticket in tickets:
                del self._rows[ticket]
            for lane in self._lanes:
                lane.leave(tickets)
            self._lanes = [lane for lane in self._lanes if len(lane)]


def _by_network(lanes: Sequence[Lane]) -> list[list[Lane]]:
    """Those that can share a pass; a joint model that reads by blocks is fed otherwise than one that reads on."""
    networks = list(dict.fromkeys(lane.denoiser for lane in lanes))
    return [[lane for lane in lanes if lane.denoiser is network] for network in networks]


def _pass(lanes: Sequence[Lane]) -> Counts:
    """One pass of a network for all rows of the lanes, and what follows from it."""
    looks = [lane.looks() for lane in lanes]
    said = iter(predict(lanes[0].denoiser, list(chain.from_iterable(looks))))
    fed = [lane.move(shown, list(islice(said, len(shown)))) for lane, shown in zip(lanes, looks)]
    return Counts(forwards=1, queries=sum(fed))


def check(rows: Sequence[Row], denoiser: Denoiser) -> None:
    """UserError where the model cannot write a row."""
    size = block_size(denoiser.rule)
    for i, row in enumerate(rows):
        wrong = [token for token in row.tokens if not 0 <= token < denoiser.vocab]
        if wrong:
            raise UserError(f"prompt {i}: token {wrong[0]} is not in the model's vocabulary of {denoiser.vocab}")
        if size is not None and row.n_open:
            unseen = (row.open.index(True) // size + 1) * size
            if not all(row.open[unseen:]):
                raise UserError(
                    f"prompt {i}: has a gap that this model, which never looks ahead, would fill without seeing the "
                    f"text from position {unseen} on; use a bidirectional model"
                )

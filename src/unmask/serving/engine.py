"""The thread that owns the batch. Requests come from an event loop and go back to it; between them lies one lock.

A job is the rows of one request. They join the batch as room comes free, each at a step of its own, share its passes
with the rows of others, and leave when they are written, cancelled or out of time. What a row becomes depends on its
settings and its seed alone, which also makes errors harmless: rows that shared a failed step simply begin again.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from ..decoding.batch import Batch, NoRoom, Step
from ..decoding.canvas import Row
from ..decoding.outcome import Decoded, Frame
from ..decoding.settings import Decoding
from .errors import ApiError
from .turns import Turns

if TYPE_CHECKING:
    from .metrics import Meters

LOG = logging.getLogger("unmask.serving")
Found = TypeVar("Found")


@dataclass(frozen=True)
class Drafted:
    """A row after a pass."""

    frame: Frame


@dataclass(frozen=True)
class Finished:
    """A row that is written."""

    decoded: Decoded


@dataclass(frozen=True)
class Failed:
    """A row that will not be written, and why."""

    error: BaseException


Event = Drafted | Finished | Failed
ENDS = (Finished, Failed)


class Job:
    """The rows of one request: iterate over it, in the event loop that submitted it, for (row, event) until every row
    has ended. `cancel` may be called at any time."""

    def __init__(self, engine: Engine, rows: int) -> None:
        self._engine, self._loop = engine, asyncio.get_running_loop()
        self._events: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()
        self._going = set(range(rows))
        self.parts: list[Part] = []

    async def __aiter__(self) -> AsyncIterator[tuple[int, Event]]:
        while self._going:
            row, event = await self._events.get()
            if row not in self._going:
                continue  # cancelled meanwhile
            if isinstance(event, ENDS):
                self._going.discard(row)
            yield row, event

    def cancel(self, row: int | None = None) -> None:
        """One row, or all that are left: they leave before the next step."""
        leaving = {row} & self._going if row is not None else set(self._going)
        self._going -= leaving
        self._engine.cancel([self.parts[i] for i in leaving])

    def deliver(self, row: int, event: Event) -> None:
        self._events.put_nowait((row, event))


@dataclass(eq=False)
class Part:
    """A row on its way. seen: passes that its watcher knows; anew: it has begun again after a step that failed."""

    job: Job
    index: int
    row: Row
    settings: Decoding
    watch: bool
    client: str
    deadline: float
    ticket: int | None = None
    seen: int = 0
    passes: int = 0
    anew: bool = False


@dataclass
class Engine:
    """batch: makes an empty one. rows: most rows in the batch; waiting: most rows beside it; timeout: seconds."""

    batch: Callable[[], Batch]
    rows: int = 64
    waiting: int = 512
    timeout: float = 300.0
    meters: Meters | None = None
    _turns: Turns[Part] = field(default_factory=Turns)
    _writing: dict[int, Part] = field(default_factory=dict)
    _held: list[Part] = field(default_factory=list)  # whose turn it is, but the caches are full
    _leaving: list[Part] = field(default_factory=list)
    _calls: list[tuple[Callable[[], Any], Future[Any]]] = field(default_factory=list)
    _outbox: list[tuple[Part, Event]] = field(default_factory=list)
    _closing: float | None = None  # no new rows; those that run end by this time

    def __post_init__(self) -> None:
        self._wake = threading.Condition()
        self._batch = self.batch()
        self._thread = threading.Thread(target=self._work, name="unmask engine", daemon=True)

    # -- from the event loop

    def start(self) -> None:
        self._thread.start()

    @property
    def ready(self) -> bool:
        return self._thread.is_alive() and self._closing is None

    def __len__(self) -> int:
        """Rows in the batch and waiting."""
        return len(self._writing) + len(self._held) + len(self._turns)

    def submit(
        self, rows: Sequence[Row], settings: Decoding, *, watch: bool = False, client: str = "", age: float = 0.0
    ) -> Job:
        """ApiError 429 where too many wait, 503 where the server is ending. age: seconds the request has taken."""
        job = Job(self, len(rows))
        deadline = time.monotonic() + self.timeout - age
        job.parts = [Part(job, i, row, settings, watch, client, deadline) for i, row in enumerate(rows)]
        with self._wake:
            if not self.ready:
                raise ApiError(503, "the server is shutting down; try again later", retry_after=5)
            if len(self) + len(rows) > self.rows + self.waiting:
                raise ApiError(
                    429,
                    f"{len(self._turns)} texts are waiting already; try again in a moment",
                    code="queue_full",
                    retry_after=1,
                )
            for part in job.parts:
                self._turns.add(client, part)
            self._wake.notify()
        return job

    async def between_steps(self, call: Callable[[], Found]) -> Found:
        """What the call returns, made on the engine's thread: whoever asks the network does it there."""
        answer: Future[Found] = Future()
        with self._wake:
            if not self.ready:
                raise ApiError(503, "the server is shutting down; try again later", retry_after=5)
            self._calls.append((call, answer))
            self._wake.notify()
        return await asyncio.wrap_future(answer)

    def cancel(self, parts: Sequence[Part]) -> None:
        with self._wake:
            self._leaving += [part for part in parts if not self._turns.drop(part.client, part)]
            self._wake.notify()

    def drain(self, seconds: float) -> None:
        """Take nothing new; what is not written by then ends with an error."""
        with self._wake:
            self._closing = min(self._closing or float("inf"), time.monotonic() + seconds)
            self._wake.notify()

    def stop(self) -> None:
        """End what runs, and the thread."""
        self.drain(0.0)
        if self._thread.is_alive():
            self._thread.join()

    # -- the thread

    def _work(self) -> None:
        while self._prepared():
            if self._writing:
                self._step()
            self._send()
            if self._closing is not None and self._closing <= time.monotonic():
                self._end()
                self._send()

    def _prepared(self) -> bool:
        """Waits for something to do, then lets rows leave and join. False: there is nothing left to do, for good."""
        with self._wake:
            while not (len(self) or self._leaving or self._calls):
                if self._closing is not None:
                    return False
                self._wake.wait()
            leaving, self._leaving = self._leaving, []
            calls, self._calls = self._calls, []
            room = self.rows - len(self._writing) - len(self._held)
            self._held += [self._turns.next() for _ in range(min(room, len(self._turns)))]
        for part in leaving:
            self._leave(part)
        for call, answer in calls:
            _answer(call, answer)
        self._overdue()
        self._admit()
        self._measure()
        return True

    def _admit(self) -> None:
        """Rows of one request begin together, as far as their turns allow: they share what they can."""
        held, self._held = self._held, []
        for job in dict.fromkeys(part.job for part in held):
            parts = [part for part in held if part.job is job]
            if self._held or not self._joined(parts):  # nobody overtakes a row that waits for room
                self._held += parts

    def _joined(self, parts: Sequence[Part]) -> bool:
        """False: there is no room for them now."""
        try:
            tickets = self._batch.join_all([part.row for part in parts], parts[0].settings)
        except NoRoom:
            return False
        except Exception as error:  # whatever it is, it is theirs
            self._fail(parts, error)
        else:
            for part, ticket in zip(parts, tickets):
                part.ticket, part.passes = ticket, 0
                self._writing[ticket] = part
        return True

    def _fail(self, parts: Sequence[Part], error: Exception) -> None:
        for part in parts:
            self._tell(part, Failed(error))

    def _leave(self, part: Part) -> None:
        if part in self._held:
            self._held.remove(part)
        if part.ticket is not None and self._writing.pop(part.ticket, None) is not None:
            self._batch.leave(part.ticket)

    def _overdue(self) -> None:
        now = time.monotonic()
        late = [part for part in [*self._writing.values(), *self._held] if part.deadline < now]
        for part in late:
            self._leave(part)
        message = f"the answer took more than {self.timeout:g} seconds; ask for fewer tokens or steps"
        self._fail(late, ApiError(408, message, code="timeout"))

    def _step(self) -> None:
        together = len(self._writing)
        began = time.perf_counter()
        try:
            step = self._batch.step()
        except Exception as error:
            LOG.exception("a step of %d rows failed", together)
            self._recover(error)
            return
        if self.meters is not None:
            self.meters.step.observe(time.perf_counter() - began)
            self.meters.rows.observe(together)
            self.meters.passes.inc(step.counts.forwards)
        self._publish(step)

    def _publish(self, step: Step) -> None:
        for part in self._writing.values():
            part.passes += 1
        if any(part.watch for part in self._writing.values()):
            for frame in step.frames:
                part = self._writing[frame.row]
                if part.watch and frame.step >= part.seen:  # not again what it knew before it began anew
                    part.seen = frame.step + 1
                    self._tell(part, Drafted(frame))
        for ticket, decoded in step.done.items():
            done = self._writing.pop(ticket, None)
            if done is not None:
                self._tell(done, Finished(decoded))

    def _recover(self, error: Exception) -> None:
        """Nobody knows what a step that raised has left behind, so the batch goes. A row that was alone in it, or has
        begun again before, was at fault or may have been; the others begin again in a new one, one at a time until they
        are past where it happened, and only those that get there stay."""
        if self.meters is not None:
            self.meters.failed_steps.inc()
        parts = list(self._writing.values())
        self._writing, self._batch = {}, self.batch()
        for part in parts:
            cause = error if part.anew or len(parts) == 1 else self._fault_of(part)
            if cause is not None:
                self._fail([part], cause)
            else:
                part.anew = True
                self._held.append(part)

    def _fault_of(self, part: Part) -> Exception | None:
        """What happens to a row alone, from its beginning to past the pass that it shared."""
        alone = self.batch()
        try:
            alone.join(part.row, part.settings)
            for _ in range(part.passes + 1):
                if len(alone):
                    alone.step()
        except Exception as error:
            return error
        return None

    def _end(self) -> None:
        with self._wake:
            waiting = [self._turns.next() for _ in range(len(self._turns))]
        ended = [*self._writing.values(), *self._held, *waiting]
        for part in ended:
            self._leave(part)
        self._fail(ended, ApiError(503, "the server is shutting down; try again later", retry_after=5))

    def _tell(self, part: Part, event: Event) -> None:
        self._outbox.append((part, event))

    def _send(self) -> None:
        """All that a step has to tell, in one call into each event loop."""
        outbox, self._outbox = self._outbox, []
        for loop in {part.job._loop for part, _ in outbox}:
            mine = [(part, event) for part, event in outbox if part.job._loop is loop]
            try:
                loop.call_soon_threadsafe(_deliver, mine)
            except RuntimeError:  # the loop has ended, and nobody waits for this any more
                LOG.info("%d events of a loop that has ended are lost", len(mine))

    def _measure(self) -> None:
        if self.meters is not None:
            self.meters.waiting.set(len(self._turns) + len(self._held))
            self.meters.writing.set(len(self._writing))


def _deliver(events: Sequence[tuple[Part, Event]]) -> None:
    for part, event in events:
        part.job.deliver(part.index, event)


def _answer(call: Callable[[], Found], answer: Future[Found]) -> None:
    if not answer.set_running_or_notify_cancel():
        return
    try:
        answer.set_result(call())
    except Exception as error:
        answer.set_exception(error)

"""Rows in progress that a joint model drafts and checks (`speculate`): beside other rows, in passes of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..denoiser import Denoiser
from .canvas import Row
from .length import cut
from .outcome import Counts, Decoded
from .settings import Decoding
from .speculate import Speculated, ends_only, speculation

NOTHING = Speculated([], [], [], [], [], 0, 0.0)


@dataclass
class _Together:
    """Rows that joined together and share their passes. left: tickets of those that are not written yet."""

    tickets: Sequence[int]
    rows: Sequence[Row]
    passes: Iterator[tuple[int, dict[int, Speculated]]]
    slots: int
    left: set[int]


class Speculating:
    """Rows with the same settings. A step is one pass for each time that rows joined."""

    def __init__(self, denoiser: Denoiser, settings: Decoding) -> None:
        self.denoiser, self.settings = denoiser, settings
        self._together: list[_Together] = []
        self._written: dict[int, Decoded] = {}  # rows that have nothing to write
        self._speculation = speculation(denoiser, settings)

    def __len__(self) -> int:
        return len(self._written) + sum(len(some.left) for some in self._together)

    @property
    def slots(self) -> int:
        """Positions that keys and values are kept of."""
        return sum(some.slots for some in self._together)

    def slots_for(self, rows: Sequence[Row]) -> int:
        """How many more if these rows join."""
        return len(rows) * (1 + max((len(row.tokens) for row in rows), default=0) + self._speculation.ahead)

    def check(self, rows: Sequence[Row]) -> None:
        ends_only(rows)

    def join(self, rows: Sequence[Row], tickets: Sequence[int]) -> None:
        self._written |= {at: self._decoded(row, NOTHING) for row, at in zip(rows, tickets) if not row.n_open}
        mine = [(row, ticket) for row, ticket in zip(rows, tickets) if row.n_open]
        if mine:
            prompts = [row.tokens[: len(row.tokens) - row.n_open] for row, _ in mine]
            passes = self._speculation.passes(prompts, [row.n_open for row, _ in mine], [row.seed for row, _ in mine])
            next(passes)  # up to the first pass
            some, own = [row for row, _ in mine], [ticket for _, ticket in mine]
            self._together.append(_Together(own, some, passes, self.slots_for(some), set(own)))

    def leave(self, tickets: Sequence[int]) -> None:
        """Their memory is given back with that of the last that joined with them."""
        self._written = {ticket: one for ticket, one in self._written.items() if ticket not in tickets}
        for some in self._together:
            some.left -= set(tickets)
        self._together = [some for some in self._together if some.left]

    def step(self) -> tuple[Counts, dict[int, Decoded]]:
        """One pass each, and the rows that are written."""
        counts, done = Counts(), dict(self._written)
        for some in self._together:
            fed, found = next(some.passes)
            counts += Counts(forwards=1, queries=fed)
            done |= {some.tickets[i]: self._decoded(some.rows[i], said) for i, said in found.items()}
        return counts, {ticket: one for ticket, one in done.items() if ticket in self}

    def __contains__(self, ticket: object) -> bool:
        return ticket in self._written or any(ticket in some.left for some in self._together)

    def _decoded(self, row: Row, said: Speculated) -> Decoded:
        given, rest = len(row.tokens) - row.n_open, row.n_open - len(said.tokens)
        tokens, finish = cut(said.tokens, self.settings.eos_id)
        return Decoded(
            tokens=tokens,
            canvas=[*row.tokens[:given], *said.tokens, *[self.denoiser.mask_id] * rest],
            settled_at=[*[-1] * given, *said.passes, *[-1] * rest],
            confidence=[*[1.0] * given, *said.sure, *[0.0] * rest],
            finish_reason=finish,
            counts=Counts(len(said.drafted), said.queries, len(tokens), said.seconds),
            drafts=list(zip(said.drafted, said.accepted)),
        )

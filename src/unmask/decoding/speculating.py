"""Rows in progress that a joint model drafts and checks (`speculate`): beside other rows, in passes of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ..denoiser import Denoiser
from .canvas import Row
from .length import cut
from .outcome import Counts, Decoded, Frame
from .settings import Decoding
from .speculate import Cycle, Speculated, ends_only, speculation

NOTHING = Speculated([], [], [], [], [], [], 0, 0.0)


@dataclass
class _Together:
    """Rows that joined together and share their passes. now: how they stand; left: tickets of those that are not
    written yet."""

    tickets: Sequence[int]
    rows: Sequence[Row]
    passes: Iterator[Cycle]
    now: Cycle
    slots: int
    left: set[int]

    def frames(self, mask_id: int, eos_id: int | None) -> list[Frame]:
        """What is guessed is open, like the masks behind it."""
        return [self._frame(i, row, mask_id, eos_id) for i, row in enumerate(self.now.texts.row.tolist())]

    def _frame(self, i: int, row: int, mask_id: int, eos_id: int | None) -> Frame:
        texts, draft, total = self.now.texts, self.now.draft, len(self.rows[row].tokens)
        given, begin, end = (int(length[i]) - 1 for length in (texts.prompt, self.now.before, texts.length))
        tokens, guesses = texts.tokens[i, 1 : 1 + end].tolist(), draft.tokens[i].tolist()
        ended = eos_id is not None and eos_id in tokens[given:]
        if eos_id is not None and ended:
            end, guesses = tokens.index(eos_id, given) + 1, []
        sure = [*texts.sure[i, 1 : 1 + end].tolist(), *draft.sure[i][: len(guesses)]]
        stands = min(end, total)
        tokens = [*tokens[:end], *guesses]
        return Frame(
            row=self.tickets[row],
            step=self.now.passes[i] - 1,
            tokens=[*tokens, *[mask_id] * total][:total],
            open=[False] * stands + [not ended] * (total - stands),
            settled=[begin <= at < stands for at in range(total)],
            confidence=[*sure, *[0.0] * total][:total],
        )


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
            some, own = [row for row, _ in mine], [ticket for _, ticket in mine]
            self._together.append(_Together(own, some, passes, next(passes), self.slots_for(some), set(own)))

    def leave(self, tickets: Sequence[int]) -> None:
        """Their memory is given back with that of the last that joined with them."""
        self._written = {ticket: one for ticket, one in self._written.items() if ticket not in tickets}
        for some in self._together:
            some.left -= set(tickets)
        self._together = [some for some in self._together if some.left]

    def step(self) -> tuple[Counts, dict[int, Decoded], Callable[[], list[Frame]]]:
        """One pass each, the rows that are written, and how all of them look until the next."""
        counts, done = Counts(), dict(self._written)
        for some in self._together:
            some.now = next(some.passes)
            counts += Counts(forwards=1, queries=some.now.fed)
            done |= {some.tickets[i]: self._decoded(some.rows[i], said) for i, said in some.now.done.items()}
        together, left = list(self._together), {ticket for some in self._together for ticket in some.left}

        def frames() -> list[Frame]:
            shown = (frame for some in together for frame in some.frames(self.denoiser.mask_id, self.settings.eos_id))
            return [frame for frame in shown if frame.row in left]

        return counts, {ticket: one for ticket, one in done.items() if ticket in self}, frames

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
            drafts=said.checks,
        )

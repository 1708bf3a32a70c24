"""What comes back from writing: texts, what they cost, and how they looked on the way. Knows no network and no rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from .canvas import Canvas
from .length import Finish


@dataclass(frozen=True)
class Counts:
    """forwards: network passes; queries: tokens the network was fed in them, which is no padding; written: tokens given
    back to the user, so neither the end of text nor what stands behind it."""

    forwards: int = 0
    queries: int = 0
    written: int = 0
    seconds: float = 0.0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.forwards + other.forwards,
            self.queries + other.queries,
            self.written + other.written,
            self.seconds + other.seconds,
        )


@dataclass(frozen=True)
class Decoded:
    """tokens: the new text up to its end, or the whole row where gaps were filled. canvas: every position, the mask
    where nothing was written behind the end. settled_at: the pass of this row, from 0, that wrote a position, -1 if
    none. confidence: the model's probability of what it wrote there, 1 where given, 0 where nothing is written.
    counts: of the passes this row took part in; its seconds are those of these passes. exact: no cache gave the network
    an older text to look at than the one it wrote on. drafts: where it speculated, the guesses of each cycle, how many
    of them stayed, and how many of these had been looked up in the text."""

    tokens: list[int]
    canvas: list[int]
    settled_at: list[int]
    confidence: list[float]
    finish_reason: Finish
    counts: Counts
    exact: bool = True
    drafts: Sequence[tuple[int, int, int]] = ()


@dataclass(frozen=True)
class Frame:
    """One row after a pass. row: its index among the prompts, or its ticket in a batch; step: the pass, from 0; open:
    still to be written; settled: written in this pass; confidence: as in Decoded. inserted: how the row grew after the
    pass, the position before which open ones were put in, and how many; the frame shows them."""

    row: int
    step: int
    tokens: list[int]
    open: list[bool]
    settled: list[bool]
    confidence: list[float]
    inserted: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Event:
    """After each pass: the rows that took part, as they stand now, and the totals so far."""

    frames: tuple[Frame, ...]
    counts: Counts


Observer = Callable[[Event], None]


def frames(canvas: Canvas, text: Tensor) -> tuple[Frame, ...]:
    """text (B, W): what the states read as."""
    settled = canvas.settled_at == (canvas.passes - 1)[:, None]
    shown = [part.tolist() for part in (text, canvas.pending, settled, canvas.sure)]
    each = zip(*map(Tensor.tolist, (canvas.row, canvas.passes, canvas.length, canvas.inserted)))
    found = []
    for i, (row, passes, length, (at, count)) in enumerate(each):
        tokens, open, fresh, sure = (part[i][:length] for part in shown)
        found.append(Frame(row, passes - 1, tokens, open, fresh, sure, inserted=(at, count)))
    return tuple(found)

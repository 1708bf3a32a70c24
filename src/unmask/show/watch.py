"""Text that appears in the terminal, pass by pass. Knows frames and pieces; no model, tokenizer or file."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

if TYPE_CHECKING:
    from ..decoding.sampler import Counts, Event, Frame

Pieces = Callable[[Iterable[int]], list[str]]
MASK, MASK_STYLE, GIVEN_STYLE, NOISE_STYLE = "░░", "bright_black", "dim", "bright_black"
FADE = ("bold bright_cyan", "bright_cyan", "cyan")  # of a token 0, 1, 2 passes after it was written


@dataclass
class Written:
    """One row as it stands. since: the pass in which each position last changed."""

    frame: Frame
    given: list[bool]
    since: list[int]

    @classmethod
    def begin(cls, frame: Frame, mask_id: int) -> Written:
        before = zip(frame.open, frame.settled, frame.tokens)
        given = [not (open or settled or token == mask_id) for open, settled, token in before]
        return cls(frame, given, [frame.step] * len(given))

    def then(self, frame: Frame) -> Written:
        (at, count), step = frame.inserted, frame.step
        old, given, since = list(self.frame.tokens), list(self.given), list(self.since)
        old[at:at], given[at:at], since[at:at] = frame.tokens[at : at + count], [False] * count, [step] * count
        new = zip(since, old, frame.tokens, frame.settled)
        return Written(frame, given, [step if settled or was != token else at for at, was, token, settled in new])


@dataclass
class Watcher:
    """An observer that draws on a terminal, and elsewhere does nothing. Use it in a `with`: that leaves the text there.

    delay: seconds to wait after each pass, so that a quick model can be seen. special_ids: tokens that are drawn dim
    and are not in the text that stays.
    """

    pieces: Pieces
    mask_id: int
    delay: float = 0.0
    special_ids: Collection[int] = ()
    console: Console = field(default_factory=Console)

    def __post_init__(self) -> None:
        self.rows: dict[int, Written] = {}
        self.counts: Counts | None = None
        self.display: Live | None = None
        self.done = False

    @property
    def live(self) -> bool:
        """Whether it has drawn: then the text is on the screen and need not be printed again."""
        return bool(self.rows)

    def __enter__(self) -> Watcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __call__(self, event: Event) -> None:
        if not self.console.is_terminal:
            return
        if self.display is None:
            self._begin()
        for frame in event.frames:
            before = self.rows.get(frame.row)
            self.rows[frame.row] = before.then(frame) if before else Written.begin(frame, self.mask_id)
        self.counts = event.counts
        self._draw()
        time.sleep(self.delay)

    def close(self) -> None:
        """Draw the text a last time, whole and plain, and give the terminal back."""
        if self.display is not None:
            self.done = True
            self._draw()
            self.display.stop()
            self.display = None

    def _begin(self) -> None:
        self.rows, self.done = {}, False
        self.display = Live(console=self.console, auto_refresh=False, transient=False)
        self.display.start()

    def _draw(self) -> None:
        assert self.display is not None, "nothing to draw on before the first event"
        self.display.update(self, refresh=True)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = self._lines(console, options.max_width)
        yield from lines if self.done else self._window(lines, max(1, console.height - 2))
        yield self._footer(options.max_width)

    def _lines(self, console: Console, width: int) -> list[Text]:
        lines: list[Text] = []
        for row, written in sorted(self.rows.items()):
            if len(self.rows) > 1:
                lines.append(Text(f"[{row}]", style="dim"))
            lines += self._text(written).wrap(console, width, overflow="fold")
        return lines

    def _window(self, lines: list[Text], height: int) -> list[Text]:
        """What fits on the screen, from a little above the first mask."""
        first = next((i for i, line in enumerate(lines) if MASK in line.plain), len(lines))
        start = max(0, min(first - height // 3, len(lines) - height))
        return lines[start : start + height]

    def _text(self, written: Written) -> Text:
        text = Text()
        for i, piece in enumerate(self.pieces(written.frame.tokens)):
            text.append(*self._token(written, i, piece))
        return text

    def _token(self, written: Written, i: int, piece: str) -> tuple[str, str]:
        """What is seen of a position, and its style."""
        token, open = written.frame.tokens[i], written.frame.open[i]
        if token == self.mask_id:
            return (MASK, MASK_STYLE) if open and not self.done else ("", "")
        if token in self.special_ids:
            return ("", "") if self.done else (printable(piece), GIVEN_STYLE)
        if written.given[i] or open:
            return printable(piece), GIVEN_STYLE if written.given[i] else NOISE_STYLE
        age = written.frame.step - written.since[i]
        return printable(piece), FADE[age] if age < len(FADE) and not self.done else ""

    def _footer(self, width: int) -> Text:
        assert self.counts is not None, "a footer before the first event"
        frames = [written.frame for written in self.rows.values()]
        n_written = sum(self._n_written(written) for written in self.rows.values())
        parts = [
            f"step {max(frame.step for frame in frames) + 1}",
            f"{self.counts.forwards} passes",
            f"{n_written} tokens",
            f"{n_written / max(self.counts.seconds, 1e-9):,.0f} tokens/s",
        ]
        footer = Text(" · ".join(parts), style="dim")
        footer.truncate(width, overflow="ellipsis")
        return footer

    def _n_written(self, written: Written) -> int:
        each = zip(written.given, written.frame.open, written.frame.tokens)
        return sum(not given and not open and token != self.mask_id for given, open, token in each)


def printable(piece: str) -> str:
    """Without what would move the cursor or colour the terminal: a model may write any byte."""
    return "".join(c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cs") else "\ufffd" for c in piece)

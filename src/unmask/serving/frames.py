"""A canvas on the wire: what changed from one pass to the next, position by position, counted from where the answer
begins. Knows frames and how tokens read; no model and no request."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any

from ..decoding.canvas import Row
from ..decoding.outcome import Frame
from .settled import REPLACEMENT

Pieces = Callable[[Iterable[int]], list[str]]
Spell = Callable[[Sequence[int]], str]
DIGITS = 4  # of a probability


def in_a_row(pieces: Pieces, decode: Spell) -> Pieces:
    """How tokens read that stand side by side: of a character that several of them make, the first has it whole."""

    def spelt(tokens: Iterable[int]) -> list[str]:
        tokens = list(tokens)
        found = pieces(tokens)
        for at, end in _broken(found):
            for stop in range(at + 1, end + 1):
                whole = decode(tokens[at:stop])
                if REPLACEMENT not in whole:
                    found[at:stop] = [whole] + [""] * (stop - at - 1)
                    at = stop
        return found

    return spelt


def _broken(pieces: Sequence[str]) -> list[tuple[int, int]]:
    """Where parts of characters stand side by side."""
    runs = groupby(range(len(pieces)), lambda at: REPLACEMENT in pieces[at])
    parts = [list(run) for broken, run in runs if broken]
    return [(part[0], part[-1] + 1) for part in parts]


class Canvas:
    """One row as its watcher knows it. span: the positions that are shown."""

    def __init__(self, row: Row, span: slice, pieces: Pieces, mask_id: int) -> None:
        self.pieces, self.mask_id, self.span = pieces, mask_id, span
        self.given = [not open for open in row.open[span]]
        self.tokens = [token if given else mask_id for token, given in zip(row.tokens[span], self.given)]
        self.open = [not given for given in self.given]
        self.texts = pieces(self.tokens)
        self.written = [False] * len(self.given)  # the model has stood behind what is there

    def blank(self) -> dict[str, Any]:
        """Before the first pass: every position."""
        changed = [
            {"at": at, "text": text if given else "", "p": None, "state": "given" if given else "open"}
            for at, (text, given) in enumerate(zip(self.texts, self.given))
        ]
        return self._frame(-1, changed)

    def after(self, frame: Frame) -> dict[str, Any]:
        """What a pass has changed."""
        tokens, open = frame.tokens[self.span], frame.open[self.span]
        sure, settled = frame.confidence[self.span], frame.settled[self.span]
        texts, known = self.pieces(tokens), self._grown(len(tokens), frame.inserted)
        changed = []
        for at, token in enumerate(tokens):
            moved = not self.given[at] and (token != known[at][0] or open[at] != known[at][1])
            if moved or texts[at] != known[at][2]:
                changed.append(self._change(at, token, open[at], sure[at], texts[at]))
            self.written[at] |= settled[at] or sure[at] > 0
        self.tokens, self.open, self.texts = tokens, open, texts
        return self._frame(frame.step, changed)

    def _grown(self, length: int, inserted: tuple[int, int]) -> list[tuple[int, bool, str]]:
        """What its watcher takes to be at each position, token, openness and text: one who is told that a row is longer
        than before sees masks behind the last, wherever they were put in. What is known of tokens moves with them."""
        more = max(0, length - len(self.tokens))
        known = [*zip(self.tokens, self.open, self.texts), *[(self.mask_id, True, "")] * more]
        at = inserted[0] - self.span.start if inserted[1] else len(self.tokens)
        self.tokens[at:at] = [self.mask_id] * more
        self.given[at:at] = self.written[at:at] = [False] * more
        return known

    def _change(self, at: int, token: int, open: bool, sure: float, text: str) -> dict[str, Any]:
        if self.given[at]:  # beside a part of a character that has become whole
            return {"at": at, "text": text, "p": None, "state": "given"}
        if token == self.mask_id:
            return {"at": at, "text": "", "p": None, "state": "open"}
        anew = self.written[at] and token != self.tokens[at]
        state = "draft" if open else "revised" if anew else "settled"
        p = round(sure, DIGITS) if sure > 0 and math.isfinite(sure) else None
        return {"at": at, "text": text, "p": p, "state": state}

    def _frame(self, step: int, changed: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return {"step": step, "passes": step + 1, "length": len(self.given), "changed": list(changed)}

"""A canvas on the wire: what changed from one pass to the next, position by position, counted from where the answer
begins. Knows frames and how tokens read; no model and no request."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..decoding.canvas import Row
from ..decoding.outcome import Frame

Pieces = Callable[[Iterable[int]], list[str]]
DIGITS = 4  # of a probability


class Canvas:
    """One row as its watcher knows it. span: the positions that are shown."""

    def __init__(self, row: Row, span: slice, pieces: Pieces, mask_id: int) -> None:
        self.pieces, self.mask_id, self.span = pieces, mask_id, span
        self.given = [not open for open in row.open[span]]
        self.tokens = [token if given else mask_id for token, given in zip(row.tokens[span], self.given)]
        self.open = [not given for given in self.given]
        self.written = [False] * len(self.given)  # the model has stood behind what is there

    def blank(self) -> dict[str, Any]:
        """Before the first pass: every position."""
        texts = self.pieces(self.tokens)
        changed = [
            {"at": at, "text": text if given else "", "p": None, "state": "given" if given else "open"}
            for at, (text, given) in enumerate(zip(texts, self.given))
        ]
        return self._frame(-1, changed)

    def after(self, frame: Frame) -> dict[str, Any]:
        """What a pass has changed."""
        tokens, open = frame.tokens[self.span], frame.open[self.span]
        sure, settled = frame.confidence[self.span], frame.settled[self.span]
        changed = []
        for at, token in enumerate(tokens):
            if not self.given[at] and (token != self.tokens[at] or open[at] != self.open[at]):
                changed.append(self._change(at, token, open[at], sure[at]))
            self.written[at] |= settled[at] or sure[at] > 0
        self.tokens, self.open = tokens, open
        return self._frame(frame.step, changed)

    def _change(self, at: int, token: int, open: bool, sure: float) -> dict[str, Any]:
        if token == self.mask_id:
            return {"at": at, "text": "", "p": None, "state": "open"}
        anew = self.written[at] and token != self.tokens[at]
        state = "draft" if open else "revised" if anew else "settled"
        p = round(sure, DIGITS) if sure > 0 and math.isfinite(sure) else None
        return {"at": at, "text": self.pieces([token])[0], "p": p, "state": state}

    def _frame(self, step: int, changed: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return {"step": step, "passes": step + 1, "length": len(self.given), "changed": list(changed)}

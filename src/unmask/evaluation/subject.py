"""A model as a test sees it: something that writes open positions. Knows no file and no name of a method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..data.tokenizer import Tokenizer
from ..decoding.canvas import Row
from ..decoding.sampler import Decoded, decode
from ..decoding.settings import Decoding
from ..denoiser import Denoiser
from ..noise.process import Process


@dataclass(frozen=True)
class Subject:
    """settings: how the model writes where a test does not say otherwise; batch: rows it writes at a time."""

    denoiser: Denoiser
    process: Process
    tokenizer: Tokenizer
    settings: Decoding
    batch: int = 64

    def write(self, rows: Sequence[Row], **changes: Any) -> list[Decoded]:
        """Every row's text, in order; changes are fields of `Decoding`. UserError where the model cannot write so."""
        settings = replace(self.settings, **changes)
        order = sorted(range(len(rows)), key=lambda i: rows[i].n_open)  # rows of a batch then end together
        found: dict[int, Decoded] = {}
        for begin in range(0, len(order), self.batch):
            some = order[begin : begin + self.batch]
            found |= zip(some, decode(self.denoiser, self.process, [rows[i] for i in some], settings))
        return [found[i] for i in range(len(rows))]

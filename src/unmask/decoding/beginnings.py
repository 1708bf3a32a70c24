"""Prompts that begin alike: what exact caches take from earlier texts, and leave for later ones. Knows no policy."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from ..denoiser import Denoiser
from ..models.attention import Places, block_size
from ..models.cache import Cache, unit_of
from ..models.prefixes import Prefixes
from .canvas import Canvas


class Beginnings:
    """Of rows that are written by a model that never looks ahead; unit: positions that are kept together."""

    def __init__(self, denoiser: Denoiser, prefixes: Prefixes, unit: int) -> None:
        self.denoiser, self.prefixes, self.unit = denoiser, prefixes, unit
        self._begun: list[tuple[int, list[int]]] = []  # rows whose first pass is being made, and how they begin

    @classmethod
    def of(cls, denoiser: Denoiser, prefixes: Prefixes | None) -> Beginnings | None:
        """None where nothing is kept, or where what is kept of a position would depend on more than tokens: on the
        noise, or on what was said before."""
        size = block_size(denoiser.rule)
        if prefixes is None or size is None or denoiser.network.time is not None or denoiser.echo is not None:
            return None
        return cls(denoiser, prefixes, unit_of(size))

    def recall(self, canvas: Canvas, cache: Cache) -> list[list[int]]:
        """Into the empty cache of rows that join, what texts that began alike were fed -> how much of each row."""
        found = []
        for row in range(cache.rows):
            inputs = self._inputs(canvas, row)
            units = self.prefixes.find(inputs, self.unit)
            for number, parts in enumerate(units):
                cache.put(row, slice(number * self.unit, (number + 1) * self.unit), parts)
            found.append(inputs[: len(units) * self.unit])
        return found

    def note(self, canvas: Canvas, first: Tensor) -> None:
        """A pass is being made, the first of some rows (B,) bool."""
        self._begun = [(row, self._inputs(canvas, row)) for row in first.nonzero()[:, 0].tolist()]

    def keep(self, caches: Sequence[Cache]) -> None:
        """It is made: how these rows begin is kept. caches: of all rows, in order."""
        begun, self._begun = self._begun, []
        for row, inputs in begun:
            first = 0
            for cache in caches:
                if first <= row < first + cache.rows:
                    self.prefixes.keep(inputs, self.unit, partial(cache.part, row - first))
                first += cache.rows

    def _inputs(self, canvas: Canvas, row: int) -> list[int]:
        """What the network is fed of a row before the first position that an output is wanted of: it stays as it is."""
        places = Places(canvas.position[:1])
        sought = self.denoiser.sought(canvas.pending[row : row + 1], places)[0]
        end = int(sought.long().argmax()) if bool(sought.any()) else 0
        inputs: list[int] = self.denoiser.head.inputs(canvas.x[row : row + 1], places)[0, :end].tolist()
        return inputs

"""Keys and values of how texts begin, kept for other texts that begin alike. Knows no rows and no policy.

They are kept in units of positions, in which a model that never looks ahead attends (`cache.unit_of`): what a unit's
keys and values are depends on the inputs up to its end and on nothing else, to the last bit. A unit goes by the digest
of all these inputs, so that equal digests are equal beginnings.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256

from torch import Tensor

Unit = Sequence[tuple[Tensor, Tensor]]  # of each layer, keys and values (Hkv, U, D)


class Prefixes:
    """most: positions kept at a time, of all texts; what was needed longest ago goes first, and of a text its end.
    sought, found: positions that texts could have begun with, and those of them that were here."""

    def __init__(self, most: int) -> None:
        self.most, self.kept, self.sought, self.found = most, 0, 0, 0
        self._units: OrderedDict[bytes, Unit] = OrderedDict()

    def find(self, inputs: Sequence[int], unit: int) -> list[Unit]:
        """The units with which the inputs begin, as far as they are here."""
        known: list[bytes] = []
        for name in _names(inputs, unit):
            if name not in self._units:
                break
            known.append(name)
        self._touch(known)
        self.sought += len(inputs) // unit * unit
        self.found += len(known) * unit
        return [self._units[name] for name in known]

    def keep(self, inputs: Sequence[int], unit: int, part: Callable[[slice], Unit]) -> None:
        """The units of the inputs; part gives what belongs to a stretch of them."""
        own = list(_names(inputs, unit))[: self.most // unit]
        for number, name in enumerate(own):
            if name not in self._units:
                self._units[name] = part(slice(number * unit, (number + 1) * unit))
                self.kept += unit
        self._touch(own)
        while self.kept > self.most:
            _, gone = self._units.popitem(last=False)
            self.kept -= gone[0][0].shape[1]

    def _touch(self, chain: Sequence[bytes]) -> None:
        """Its beginning last of all: what follows on nothing is never looked for, so it goes before."""
        for name in reversed(chain):
            self._units.move_to_end(name)


def _names(inputs: Sequence[int], unit: int) -> Iterator[bytes]:
    """Of each whole unit, the digest of all inputs up to its end."""
    digest = sha256()
    for end in range(unit, len(inputs) + 1, unit):
        digest.update(array("q", inputs[end - unit : end]).tobytes())
        yield digest.digest()

"""Which stretches of a canvas must match: whole rows, or each run of what is written. Knows no automata."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

OPEN = -1  # stands where a token is still to be written


@dataclass(frozen=True)
class Chains:
    """C stretches, as wide as the longest, L. row (C,); column, inside (C, L): where their positions stand in the rows,
    and which of them exist; length (C,): how many. closing (C,) bool: nothing of the row comes after."""

    row: Tensor
    column: Tensor
    inside: Tensor
    length: Tensor
    closing: Tensor

    @classmethod
    def of(cls, written: Tensor, real: Tensor, whole: bool) -> Chains:
        """written, real (B, W) bool: what was open at first, what is no padding. whole: rows, with what was given."""
        part = real & written.any(1, keepdim=True) if whole else written
        begins = part & ~torch.cat([torch.zeros_like(part[:, :1]), part[:, :-1]], 1)
        row, first = begins.nonzero(as_tuple=True)
        number = begins.flatten().cumsum(0)[part.flatten()] - 1
        length = number.bincount(minlength=len(row))
        step = torch.arange(_longest(length), device=part.device)
        inside = step < length[:, None]
        column = (first[:, None] + step).clamp(max=part.shape[1] - 1)
        return cls(row, column, inside, length, first + length == real.sum(1)[row])

    def only(self, where: Tensor) -> Chains:
        """Those at where (C,) bool."""
        length = self.length[where]
        widest = _longest(length)
        column, inside = self.column[where, :widest], self.inside[where, :widest]
        return Chains(self.row[where], column, inside, length, self.closing[where])

    def of_canvas(self, values: Tensor) -> Tensor:
        """(B, W) -> (C, L); what is not inside is something of the row's."""
        return values[self.row[:, None], self.column]


def _longest(length: Tensor) -> int:
    return int(length.max()) if len(length) else 0


@dataclass(frozen=True)
class Window:
    """The part of each chain from its first open position to the last one that is wanted, set to the right: what stands
    before is known, and of what comes after no law is. text, wanted (C, L): of the chains; length (C,)."""

    text: Tensor
    wanted: Tensor
    length: Tensor

    @cached_property
    def first(self) -> Tensor:
        """(C,): of each chain."""
        return ((self.text == OPEN) & self._inside).int().argmax(1)

    @cached_property
    def last(self) -> Tensor:
        return (self.wanted * self._position).amax(1)

    @cached_property
    def place(self) -> Tensor:
        """(C, l): where each position of the window stands in its chain; before the chain's own, something else."""
        width = int((self.last - self.first).max()) + 1
        return self.last[:, None] - width + 1 + torch.arange(width, device=self.text.device)

    @property
    def starts(self) -> Tensor:
        """(C, l) bool: the first open position."""
        return self.place == self.first[:, None]

    @property
    def valid(self) -> Tensor:
        return self.place >= self.first[:, None]

    def of_chains(self, values: Tensor) -> Tensor:
        """(C, L) -> (C, l)"""
        return values.gather(1, self.place.clamp(min=0))

    @property
    def _position(self) -> Tensor:
        return torch.arange(self.text.shape[1], device=self.text.device)

    @property
    def _inside(self) -> Tensor:
        return self._position < self.length[:, None]

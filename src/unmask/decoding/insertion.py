"""Positions put into rows: where, how many, and where all else of the rows goes. Knows no canvas and no policy."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Insertion:
    """count (B,) int64 new positions of each row, before its position at (B,)."""

    at: Tensor
    count: Tensor

    def __bool__(self) -> bool:
        return bool(self.count.any())

    def source(self, length: Tensor) -> Tensor:
        """(B, W) int64 for rows of length (B,): the column that each column was before; -1: new, or padding."""
        longer = length + self.count
        column = torch.arange(int(longer.max()), device=length.device).expand(len(length), -1)
        before = torch.where(column < self.at[:, None], column, column - self.count[:, None])
        return before.masked_fill(self._new(column) | (column >= longer[:, None]), -1)

    def fresh(self, source: Tensor) -> Tensor:
        """(B, W) bool, for what `source` has given: the new positions."""
        return self._new(torch.arange(source.shape[1], device=source.device).expand(source.shape))

    def _new(self, column: Tensor) -> Tensor:
        return (column >= self.at[:, None]) & (column < (self.at + self.count)[:, None])


def taken(part: Tensor, source: Tensor, fill: float = 0) -> Tensor:
    """Of part (B, V, ...) the columns source (B, W), `fill` where that is -1."""
    shape = source.shape + (1,) * (part.dim() - 2)
    index = source.clamp(min=0).view(shape).expand(*source.shape, *part.shape[2:])
    return part.gather(1, index).masked_fill((source < 0).view(shape), fill)

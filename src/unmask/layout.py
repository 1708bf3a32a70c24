"""The order in which text is written, and the times it is trained at. One block as long as the text is a bidirectional
canvas; blocks of one token are autoregression; anything between is block diffusion."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .models.attention import BlockCausal, Causal, Everything, Rule

EARLIEST = 1e-3  # times are drawn in [EARLIEST, 1]: at 0 nothing is masked and 1/t has no value


@dataclass(frozen=True)
class Blocks:
    """Text is written in blocks of `size`: inside a block all at once, block after block."""

    size: int

    def widths(self, length: int) -> Iterator[int]:
        return (min(self.size, length - start) for start in range(0, length, self.size))

    def times(self, batch: int, length: int, rng: torch.Generator) -> Tensor:
        """One time a block, spread evenly over the batch (low discrepancy), copied to its positions: (B, L)."""
        size = min(self.size, length)
        blocks = -(-length // size)
        u = (torch.rand(1, blocks, generator=rng) + torch.arange(batch)[:, None] / batch) % 1
        return u.clamp(min=EARLIEST).repeat_interleave(size, 1)[:, :length]

    @property
    def rule(self) -> Rule:
        return Causal() if self.size == 1 else BlockCausal(self.size)


@dataclass(frozen=True)
class Whole(Blocks):
    """One block as long as the text: a bidirectional canvas."""

    size: int = 1 << 30

    @property
    def rule(self) -> Rule:
        return Everything()

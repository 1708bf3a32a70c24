"""The order in which text is written, and the view it is trained in. One block as long as the text is a bidirectional
canvas; blocks of one token are autoregression; anything between is block diffusion (BD3-LM, arXiv 2503.09573)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .models.attention import BlockCausal, CausalContext, Everything, Places, Rule

EARLIEST = 1e-3  # times are drawn in [EARLIEST, 1]: at 0 nothing is masked and 1/t has no value
GOLDEN = (5**0.5 - 1) / 2  # its multiples modulo 1 are spread as evenly as can be, however many they are


@dataclass(frozen=True)
class View:
    """What a network is shown of a noised text: x, t (B, W), their places, and where (B, W) bool it is asked. The
    asked positions come in the order of the text's own."""

    x: Tensor
    t: Tensor
    places: Places
    where: Tensor


@dataclass(frozen=True)
class Blocks:
    """Text is written in blocks of `size`: inside a block all at once, block after block."""

    size: int

    def numbers(self, places: Places) -> Tensor:
        """(B, L) int64: which block of its row a token is in, counted from 0 through all documents of the row."""
        block = places.position // self.size
        begins = block.diff(dim=1) != 0
        if places.document is not None:
            begins = begins | (places.document.diff(dim=1) != 0)
        return torch.cat([torch.zeros_like(block[:, :1]), begins.long().cumsum(1)], 1)

    def levels(self, places: Places, rng: torch.Generator) -> Tensor:
        """(B, blocks) float64 in [0, 1): how far each block is noised, spread over rows and blocks."""
        numbers = self.numbers(places)
        return spread(len(numbers), int(numbers.max()) + 1, rng).to(numbers.device)

    def times(self, places: Places, rng: torch.Generator) -> Tensor:
        """One time a block, copied to its positions: (B, L)."""
        return self.levels(places, rng).gather(1, self.numbers(places)).float().clamp(min=EARLIEST)

    def view(self, clean: Tensor, noisy: Tensor, t: Tensor, places: Places, where: Tensor) -> View:
        """All (B, L). The text is shown twice, noisy and clean, so that every block is predicted from the clean blocks
        before it in one pass; a text of a single block has none before it and is shown once."""
        if int(places.position.max()) < self.size:
            return View(noisy, t, places, where)
        doubled = places.map(lambda x: torch.cat([x, x], 1))
        is_clean = torch.arange(doubled.position.shape[1], device=clean.device) >= clean.shape[1]
        doubled = Places(doubled.position, doubled.document, is_clean.expand(doubled.position.shape))
        nothing = torch.zeros_like(t)
        return View(
            torch.cat([noisy, clean], 1), torch.cat([t, nothing], 1), doubled, torch.cat([where, nothing.bool()], 1)
        )

    @property
    def rule(self) -> Rule:
        return BlockCausal(self.size)


@dataclass(frozen=True)
class BlocksAfterText(Blocks):
    """Blocks that continue a text which reads left to right: the clean copy is fed a start token and then the text
    (`denoiser.NextTokenOrBlock`), so that its outputs speak of the next token; a noisy token's speak of itself.

    Token i stands at position i + 1, behind the start, clean or noisy. Blocks may begin anywhere: `offset` (B, 1), less
    than size, moves a row's positions and so where its blocks begin; a network that reads distances does not see it.
    Default: the first block begins with the text; a first block that is shorter does not see the start token.
    """

    offset: Tensor | None = None

    def numbers(self, places: Places) -> Tensor:
        return super().numbers(Places(places.position + self._first, places.document))

    def view(self, clean: Tensor, noisy: Tensor, t: Tensor, places: Places, where: Tensor) -> View:
        nothing = torch.zeros_like(t)
        standing = places.position + self._first
        doubled = Places(
            torch.cat([standing, standing - 1], 1),
            None if places.document is None else places.document.repeat(1, 2),
            torch.cat([nothing.bool(), ~nothing.bool()], 1),
        )
        return View(
            torch.cat([noisy, clean], 1), torch.cat([t, nothing], 1), doubled, torch.cat([where, nothing.bool()], 1)
        )

    @property
    def _first(self) -> Tensor | int:
        """Where a text's first token stands."""
        return self.size if self.offset is None else self.offset + 1

    @property
    def rule(self) -> Rule:
        return CausalContext(self.size)


@dataclass(frozen=True)
class Whole(Blocks):
    """One block as long as the row: a bidirectional canvas."""

    size: int = 1 << 30

    def numbers(self, places: Places) -> Tensor:
        return torch.zeros_like(places.position)

    @property
    def rule(self) -> Rule:
        return Everything()


def spread(rows: int, blocks: int, rng: torch.Generator) -> Tensor:
    """Levels (rows, blocks) float64 in [0, 1): each uniform, all from one draw; those of a block lie one in each of
    `rows` equal strata, in order, those of a row as evenly as the golden ratio spreads them (low discrepancy)."""
    shift = torch.rand(1, generator=rng, dtype=torch.float64)
    down, along = torch.arange(rows, dtype=torch.float64), torch.arange(blocks, dtype=torch.float64)
    return (shift + down[:, None] / rows + along * GOLDEN) % 1

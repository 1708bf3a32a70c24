"""Mask and uniform noise at once (GIDD, arXiv 2503.04482): most lost tokens are masked, some are wrong, so that a
network learns to mend as well as to fill in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import UserError
from ..noise.schedule import LogLinear, Schedule
from ..noise.tokens import TokenNoise, resting
from .noisy import Noisy, Per


@dataclass(frozen=True)
class Hybrid(Noisy):
    """uniform_share: of lost tokens, how many become another token rather than the mask."""

    uniform_share: float = 0.2
    schedule: Schedule = LogLinear()
    per: Per = "answer"

    def __post_init__(self) -> None:
        if not 0 < self.uniform_share < 1:
            raise UserError(
                f"method.uniform_share={self.uniform_share} is outside (0, 1); use 0.2, or kind=masked or kind=uniform"
            )

    def noise(self, vocab: int, mask_id: int, barred: Sequence[int]) -> TokenNoise:
        return TokenNoise(resting(vocab, barred, mask_id, self.uniform_share), self.schedule)

"""Uniform diffusion (UDLM, Duo): a token fades to any other, and may be changed again to the very end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..noise.schedule import LogLinear, Schedule
from ..noise.tokens import TokenNoise, resting
from .noisy import Noisy, Per


@dataclass(frozen=True)
class Uniform(Noisy):
    schedule: Schedule = LogLinear()
    per: Per = "answer"

    def noise(self, vocab: int, mask_id: int, barred: Sequence[int]) -> TokenNoise:
        return TokenNoise(resting(vocab, barred), self.schedule)

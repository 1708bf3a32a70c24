"""Score entropy discrete diffusion (SEDD, arXiv 2310.16834): the network speaks of ratios of probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from ..decoding.settings import Decoding
from ..denoiser import Head
from ..errors import UserError
from ..noise.schedule import Geometric, LogLinear, Schedule
from ..noise.tokens import Masking, TokenNoise, resting
from ..objectives.bound import Bound, ScoreEntropy
from ..scores import LogScore
from .noisy import Noisy, Per


@dataclass(frozen=True)
class Sedd(Noisy):
    """graph: what tokens fade to, the mask or any token. schedule: default log-linear for the mask, geometric for any
    token. scaled: whether the factor that is known is left out of what the network says; default for the mask."""

    graph: Literal["absorb", "uniform"] = "absorb"
    schedule: Schedule | None = None
    scaled: bool | None = None
    per: Per = "answer"

    def __post_init__(self) -> None:
        if float(self.fading.alpha(torch.ones(()))) < 1e-12:
            raise UserError(
                f"method.schedule: {self.schedule} ends in noise alone, where scores have no value; use log_linear or "
                "geometric"
            )

    @property
    def fading(self) -> Schedule:
        return self.schedule or (LogLinear() if self.graph == "absorb" else Geometric(low=1e-4))

    def noise(self, vocab: int, mask_id: int, barred: Sequence[int]) -> TokenNoise:
        if self.graph == "absorb":
            return Masking.over(vocab, mask_id, self.fading)
        return TokenNoise(resting(vocab, barred), self.fading)

    def head(self, process: TokenNoise) -> Head:
        return LogScore(process, self.graph == "absorb" if self.scaled is None else self.scaled)

    def bound(self, process: TokenNoise, per: Per) -> Bound:
        return ScoreEntropy(process, per=per)

    def decoding(self) -> Decoding:
        return Decoding(rule="analytic", temperature=1.0)

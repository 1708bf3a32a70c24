"""Masked diffusion (LLaDA, MDLM): tokens fade to [MASK], a bidirectional network restores them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..decoding.settings import Decoding
from ..denoiser import Denoiser
from ..evaluation.likelihood import Estimator, FixedCount
from ..layout import Whole
from ..models.transformer import Transformer
from ..noise.schedule import Linear, Schedule
from ..noise.tokens import Masking
from ..objectives.masked import MaskedBound
from .method import Method, Symbols


@dataclass(frozen=True)
class Masked(Method):
    schedule: Schedule = Linear()
    masks: Literal["independent", "counted"] = "counted"
    per: Literal["token", "answer"] = "answer"
    short: float = 0.0

    def process(self, symbols: Symbols, network: Transformer | None = None) -> Masking:
        return Masking.over(symbols.vocab, symbols.mask_id, self.schedule)

    def denoiser(self, network: Transformer, symbols: Symbols) -> Denoiser:
        return Denoiser(network, mask_id=symbols.mask_id, rule=Whole().rule, unused=symbols.unused)

    def objective(self, symbols: Symbols) -> MaskedBound:
        return MaskedBound(self.process(symbols), Whole(), masks=self.masks, short=self.short)

    def tuning(self, symbols: Symbols) -> MaskedBound:
        return MaskedBound(self.process(symbols), Whole(), masks=self.masks, per=self.per)

    def estimator(self, draws: int) -> Estimator:
        return FixedCount(draws=draws)

    def decoding(self) -> Decoding:
        return Decoding(rule="confidence")

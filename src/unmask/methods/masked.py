"""Masked diffusion (LLaDA, MDLM): tokens fade to [MASK], a bidirectional network restores them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..decoding.settings import Decoding
from ..denoiser import CleanLogits, Denoiser, ShiftedLogits
from ..evaluation.likelihood import Estimator, FixedCount
from ..layout import Blocks, Whole
from ..models.transformer import Transformer
from ..noise.schedule import Linear, Schedule
from ..noise.tokens import Masking
from ..objectives.masked import MaskedBound
from ..objectives.objective import Objective
from .method import Method, Symbols, level_of


@dataclass(frozen=True)
class Masked(Method):
    """shifted: the output at i - 1 speaks of token i, as in what autoregressive models were tuned to (Dream)."""

    schedule: Schedule = Linear()
    masks: Literal["independent", "counted"] = "counted"
    per: Literal["token", "answer"] = "answer"
    short: float = 0.0
    shifted: bool = False

    def process(self, symbols: Symbols, network: Transformer | None = None) -> Masking:
        return Masking.over(symbols.vocab, symbols.mask_id, self.schedule)

    @property
    def layout(self) -> Blocks:
        return Whole()

    def denoiser(self, network: Transformer, symbols: Symbols) -> Denoiser:
        return Denoiser(
            network,
            mask_id=symbols.mask_id,
            rule=self.layout.rule,
            head=ShiftedLogits() if self.shifted else CleanLogits(),
            unused=symbols.unused,
            level=level_of(network, self.schedule),
        )

    def objective(self, symbols: Symbols) -> Objective:
        return self._trained(MaskedBound(self.process(symbols), self.layout, masks=self.masks, short=self.short))

    def tuning(self, symbols: Symbols) -> Objective:
        return self._trained(MaskedBound(self.process(symbols), self.layout, masks=self.masks, per=self.per))

    def _trained(self, bound: MaskedBound) -> Objective:
        """What training minimises, if not the bound itself."""
        return bound

    def estimator(self, draws: int) -> Estimator:
        return FixedCount(draws=draws, layout=self.layout)

    def decoding(self) -> Decoding:
        return Decoding(rule="confidence")

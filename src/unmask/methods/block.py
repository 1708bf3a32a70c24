"""Block diffusion (BD3-LM): text is written block after block, each one a masked diffusion given the blocks before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..denoiser import Denoiser
from ..errors import UserError
from ..evaluation.likelihood import Estimator, FixedCount
from ..layout import Blocks
from ..models.attention import BlockCausal
from ..models.transformer import Transformer
from ..noise.schedule import Linear, Schedule
from ..noise.tokens import Masking
from ..objectives.masked import MaskedBound
from .method import Symbols


@dataclass(frozen=True)
class Block:
    """size: tokens of a block. 1 is an autoregressive model that is told where the next token stands, the length of
    the text a masked one."""

    size: int = 16
    schedule: Schedule = Linear()
    masks: Literal["independent", "counted"] = "counted"
    per: Literal["token", "answer"] = "answer"
    short: float = 0.0

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UserError(f"method.size: a block of {self.size} tokens holds nothing; use 1 or more")

    def process(self, symbols: Symbols) -> Masking:
        return Masking.over(symbols.vocab, symbols.mask_id, self.schedule)

    def denoiser(self, network: Transformer, symbols: Symbols) -> Denoiser:
        return Denoiser(network, mask_id=symbols.mask_id, rule=BlockCausal(self.size), unused=symbols.unused)

    def objective(self, symbols: Symbols) -> MaskedBound:
        return MaskedBound(self.process(symbols), Blocks(self.size), masks=self.masks, short=self.short)

    def tuning(self, symbols: Symbols) -> MaskedBound:
        return MaskedBound(self.process(symbols), Blocks(self.size), masks=self.masks, per=self.per)

    def estimator(self, draws: int) -> Estimator:
        return FixedCount(draws=draws, layout=Blocks(self.size))

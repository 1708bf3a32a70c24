"""Joint autoregression and block diffusion: one set of weights that writes left to right, drafts blocks by diffusion,
and checks its drafts itself (`decoding.speculate`), so that what it writes is exactly what it would left to right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..decoding.settings import FORWARD, Decoding
from ..denoiser import Denoiser, NextTokenOrBlock
from ..errors import UserError
from ..evaluation.likelihood import Estimator, Exact, FixedCount
from ..layout import BlocksAfterText
from ..models.transformer import Transformer
from ..noise.schedule import Linear, Schedule
from ..noise.tokens import Masking
from ..objectives.joint import JointBound
from ..objectives.masked import MaskedBound
from .block import check_clip
from .method import Method, Symbols


@dataclass(frozen=True)
class Joint(Method):
    """size: tokens of a block. weight: of the next-token loss. clip: train blocks only at mask rates from the first
    number to the second; a drafted block is nothing but masks, so [0.85, 1] makes drafts that stand more often, and
    worse blocks where tokens are written one by one. measure: the likelihood left to right, which is exact, or the
    bound of the blocks."""

    size: int = 16
    weight: float = 0.3
    clip: tuple[float, float] = (0.0, 1.0)
    schedule: Schedule = Linear()
    masks: Literal["independent", "counted"] = "counted"
    per: Literal["token", "answer"] = "answer"
    measure: Literal["left_to_right", "blocks"] = "left_to_right"

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UserError(f"method.size: a block of {self.size} tokens holds nothing; use 1 or more")
        if self.weight < 0:
            raise UserError(f"method.weight={self.weight} is negative; 0.3 is usual, 0 trains the blocks alone")
        check_clip(self.clip)

    def process(self, symbols: Symbols, network: Transformer | None = None) -> Masking:
        return Masking.over(symbols.vocab, symbols.mask_id, self.schedule)

    def denoiser(self, network: Transformer, symbols: Symbols) -> Denoiser:
        head = NextTokenOrBlock(symbols.start_id)
        return Denoiser(network, mask_id=symbols.mask_id, rule=self._layout.rule, head=head, unused=symbols.unused)

    def objective(self, symbols: Symbols) -> JointBound:
        return self._joint(symbols, "token")

    def tuning(self, symbols: Symbols) -> JointBound:
        return self._joint(symbols, self.per)

    def estimator(self, draws: int) -> Estimator:
        return Exact() if self.measure == "left_to_right" else FixedCount(draws, layout=self._layout)

    def decoding(self) -> Decoding:
        return Decoding(rule=FORWARD)

    def _joint(self, symbols: Symbols, per: Literal["token", "answer"]) -> JointBound:
        bound = MaskedBound(self.process(symbols), self._layout, masks=self.masks, per=per, clip=self.clip)
        return JointBound(bound, self._layout, self.weight)

    @property
    def _layout(self) -> BlocksAfterText:
        return BlocksAfterText(self.size)

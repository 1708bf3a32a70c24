"""Block diffusion (BD3-LM): text is written block after block, each one a masked diffusion given the blocks before."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from ..decoding.settings import FORWARD, Decoding
from ..errors import UserError
from ..layout import Blocks
from ..objectives.clipping import Clipped
from ..objectives.masked import MaskedBound
from ..objectives.objective import Objective
from .masked import Masked


@dataclass(frozen=True)
class Block(Masked):
    """size: tokens of a block. One is an autoregressive model that is told where the next token stands; as many as
    the text has is a masked one. clip: train only at mask rates from the first number to the second, or, with "auto",
    at those whose loss varies least, searched again as the model learns. It is measured over all rates."""

    size: int = 16
    clip: Literal["auto"] | tuple[float, float] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size < 1:
            raise UserError(f"method.size: a block of {self.size} tokens holds nothing; use 1 or more")
        if isinstance(self.clip, tuple):
            check_clip(self.clip)

    @property
    def layout(self) -> Blocks:
        return Blocks(self.size)

    def _trained(self, bound: MaskedBound) -> Objective:
        if self.shifted:  # a block's first token would be read from the noisy end of the block before
            raise UserError("method.shifted: in block models an output speaks of its own token; leave shifted out")
        if self.clip == "auto":
            return Clipped(bound)
        return bound if self.clip is None else replace(bound, clip=self.clip)

    def decoding(self) -> Decoding:
        return Decoding(rule=FORWARD) if self.size == 1 else super().decoding()


def check_clip(clip: tuple[float, float]) -> None:
    if not 0 <= clip[0] <= clip[1] <= 1:
        raise UserError(f"method.clip: {list(clip)} is no interval of mask rates, such as [0.3, 0.8]")

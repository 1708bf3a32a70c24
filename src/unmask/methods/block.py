"""Block diffusion (BD3-LM): text is written block after block, each one a masked diffusion given the blocks before."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import UserError
from ..layout import Blocks
from .masked import Masked


@dataclass(frozen=True)
class Block(Masked):
    """size: tokens of a block. One is an autoregressive model that is told where the next token stands; as many as
    the text has is a masked one."""

    size: int = 16

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UserError(f"method.size: a block of {self.size} tokens holds nothing; use 1 or more")

    @property
    def layout(self) -> Blocks:
        return Blocks(self.size)

"""A second reading of what is written but not final: as if each such token were still open, all in the same pass, from
the shadow that it casts (WINO, arXiv 2507.18578). Knows no rule of writing."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..denoiser import CleanLogits, Denoiser, Prediction
from ..errors import UserError
from ..models.attention import Everything, Memory, Places


@dataclass(frozen=True)
class Shadows:
    """A shadow stands where its token does, and sees the whole text but that token; no token sees a shadow."""

    def __call__(self, q: Places, k: Places) -> Tensor | None:
        if q.clean is None or k.clean is None:
            return None
        same = q.position == k.position
        return torch.where(k.clean, q.clean | ~same, ~q.clean & same)


class Shadowed(Denoiser):
    """What it says of a token that may still be taken back comes from that token's shadow, a mask. In a network of
    several layers the others have seen the token, and the shadow sees them: it is a hint, not the token's absence."""

    def __init__(self, base: Denoiser) -> None:
        if not (isinstance(base.rule, Everything) and isinstance(base.head, CleanLogits) and base.packs):
            raise UserError("revise: shadows need a model that sees the whole text and speaks of tokens in their place")
        super().__init__(base.network, mask_id=base.mask_id, rule=Shadows(), unused=base.unused, level=base.level)

    def forward(
        self,
        x: Tensor,
        t: Tensor | None = None,
        *,
        places: Places | None = None,
        where: Tensor | None = None,
        cache: Memory | None = None,
        feed: Tensor | None = None,
        feedback: Tensor | None = None,
    ) -> Prediction:
        assert t is not None
        assert where is not None
        assert feed is not None
        cast = where & (t > 0) & (x != self.mask_id)
        position = Places.of(x).position if places is None else places.position
        nothing, asked = torch.zeros_like(cast), torch.cat([where & ~cast, cast], 1)
        said = super().forward(
            torch.cat([x, torch.full_like(x, self.mask_id)], 1),
            torch.cat([t, torch.ones_like(t)], 1),
            places=Places(position.repeat(1, 2), clean=torch.cat([~nothing, nothing], 1)),
            where=asked,
            cache=cache,
            feed=torch.cat([feed, cast], 1),
        )
        text, shadow = (asked.flatten().cumsum(0) - 1).view_as(asked).chunk(2, 1)
        return said.at(torch.where(cast, shadow, text)[where])

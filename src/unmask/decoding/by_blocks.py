"""A joint model as a block model, for every rule that writes inside a block. Knows no rule and no canvas."""

from __future__ import annotations

import torch
from torch import Tensor

from ..denoiser import Denoiser, Prediction
from ..layout import BlocksAfterText
from ..models.attention import BlockCausal, CausalContext, Memory, Places


class ByBlocks(Denoiser):
    """Every pass shows the text twice, as in training: blocks as they stand, behind the text as it reads left to right.
    So a block's tokens change their reading once it is written, and nothing is kept from pass to pass."""

    def __init__(self, joint: Denoiser) -> None:
        assert isinstance(joint.rule, CausalContext)
        assert joint.rule.size is not None, "a joint model knows its blocks"
        rule = BlockCausal(joint.rule.size)
        super().__init__(joint.network, mask_id=joint.mask_id, rule=rule, head=joint.head, unused=joint.unused)
        self.joint, self.layout = joint, BlocksAfterText(joint.rule.size)

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
        view = self.layout.view(x, x, t, Places.of(x) if places is None else places, where)
        twice = None if feed is None else torch.cat([feed, feed], 1)
        return self.joint(view.x, view.t, places=view.places, where=view.where, cache=cache, feed=twice)

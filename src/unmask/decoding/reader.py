"""A joint model reads: clean text left to right, behind a start token, and blocks of masks behind any part of it.

Text stands in the slots of a cache from slot 0 on, the start token first; its keys stay, those of masks do not. Knows
no draws and no verdicts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..denoiser import Denoiser, NextTokenOrBlock, Prediction
from ..errors import UserError
from ..models.attention import CausalContext, Places
from ..models.cache import Cache
from .branches import Branches, Plan, Shape


class Reader:
    """size: of the blocks that the model was trained on."""

    def __init__(self, joint: Denoiser) -> None:
        rule, head = joint.rule, joint.head
        if not isinstance(rule, CausalContext) or not isinstance(head, NextTokenOrBlock):
            raise UserError("rule: self_speculation needs a model that drafts and checks; train one with method=joint")
        self.network, self.mask_id, self.banned = joint.network, joint.mask_id, joint.banned
        self.size, self.start = rule.size or 1, head.start

    def begin(self, cache: Cache, tokens: Tensor, length: Tensor, masks: int) -> Tensor:
        """Texts of unequal lengths (B,), the first of tokens (B, S), and a block of masks behind each -> hidden states
        (B, K, D): of the last token, then of the block's guesses."""
        slot = torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape)
        last = length[:, None] - 1
        masked = (slot > last) & (slot <= last + masks)
        hidden: Tensor = self.network(
            tokens.masked_fill(masked, self.mask_id),
            Places(slot, None, slot <= last),
            CausalContext(),
            where=(slot == last) | (masked & (slot > last + 1)),
            cache=cache,
            feed=slot <= last + masks,
        )
        return hidden.unflatten(0, (len(tokens), -1))

    def go_on(self, cache: Cache, tokens: Tensor, starts: Sequence[int], plan: Plan) -> Tensor:
        """The next tokens (B, plan.checked + 1), from the slots `starts` on, and the plan's blocks -> hidden states
        (B, K, D) of what its shape wants."""
        shape = Shape.of(plan, tokens.device)
        masks = tokens.new_full((1, sum(plan.masks)), self.mask_id).expand(len(tokens), -1)
        branches = Branches(cache, shape, starts)
        hidden: Tensor = self.network(
            torch.cat([tokens, masks], 1),
            branches.places,
            where=shape.wanted.expand(len(tokens), -1),
            cache=branches,
        )
        return hidden.unflatten(0, (len(tokens), -1))

    def laws(self, hidden: Tensor) -> Tensor:
        """(B, K, D) -> log-probabilities (B, K, V)."""
        head = self.network.head
        said = Prediction(hidden.flatten(0, 1), head.weight, self.banned, head.bias)
        return said.mu().unflatten(0, hidden.shape[:2])

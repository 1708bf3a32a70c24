"""Context-adaptive weights (CART, Dream, arXiv 2508.15487): a masked token counts by how near its visible context is.

A reweighting for training, not a bound: what a model is worth is measured by the masked bound.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.packing import Batch
from ..noise.draws import FromGenerator
from .masked import MaskedBound


@dataclass(frozen=True)
class ContextAdaptive(MaskedBound):
    """The masked bound's draws under other weights. nearness: p of the geometric law of distances; at 1 only direct
    neighbours count, towards 0 all visible tokens count alike."""

    nearness: float = 0.1

    def masks_at(self, levels: Tensor, batch: Batch, rng: FromGenerator) -> tuple[Tensor, Tensor]:
        masked, _ = super().masks_at(levels, batch, rng)
        return masked, context_weights(masked, batch.documents, self.nearness)


def context_weights(masked: Tensor, documents: Tensor, nearness: float) -> Tensor:
    """w_n = 1/2 sum over visible i of p (1 - p) ** (|n - i| - 1), i in the document of n: (B, L), (B, L) -> (B, L)."""
    here = torch.arange(masked.shape[1], device=masked.device)
    distance = (here[:, None] - here).abs().clamp(min=1)
    near = 0.5 * nearness * (1 - nearness) ** (distance - 1).float()
    visible = ~masked & (documents >= 0)
    if not bool((documents > 0).any()):
        return visible.float() @ near
    own = documents[:, :, None] == documents[:, None, :]
    return (near * own * visible[:, None, :]).sum(-1)

"""Masked language modelling at one fixed ratio (BERT): a point of reference. Its loss is NOT a generative bound.

The network learns to fill a few gaps in an otherwise whole text, and never meets an empty page: it bounds no
likelihood and writes badly from nothing. Measured is therefore the masked bound over all ratios, as for every other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..errors import UserError
from ..objectives.masked import MaskedBound
from ..objectives.objective import Objective
from .masked import Masked


@dataclass(frozen=True)
class MaskedLM(Masked):
    """ratio: share of the tokens that is masked, always; the loss is the mean cross-entropy of these."""

    ratio: float = 0.15

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.ratio <= 1:
            raise UserError(f"method.ratio={self.ratio} is outside (0, 1]; BERT masks 0.15")

    def _trained(self, bound: MaskedBound) -> Objective:
        return replace(bound, clip=(self.ratio, self.ratio))

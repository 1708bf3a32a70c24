"""Dream: masked diffusion that begins as an autoregressive model, so its logits are shifted by one, and that weighs a
masked token by its visible context."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ..errors import UserError
from ..objectives.context import ContextAdaptive
from ..objectives.masked import MaskedBound
from ..objectives.objective import Objective
from .masked import Masked


@dataclass(frozen=True)
class Dream(Masked):
    """nearness: p of the geometric law by which visible tokens count (CART); null trains the bound itself."""

    shifted: bool = True
    nearness: float | None = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nearness is not None and not 0 < self.nearness <= 1:
            raise UserError(f"method.nearness={self.nearness} is outside (0, 1]; 0.1 is Dream's, null trains the bound")

    def _trained(self, bound: MaskedBound) -> Objective:
        if self.nearness is None:
            return bound
        return ContextAdaptive(**{f.name: getattr(bound, f.name) for f in fields(bound)}, nearness=self.nearness)

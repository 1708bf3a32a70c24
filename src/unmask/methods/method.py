"""One way of diffusing text: which noise, which layout, which reading of the network, which loss. The contract."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ..denoiser import Denoiser
from ..evaluation.likelihood import Estimator
from ..models.transformer import Transformer
from ..noise.process import Process
from ..objectives.objective import Objective


@dataclass(frozen=True)
class Symbols:
    """The ids a method needs: the network's vocabulary size, the mask, the token a text starts after, and ids that
    the network has rows for but the tokenizer has no meaning for."""

    vocab: int
    mask_id: int
    start_id: int
    unused: tuple[int, ...] = ()


class Method(Protocol):
    def process(self, symbols: Symbols) -> Process:
        """The noise that generation undoes."""
        ...

    def denoiser(self, network: Transformer, symbols: Symbols) -> Denoiser: ...

    def objective(self, symbols: Symbols) -> Objective: ...

    def tuning(self, symbols: Symbols) -> Objective:
        """The objective for answers to prompts (supervised fine-tuning)."""
        ...

    def estimator(self, draws: int) -> Estimator:
        """How this method's likelihood is measured, with `draws` network passes a row where one is not enough."""
        ...

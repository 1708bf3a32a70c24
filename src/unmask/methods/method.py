"""One way of diffusing text: which noise, which layout, which reading of the network, which loss. The contract."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from ..decoding.settings import Decoding
from ..denoiser import Denoiser
from ..evaluation.likelihood import Estimator
from ..models.config import ModelConfig
from ..models.transformer import Transformer
from ..noise.process import Process
from ..noise.schedule import Schedule
from ..objectives.objective import Objective


@dataclass(frozen=True)
class Symbols:
    """The ids a method needs: the network's vocabulary size, the mask, the token a text starts after, and ids that
    the network has rows for but the tokenizer has no meaning for."""

    vocab: int
    mask_id: int
    start_id: int
    unused: tuple[int, ...] = ()


def level_of(network: Transformer, schedule: Schedule) -> Callable[[Tensor], Tensor] | None:
    """What the network is told of a time where that is not the time: sigma = -log alpha, as published ones are."""
    if network.config.time_unit == "t":
        return None
    return lambda t: -schedule.alpha(t.double()).log().to(t.dtype)


class Method(Protocol):
    """Inherit from it, and what a method has no opinion on is as here."""

    def shape(self, config: ModelConfig) -> ModelConfig:
        """The network to train: the one asked for, with what this method cannot do without switched on."""
        return config

    def settled(self) -> Mapping[str, Any]:
        """Options worked out from what lies outside the recipe, another model say, in the place of what the user said:
        a saved model then needs nothing but itself."""
        return {}

    def process(self, symbols: Symbols, network: Transformer | None = None) -> Process:
        """The noise that generation undoes. network: for noise on what the network has learnt, its embeddings."""
        ...

    def denoiser(self, network: Transformer, symbols: Symbols) -> Denoiser: ...

    def objective(self, symbols: Symbols) -> Objective: ...

    def tuning(self, symbols: Symbols) -> Objective:
        """The objective for answers to prompts (supervised fine-tuning)."""
        ...

    def estimator(self, draws: int) -> Estimator:
        """How this method's likelihood is measured, with `draws` network passes a row where one is not enough."""
        ...

    def decoding(self) -> Decoding:
        """How a model of this method is written with unless the user says otherwise: rule, block, cache, ..."""
        ...

"""Continuous diffusion (Diffusion-LM): Gaussian noise on learnt embeddings, an estimate of the clean ones, rounding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ..decoding.settings import Decoding
from ..denoiser import Denoiser
from ..errors import UserError
from ..evaluation.gaussian import DiscretisedBound
from ..evaluation.likelihood import Estimator
from ..layout import Whole
from ..models.config import ModelConfig
from ..models.transformer import Transformer
from ..noise.embeddings import EmbeddingNoise
from ..noise.schedule import Schedule, Sqrt
from ..objectives.embedding import EmbeddingBound
from .method import Method, Symbols

LATENT = 32  # noise has as many directions as the embedding: in the network's own width it would drown the signal


@dataclass(frozen=True)
class Continuous(Method):
    """radius: length of an embedding. A position's own vector tells up to radius^2 snr / 2 nats of its token, so that
    with 4 tokens come out of the noise in the middle of the schedule, where alpha is about a half.

    loss: what is minimised, see `EmbeddingBound`. feedback: the network is told its last estimate of the clean vectors
    (self-conditioning).
    """

    schedule: Schedule = Sqrt()
    radius: float = 4.0
    jitter: float = 0.1
    loss: Literal["bound", "simple"] = "bound"
    feedback: bool = True

    def __post_init__(self) -> None:
        if self.radius <= 0:
            raise UserError(f"method.radius={self.radius} is not positive; use 4")

    def shape(self, config: ModelConfig) -> ModelConfig:
        if config.tied:
            raise UserError("model.tied: noisy embeddings and the head are not the same matrix; leave tied out")
        feedback = "added" if self.feedback else "none"
        needed = {"time": "adaln", "latent": config.latent or LATENT, "feedback": feedback}
        return config.model_copy(update=needed)

    def process(self, symbols: Symbols, network: Transformer | None = None) -> EmbeddingNoise:
        assert network is not None, "the noise is on the network's embeddings"
        return self._over(network.embed.weight.detach())

    def denoiser(self, network: Transformer, symbols: Symbols) -> Denoiser:
        if network.time is None:
            raise UserError(
                "method.kind=continuous: the network is not told the noise level; start from a continuous model, or "
                "from nothing"
            )
        return Denoiser(
            network,
            mask_id=symbols.mask_id,
            rule=Whole().rule,
            unused=symbols.unused,
            echo=self._estimate if network.feedback is not None else None,
        )

    def objective(self, symbols: Symbols) -> EmbeddingBound:
        return EmbeddingBound(self._noise, self.loss)

    def tuning(self, symbols: Symbols) -> EmbeddingBound:
        return self.objective(symbols)

    def estimator(self, draws: int) -> Estimator:
        return DiscretisedBound(draws=draws, noise=self._noise)

    def decoding(self) -> Decoding:
        return Decoding(rule="ddpm")

    def _noise(self, network: Transformer) -> EmbeddingNoise:
        """With gradients: the embeddings are learnt."""
        return self._over(network.embed.weight)

    def _estimate(self, network: Transformer, mu: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """What the network is told of its last word: the clean vectors it took for likely."""
        return self._over(network.embed.weight.detach()).estimate(x.detach(), mu, t)

    def _over(self, embeddings: Tensor) -> EmbeddingNoise:
        return EmbeddingNoise.over(embeddings, self.schedule, self.radius, self.jitter)

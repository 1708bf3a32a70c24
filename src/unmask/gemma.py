"""DiffusionGemma behind the same denoiser interface: a canvas of random tokens, renoised until it is calm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from .decoding.settings import Decoding
from .denoiser import CleanLogits, Denoiser, Prediction
from .errors import UserError
from .loaded import LoadedDenoiser
from .methods.uniform import Uniform
from .models.families import Facts
from .models.families.diffusion_gemma import GemmaNetwork, load_gemma
from .models.readout import Cost
from .models.transformer import Transformer


@dataclass(frozen=True, kw_only=True)
class CappedPrediction(Prediction):
    """Logits that never leave +- cap."""

    cap: float

    def logits(self) -> Tensor:
        return self._capped(super().logits())

    def cross_entropy(self, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        return self.cost(lambda mu, rows: -mu.gather(-1, targets[rows, None]).squeeze(-1), weights)

    def cost(self, cost: Cost, weights: Tensor) -> tuple[Tensor, Tensor]:
        return self._cost(lambda scores, rows: cost(self._capped(scores).log_softmax(-1), rows), weights)

    def _capped(self, scores: Tensor) -> Tensor:
        return (self.cap * (scores / self.cap).tanh()).masked_fill(scores.isneginf(), -torch.inf)


@dataclass(frozen=True)
class Capped(CleanLogits):
    cap: float

    def reads(self, said: Prediction, x: Tensor, t: Tensor) -> Prediction:
        return CappedPrediction(said.hidden, said.weight, said.banned, said.bias, cap=self.cap)


class GemmaDenoiser(LoadedDenoiser):
    def raw_logits(
        self,
        tokens: Tensor,
        *,
        attention_mask: Tensor | None = None,
        sigma: Tensor | float | None = None,
        t: Tensor | float | None = None,
        self_conditioning_logits: Tensor | None = None,
    ) -> Tensor:
        """(B, C, V) float32 of the canvas, the last C of tokens (B, L). attention_mask: (B, L) or of what stands before
        the canvas, 0 for padding, which no position counts. self_conditioning_logits (B, C, V): what it said before."""
        network = cast(GemmaNetwork, self.network)
        before, canvas = tokens[:, : -network.canvas], tokens[:, -network.canvas :]
        more: dict[str, Any] = {"self_conditioning_logits": self_conditioning_logits}
        if attention_mask is not None:
            if len(attention_mask) != len(tokens) or attention_mask.shape[1] not in (before.shape[1], tokens.shape[1]):
                raise UserError(
                    f"attention_mask: has shape {tuple(attention_mask.shape)}, the tokens {tuple(tokens.shape)}"
                )
            real = attention_mask[:, : before.shape[1]].long()
            places = torch.arange(canvas.shape[1], device=tokens.device)
            more |= {
                "attention_mask": real,
                "position_ids": (real.cumsum(1) - 1).clamp(min=0),
                "decoder_attention_mask": torch.cat([real, torch.ones_like(canvas)], 1),
                "decoder_position_ids": real.sum(1, keepdim=True) + places,
            }
        logits = network.head(network.hidden(before, canvas, **more)).float()
        return network.cap * (logits / network.cap).tanh()


def gemma_denoiser(
    folder: Path, config: Mapping[str, Any], dtype: torch.dtype | None, device: torch.device | str | None
) -> GemmaDenoiser:
    network = load_gemma(folder, dtype, device)
    process = Uniform().noise(network.config.vocab, 0, ())
    base = Denoiser(cast(Transformer, network), mask_id=0, head=Capped(network.cap))
    base.banned = base.banned[:0]  # any token is noise, any token may be written
    decoding = Decoding.preset("diffusion-gemma", block=network.canvas)
    facts = Facts({"kind": "uniform"}, pads="uncounted")
    return GemmaDenoiser(base.to(device), process, decoding, "diffusion_gemma", config, facts).to(device).eval()

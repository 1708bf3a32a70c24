"""What 8-bit products cost a model in quality: how far its predictions move, on text it is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..denoiser import Denoiser
from ..models.linear import unpacked


@dataclass(frozen=True)
class Rounding:
    """divergence: KL of the rounded prediction from the exact one, nats a token; agreement: share of the tokens whose
    likeliest symbol stays the same."""

    divergence: float
    agreement: float

    def __str__(self) -> str:
        return f"int8 is {self.divergence:.5f} nats a token away from fp32, {self.agreement:.1%} of best tokens agree"


@torch.inference_mode()
def rounding_of(denoiser: Denoiser, texts: Sequence[Sequence[int]]) -> Rounding:
    """At every second token of each text (rows of one length), which is hidden, with the others in sight."""
    clean = torch.tensor(texts, device=denoiser.banned.device)
    hidden = (torch.arange(clean.shape[1], device=clean.device) % 2 == 1).expand(clean.shape)
    x, t = clean.masked_fill(hidden, denoiser.mask_id), hidden.float()
    rounded = denoiser(x, t, where=hidden).mu().double()
    with unpacked():
        exact = denoiser(x, t, where=hidden).mu().double()
    gap = torch.where(exact.isneginf(), 0.0, exact.exp() * (exact - rounded)).sum(-1)
    return Rounding(float(gap.mean()), float((exact.argmax(-1) == rounded.argmax(-1)).double().mean()))

"""The autoregressive baseline's objective."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..data.packing import Batch
from ..denoiser import Denoiser
from ..noise.draws import FromGenerator
from .objective import Loss, places_of


@dataclass(frozen=True)
class NextToken:
    """-log p(x) of an autoregressive model, exactly: cross-entropy of each scored token given what stands before."""

    def count(self, batch: Batch) -> int:
        return batch.n_scored

    def __call__(self, denoiser: Denoiser, batch: Batch, rng: FromGenerator) -> Loss:
        prediction = denoiser(batch.tokens, places=places_of(batch), where=batch.scored)
        targets = batch.tokens[batch.scored]
        total, _ = prediction.cross_entropy(targets, torch.ones_like(targets, dtype=torch.float32))
        return Loss(total, len(targets))

"""Next token and block diffusion at once (tri-mode models): two losses of one network from one pass."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from ..data.packing import Batch
from ..denoiser import Denoiser
from ..layout import BlocksAfterText
from ..noise.draws import FromGenerator
from .masked import MaskedBound
from .objective import Loss, places_of, shared_out


@dataclass(frozen=True)
class JointBound:
    """diffusion + weight * autoregression, nats. The text is shown noisy and clean; the clean copy is causal and speaks
    of the next token, so it carries the second loss at no cost but the head's. Blocks begin at a random place in every
    row, since a drafted block may begin anywhere (Nemotron-Labs-Diffusion, 2026, has weight 0.3)."""

    diffusion: MaskedBound
    layout: BlocksAfterText
    weight: float = 0.3

    def count(self, batch: Batch) -> int:
        return self.diffusion.count(batch)

    def __call__(self, denoiser: Denoiser, batch: Batch, rng: FromGenerator) -> Loss:
        offset = torch.randint(self.layout.size, (len(batch.tokens), 1), generator=rng.generator)
        layout, places = replace(self.layout, offset=offset.to(batch.tokens.device)), places_of(batch)
        bound = replace(self.diffusion, layout=layout)
        masked, weights = bound.masks_at(bound.clipped(layout.levels(places, rng.generator)), batch, rng)
        noisy = batch.tokens.masked_fill(masked, denoiser.mask_id)
        view = layout.view(batch.tokens, noisy, masked.float(), places, masked)
        asked = torch.cat([masked, batch.scored], 1)
        both = (weights, torch.full_like(weights, self.weight))
        weights = torch.cat([shared_out(part, batch, self.diffusion.per) for part in both], 1)
        prediction = denoiser(view.x, view.t, places=view.places, where=asked)
        total, _ = prediction.cross_entropy(batch.tokens.repeat(1, 2)[asked], weights[asked])
        return Loss(total, self.count(batch))

"""Data-driven clipped schedules (BD3-LM, arXiv 2503.09573, section 5.2): train at the mask rates that vary least.

Very low and very high rates make a block's loss vary most from draw to draw and teach least. The interval is searched
anew as the network learns; what a model is worth is always measured over all rates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..data.packing import Batch
from ..denoiser import Denoiser
from ..noise.draws import FromGenerator
from .masked import MaskedBound, shown
from .objective import Loss, places_of

BINS = 20  # the grid: intervals begin and end at multiples of 1 / BINS
NARROWEST = BINS // 2  # BD3-LM's search never goes below a width of one half


@dataclass
class Clipped:
    """A masked bound whose interval `clip` is the best found so far. every: training steps between searches; draws:
    noisings of each held-out block in one."""

    bound: MaskedBound
    every: int = 250
    draws: int = 4

    def count(self, batch: Batch) -> int:
        return self.bound.count(batch)

    def __call__(self, denoiser: Denoiser, batch: Batch, rng: FromGenerator) -> Loss:
        return self.bound(denoiser, batch, rng)

    @torch.no_grad()
    def adapt(self, denoiser: Denoiser, batches: Sequence[Batch], rng: FromGenerator) -> dict[str, float]:
        """Search on held-out batches. One set of passes over all rates serves every interval of the grid."""
        found = [block_losses(self.bound, denoiser, batch, rng) for batch in batches for _ in range(self.draws)]
        variances = variances_between(*(torch.cat(parts) for parts in zip(*found)))
        clip = min(variances, key=lambda interval: variances[interval])
        self.bound = replace(self.bound, clip=clip)
        best, full = variances[clip], variances[0.0, 1.0]
        return {"clip_low": clip[0], "clip_high": clip[1], "clip_variance": best, "full_variance": full}

    def state_dict(self) -> dict[str, float]:
        return {"low": self.bound.clip[0], "high": self.bound.clip[1]}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.bound = replace(self.bound, clip=(state["low"], state["high"]))


def block_losses(bound: MaskedBound, denoiser: Denoiser, batch: Batch, rng: FromGenerator) -> tuple[Tensor, Tensor]:
    """Every block that has something to score, noised once: its level and its loss, nats a token, both (N,) float64."""
    places = places_of(batch)
    numbers, levels = bound.layout.numbers(places), bound.layout.levels(places, rng.generator)
    masked, weights = bound.masks_at(levels, batch, rng)
    _, nll = shown(denoiser, batch, masked, bound.layout).cross_entropy(batch.tokens[masked], weights[masked])
    costs = torch.zeros_like(weights, dtype=torch.float64)
    costs[masked] = weights[masked].double() * nll.double()
    totals, sizes = (torch.zeros_like(levels).scatter_add_(1, numbers, x.to(levels)) for x in (costs, batch.scored))
    real = sizes > 0
    return levels[real].cpu(), (totals[real] / sizes[real]).cpu()


def variances_between(levels: Tensor, losses: Tensor) -> dict[tuple[float, float], float]:
    """Variance of the losses (N,) whose level (N,) lies in each interval of the grid; the full one is among them."""
    bins = (levels * BINS).long().clamp(max=BINS - 1)
    moments = torch.stack([torch.ones_like(losses), losses, losses.square()])  # (3, N)
    sums = torch.zeros(3, BINS, dtype=torch.float64).index_add_(1, bins, moments)
    sums = torch.cat([torch.zeros(3, 1, dtype=torch.float64), sums.cumsum(1)], 1)
    out = {}
    for first in range(BINS):
        for last in range(first + NARROWEST, BINS + 1):
            n, total, squares = (sums[:, last] - sums[:, first]).tolist()
            if n > 1:
                out[first / BINS, last / BINS] = squares / n - (total / n) ** 2
    return out

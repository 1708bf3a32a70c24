"""How noisy a training step is: the spread of its loss, and of its gradient, when only the noise is drawn anew. Knows
no method by name.

The bound does not depend on the noise schedule but its variance does (MDLM, arXiv 2406.07524); block diffusion picks
its clipped schedule by it (BD3-LM, arXiv 2503.09573, section 5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.packing import Batch
from ..denoiser import Denoiser
from ..noise.draws import seeded
from ..objectives.objective import Objective


@dataclass(frozen=True)
class Spread:
    """Of the loss of one batch, nats a token. noise: its variance over draws of the noise on the same text; total: over
    texts too. A method without noise (autoregression) has noise 0."""

    mean: float
    noise: float
    total: float


@torch.no_grad()
def loss_spread(
    denoiser: Denoiser, objective: Objective, batches: Sequence[Batch], *, draws: int = 4, seed: int = 0
) -> Spread:
    """Each batch `draws` times, in evaluation mode."""
    training = denoiser.training
    denoiser.eval()
    try:
        losses = torch.stack([_losses(denoiser, objective, batch, draws, seed, i) for i, batch in enumerate(batches)])
    finally:
        denoiser.train(training)
    noise = losses.var(1).mean() if draws > 1 else losses.new_tensor(float("nan"))
    between = losses.mean(1).var() if len(batches) > 1 else losses.new_tensor(0.0)
    total = between + noise * (draws - 1) / draws  # the mean over draws still carries noise / draws
    return Spread(float(losses.mean()), float(noise), float(total))


def _losses(denoiser: Denoiser, objective: Objective, batch: Batch, draws: int, seed: int, index: int) -> Tensor:
    batch = batch.to(denoiser.banned.device)
    count = max(objective.count(batch), 1)
    found = [objective(denoiser, batch, seeded(seed, index, draw)).total / count for draw in range(draws)]
    return torch.stack(found).double().cpu()


def gradient_noise(
    denoiser: Denoiser, objective: Objective, batch: Batch, *, draws: int = 8, seed: int = 0
) -> tuple[float, float]:
    """Squared length of the mean gradient of one batch, and the variance around it summed over all weights."""
    batch = batch.to(denoiser.banned.device)
    weights = [p for p in denoiser.parameters() if p.requires_grad]
    total = [torch.zeros_like(p, dtype=torch.float64) for p in weights]
    squares = 0.0
    for draw in range(draws):
        loss = objective(denoiser, batch, seeded(seed, draw)).total / max(objective.count(batch), 1)
        grads = torch.autograd.grad(loss, weights, allow_unused=True)
        for sum_, grad in zip(total, grads):
            if grad is not None:
                sum_ += grad
                squares += float(grad.double().square().sum())
    mean = sum(float((s / draws).square().sum()) for s in total)
    variance = (squares - draws * mean) / (draws - 1)
    return mean - variance / draws, variance

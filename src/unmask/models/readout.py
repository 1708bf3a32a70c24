"""From hidden states to the vocabulary, in chunks, so that memory does not grow with vocabulary x length.

Knows a head's weights and which symbols may never be emitted (the mask); knows nothing of noise.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 4 << 20  # logits held at a time, in elements: 16 MB in float32


def rows_at_a_time(vocab: int) -> int:
    return max(64, CHUNK // vocab)


def logits(hidden: Tensor, weight: Tensor, banned: Tensor | None = None) -> Tensor:
    """(N, D), (V, D) -> (N, V) float32; symbols in banned (K,) get -inf."""
    out = F.linear(hidden, weight.to(hidden.dtype)).float()
    return out if banned is None else out.index_fill(-1, banned, -torch.inf)


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total += a @ b; without a temporary where the dtypes agree."""
    if a.dtype == total.dtype:
        total.addmm_(a, b)
    else:
        total += a @ b


class _WeightedCrossEntropy(torch.autograd.Function):
    """sum_i w_i * CE_i with its gradients taken on the way: no logits are kept, none are computed twice."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, weights: Tensor, banned: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        cast = weight.to(hidden.dtype)
        grad_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        nll = torch.empty(len(hidden), device=hidden.device)
        step = rows_at_a_time(len(weight))
        for start in range(0, len(hidden), step):  # no row at all is fine: nothing happened to be masked
            rows = slice(start, start + step)
            scores = F.linear(hidden[rows], cast).float()
            if banned is not None:
                scores.index_fill_(-1, banned, -torch.inf)
            true = targets[rows, None]
            picked = scores.gather(-1, true)
            most = scores.amax(-1, keepdim=True)
            scores.sub_(most).exp_()
            total = scores.sum(-1, keepdim=True)
            nll[rows] = (total.log() + most - picked).squeeze(-1)
            if grad_hidden is None and grad_weight is None:
                continue
            weigh = weights[rows, None]
            scores.mul_(weigh / total).scatter_add_(-1, true, -weigh)  # weight * (probability - true)
            slopes = scores.to(hidden.dtype)
            if grad_hidden is not None:
                torch.mm(slopes, cast, out=grad_hidden[rows])
            if grad_weight is not None:
                _add_product(grad_weight, slopes.T, hidden[rows])
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.weight_dtype = weight.dtype
        ctx.mark_non_differentiable(nll)
        return (weights * nll).sum(), nll

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight = ctx.saved_tensors
        scale = grads[0]
        return (
            None if grad_hidden is None else grad_hidden * scale.to(grad_hidden.dtype),
            None if grad_weight is None else (grad_weight * scale).to(ctx.weight_dtype),
            None,
            None,
            None,
        )


def weighted_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, weights: Tensor, banned: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """hidden (N, D), weight (V, D), targets (N,) int64, weights (N,) -> (sum_i w_i CE_i scalar, CE (N,) no gradient).

    Nats. A banned symbol has probability zero; a target that is banned costs infinity.
    """
    kind = hidden.device.type
    if torch.is_autocast_enabled(kind):  # a Function sees its inputs as they are; all three matmuls shall be cast
        hidden = hidden.to(torch.get_autocast_dtype(kind))
    return _WeightedCrossEntropy.apply(hidden, weight, targets, weights.float(), banned)  # type: ignore[no-untyped-call]

"""From hidden states to the vocabulary, in chunks, so that memory does not grow with vocabulary x length.

Knows a head's weights and which symbols may never be emitted (the mask); knows nothing of noise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .linear import product

CHUNK = 4 << 20  # logits held at a time, in elements: 16 MB in float32


def rows_at_a_time(vocab: int) -> int:
    return max(64, CHUNK // vocab)


def logits(hidden: Tensor, weight: Tensor, banned: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """(N, D), (V, D), (V,) -> (N, V) float32; symbols in banned (K,) get -inf."""
    out = product(hidden, weight.to(hidden.dtype)).float()
    out = out if bias is None else out.add_(bias)
    return out if banned is None else out.index_fill_(-1, banned, -torch.inf)


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total += a @ b; without a temporary where the dtypes agree."""
    if a.dtype == total.dtype:
        total.addmm_(a, b)
    else:
        total += a @ b


# scores (n, V), which rows they are, is the gradient wanted -> costs (n,), d(sum of weighted costs) / d scores (n, V)
Slopes = Callable[[Tensor, slice, bool], tuple[Tensor, Tensor | None]]
Cost = Callable[[Tensor, slice], Tensor]  # something about each row's symbols (n, V), which rows they are -> (n,)


class _WeightedCost(torch.autograd.Function):
    """sum_i w_i * cost_i with its gradients taken on the way: no logits are kept, none are computed twice."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        banned: Tensor | None,
        weights: Tensor,
        slopes: Slopes,
        wanted: bool,
    ) -> tuple[Tensor, Tensor]:
        cast, needs = weight.to(hidden.dtype), ctx.needs_input_grad if wanted else [False] * 3
        grad_hidden = torch.empty_like(hidden) if needs[0] else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if needs[1] else None
        grad_bias = torch.zeros_like(bias, dtype=torch.float32) if bias is not None and needs[2] else None
        costs = torch.empty(len(hidden), device=hidden.device)
        step = rows_at_a_time(len(weight))
        for start in range(0, len(hidden), step):  # no row at all is fine: nothing happened to be masked
            rows = slice(start, start + step)
            costs[rows], slope = slopes(logits(hidden[rows], cast, banned, bias), rows, any(needs[:3]))
            if slope is None:
                continue
            low = slope.to(hidden.dtype)
            if grad_hidden is not None:
                torch.mm(low, cast, out=grad_hidden[rows])
            if grad_weight is not None:
                _add_product(grad_weight, low.T, hidden[rows])
            if grad_bias is not None:
                grad_bias += slope.sum(0)
        ctx.save_for_backward(grad_hidden, grad_weight, grad_bias)
        ctx.dtypes = weight.dtype, None if bias is None else bias.dtype
        ctx.mark_non_differentiable(costs)
        return (weights * costs).sum(), costs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight, grad_bias = ctx.saved_tensors
        scale = grads[0]
        return (
            None if grad_hidden is None else grad_hidden * scale.to(grad_hidden.dtype),
            None if grad_weight is None else (grad_weight * scale).to(ctx.dtypes[0]),
            None if grad_bias is None else (grad_bias * scale).to(ctx.dtypes[1]),
            *[None] * 4,
        )


def weighted_cost(
    hidden: Tensor,
    weight: Tensor,
    weights: Tensor,
    slopes: Slopes,
    banned: Tensor | None = None,
    bias: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """hidden (N, D), weight (V, D), weights (N,) -> (sum_i w_i cost_i scalar, cost (N,) no gradient)."""
    kind = hidden.device.type
    if torch.is_autocast_enabled(kind):  # a Function sees its inputs as they are; all three matmuls shall be cast
        hidden = hidden.to(torch.get_autocast_dtype(kind))
    wanted = torch.is_grad_enabled()  # inside a Function it never is, and what needs a gradient would get one anyway
    return _WeightedCost.apply(hidden, weight, bias, banned, weights.float(), slopes, wanted)  # type: ignore[no-untyped-call]


def differentiated(cost: Cost, weights: Tensor) -> Slopes:
    """Slopes of any differentiable cost of the logits, by autograd inside each chunk."""

    def slopes(scores: Tensor, rows: slice, wanted: bool) -> tuple[Tensor, Tensor | None]:
        if not wanted:
            return cost(scores, rows), None
        with torch.enable_grad():  # a Function's forward runs without
            each = cost(scores.requires_grad_(), rows)
            (slope,) = torch.autograd.grad((weights[rows] * each).sum(), scores)
        return each.detach(), slope

    return slopes


def weighted_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    weights: Tensor,
    banned: Tensor | None = None,
    bias: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """hidden (N, D), weight (V, D), targets (N,) int64, weights (N,) -> (sum_i w_i CE_i scalar, CE (N,) no gradient).

    Nats. A banned symbol has probability zero; a target that is banned costs infinity.
    """

    def slopes(scores: Tensor, rows: slice, wanted: bool) -> tuple[Tensor, Tensor | None]:
        true = targets[rows, None]
        picked = scores.gather(-1, true)
        most = scores.amax(-1, keepdim=True)
        scores.sub_(most).exp_()
        total = scores.sum(-1, keepdim=True)
        nll = (total.log() + most - picked).squeeze(-1)
        if not wanted:
            return nll, None
        weigh = weights[rows, None].float()
        return nll, scores.mul_(weigh / total).scatter_add_(-1, true, -weigh)  # weight * (probability - true)

    return weighted_cost(hidden, weight, weights, slopes, banned, bias)

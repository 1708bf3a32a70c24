"""A mixture of experts: a router sends each position to a few of many small SwiGLU MLPs and adds up what they say.

One router carries the published ones: softmax scores (LLaDA-MoE, Qwen3-MoE) or sigmoid scores with a bias for the
choice alone and experts chosen within the best groups (LLaDA 2, after DeepSeek-V3, arXiv 2412.19437, section 2.1).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..rowwise import sigmoid, times
from .config import ModelConfig, MoEConfig
from .mlp import SwiGLU


class Router(nn.Module):
    """Which experts, and how much of each. In float32: a rounded score would choose other experts."""

    def __init__(self, width: int, moe: MoEConfig) -> None:
        super().__init__()
        self.moe = moe
        self.weight = nn.Parameter(torch.empty(moe.experts, width))
        # a buffer in spirit, set by load balancing and not by gradients; saved with the weights
        self.bias = nn.Parameter(torch.zeros(moe.experts), requires_grad=False) if moe.bias != "none" else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (N, D) -> weights (N, K) float32 and the experts they are for, (N, K) int64."""
        moe = self.moe
        raw = times(x.float(), self.weight.float().T)
        scores = raw.softmax(-1) if moe.score == "softmax" else sigmoid(raw)
        steered = scores if self.bias is None else scores + self.bias.float()
        chosen = self._within_groups(steered).topk(moe.active, sorted=False).indices
        weights = (steered if moe.bias == "weight" else scores).gather(-1, chosen)
        if moe.normalise:
            weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
        return weights * moe.scale, chosen

    def _within_groups(self, scores: Tensor) -> Tensor:
        """Scores with -inf outside the groups kept; a group is as good as its two best experts together."""
        if self.moe.groups == 1:
            return scores
        grouped = scores.unflatten(-1, (self.moe.groups, -1))
        best = grouped.topk(min(2, grouped.shape[-1])).values.sum(-1)
        kept = torch.zeros_like(best, dtype=torch.bool).scatter(-1, best.topk(self.moe.kept_groups).indices, True)
        return grouped.masked_fill(~kept[..., None], -torch.inf).flatten(-2)


class MoE(nn.Module):
    """Parameters gate_up (E, 2 H, D) and down (E, D, H) hold all experts."""

    def __init__(self, c: ModelConfig) -> None:
        super().__init__()
        assert c.moe is not None
        moe = c.moe
        self.router = Router(c.width, moe)
        self.gate_up = nn.Parameter(torch.empty(moe.experts, 2 * moe.hidden, c.width))
        self.down = nn.Parameter(torch.empty(moe.experts, c.width, moe.hidden))
        self.shared = SwiGLU(c.model_copy(update={"hidden": moe.shared})) if moe.shared else None

    def forward(self, x: Tensor) -> Tensor:
        """x (..., D) -> (..., D)."""
        rows = x.flatten(0, -2)
        weights, chosen = self.router(rows)
        out = torch.zeros_like(rows) if self.shared is None else self.shared(rows)
        order = chosen.flatten().argsort(stable=True)  # the (row, choice) pairs, expert by expert
        counts = chosen.flatten().bincount(minlength=len(self.gate_up)).tolist()
        shares = weights.flatten()[order, None].to(x.dtype)
        for expert, (pairs, share) in enumerate(zip(order.split(counts), shares.split(counts))):
            if len(pairs):
                here = pairs // chosen.shape[1]
                out = out.index_add(0, here, self._expert(expert, rows[here]) * share)
        return out.view_as(x)

    def _expert(self, expert: int, x: Tensor) -> Tensor:
        gate, up = times(x, self.gate_up[expert].T).chunk(2, -1)
        return times(F.silu(gate) * up, self.down[expert].T)

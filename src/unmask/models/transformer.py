"""The one transformer. Config decides norms, biases, MLP, heads and time conditioning; a rule decides who sees whom.

It maps tokens to hidden states and knows nothing of noise: no mask token, no shift, no loss. Departures from a plain
Llama block: q/k norm is an option on every model, keys and values (and gate and up) are one matrix, what writes to the
residual stream and the head start at zero, and the last layer can compute only the positions that are asked for.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .attention import Everything, Places, Rule, Visibility, attend
from .config import ModelConfig
from .fused import rms_norm, turn


class RMSNorm(nn.Module):
    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)


class LayerNorm(nn.Module):
    """Without a bias, as in the DiT of MDLM and SEDD."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.weight.to(x.dtype), None, self.eps)


NORMS = {"rms": RMSNorm, "layer": LayerNorm}


Angles = tuple[Tensor, Tensor]  # their cos and sin


def rope(position: Tensor, width: int, theta: float) -> Angles:
    """cos and sin (B, L, 1, width / 2) of the rotary embedding in the rotate-half form, float32 (arXiv 2104.09864)."""
    rates = theta ** (-torch.arange(0, width, 2, device=position.device, dtype=torch.float32) / width)
    angle = position[:, :, None, None].float() * rates
    return angle.cos(), angle.sin()


class Attention(nn.Module):
    """Queries are a matrix of their own, so that they can be asked for at a few positions only."""

    def __init__(self, c: ModelConfig) -> None:
        super().__init__()
        self.head = c.head_dim
        self.q = nn.Linear(c.width, c.heads * c.head_dim, bias=c.qkv_bias)
        self.kv = nn.Linear(c.width, 2 * c.n_kv_heads * c.head_dim, bias=c.qkv_bias)
        self.out = nn.Linear(c.heads * c.head_dim, c.width, bias=c.out_bias)
        self.q_norm = RMSNorm(c.head_dim, c.norm_eps) if c.qk_norm else None
        self.k_norm = RMSNorm(c.head_dim, c.norm_eps) if c.qk_norm else None
        self.norm_eps = c.norm_eps

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, see: Visibility) -> Tensor:
        """x (B, L, D) -> (B, L, D)."""
        return self.out(self._mix(x, x, (cos, sin), (cos, sin), see))

    def ask(self, x: Tensor, cos: Tensor, sin: Tensor, see: Visibility, index: Tensor, real: Tensor) -> Tensor:
        """Keys and values from all of x (B, L, D), queries only at index (B, K); real (B, K) -> (N, D) in row order."""
        asked = x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))
        where = index[..., None, None].expand(-1, -1, -1, self.head // 2)
        cos_at, sin_at = (c.expand(len(x), -1, -1, -1).gather(1, where) for c in (cos, sin))
        return self.out(self._mix(asked, x, (cos_at, sin_at), (cos, sin), see.only(index))[real])

    def _mix(self, asked: Tensor, x: Tensor, q_at: Angles, k_at: Angles, see: Visibility) -> Tensor:
        q, (k, v) = self._heads(self.q(asked)), self._heads(self.kv(x)).chunk(2, 2)
        q, k = self._turned(q, q_at, self.q_norm), self._turned(k, k_at, self.k_norm)
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))  # (B, heads, L, D)
        mixed = attend(q, k, v, see)
        return mixed.transpose(1, 2).flatten(2)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.head))  # (B, L, heads, D)

    def _turned(self, x: Tensor, at: Angles, norm: RMSNorm | None) -> Tensor:
        return turn(x, *at, None if norm is None else norm.weight, self.norm_eps)


class SwiGLU(nn.Module):
    def __init__(self, c: ModelConfig) -> None:
        super().__init__()
        self.gate_up = nn.Linear(c.width, 2 * c.mlp_width, bias=c.mlp_bias)
        self.down = nn.Linear(c.mlp_width, c.width, bias=c.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, -1)
        return self.down(F.silu(gate) * up)


class GELU(nn.Module):
    def __init__(self, c: ModelConfig) -> None:
        super().__init__()
        self.up = nn.Linear(c.width, c.mlp_width, bias=c.mlp_bias)
        self.down = nn.Linear(c.mlp_width, c.width, bias=c.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x), approximate="tanh"))


MLPS = {"swiglu": SwiGLU, "gelu": GELU}


class TimeEmbedding(nn.Module):
    """Noise level (B, L) -> (B, L, C): sinusoids of 1000 t through a small MLP, as in DiT."""

    def __init__(self, width: int, waves: int = 256) -> None:
        super().__init__()
        self.waves = waves
        self.mlp = nn.Sequential(nn.Linear(waves, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        half = self.waves // 2
        rates = torch.exp(-math.log(10_000.0) * torch.arange(half, device=t.device, dtype=torch.float32) / half)
        angle = 1000 * t[..., None].float() * rates
        return F.silu(self.mlp(torch.cat([angle.cos(), angle.sin()], -1)))


class Block(nn.Module):
    """x + attention(norm x), x + mlp(norm x); with time conditioning both are shifted, scaled and gated (adaLN)."""

    def __init__(self, c: ModelConfig) -> None:
        super().__init__()
        self.norm1, self.attention = NORMS[c.norm](c.width, c.norm_eps), Attention(c)
        self.norm2, self.mlp = NORMS[c.norm](c.width, c.norm_eps), MLPS[c.activation](c)
        self.modulate = nn.Linear(c.time_width, 6 * c.width) if c.time == "adaln" else None
        self.dropout = nn.Dropout(c.dropout)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, see: Visibility, time: Tensor | None) -> Tensor:
        first, second = self._modulation(time)
        x = x + self._gated(self.attention(first.apply(self.norm1(x)), cos, sin, see), first)
        return x + self._gated(self.mlp(second.apply(self.norm2(x))), second)

    def ask(self, x: Tensor, cos: Tensor, sin: Tensor, see: Visibility, time: Tensor | None, where: Tensor) -> Tensor:
        """The same block, computed only at where (B, L) bool -> (N, D)."""
        first, second = self._modulation(time)
        index, real = ragged(where)
        mixed = self.attention.ask(first.apply(self.norm1(x)), cos, sin, see, index, real)
        x = x[where] + self._gated(mixed, first.at(where))
        second = second.at(where)
        return x + self._gated(self.mlp(second.apply(self.norm2(x))), second)

    def _gated(self, branch: Tensor, modulation: Modulation) -> Tensor:
        branch = branch if modulation.gate is None else modulation.gate * branch
        return self.dropout(branch)

    def _modulation(self, time: Tensor | None) -> tuple[Modulation, Modulation]:
        if self.modulate is None or time is None:
            return Modulation(), Modulation()
        parts = self.modulate(time).chunk(6, -1)
        return Modulation(*parts[:3]), Modulation(*parts[3:])


class Modulation:
    """shift, scale, gate of one branch, each (..., D) or None."""

    def __init__(self, shift: Tensor | None = None, scale: Tensor | None = None, gate: Tensor | None = None) -> None:
        self.shift, self.scale, self.gate = shift, scale, gate

    def apply(self, x: Tensor) -> Tensor:
        return x if self.scale is None or self.shift is None else x * (1 + self.scale) + self.shift

    def at(self, where: Tensor) -> Modulation:
        return Modulation(*(None if part is None else part[where] for part in (self.shift, self.scale, self.gate)))


def ragged(where: Tensor) -> tuple[Tensor, Tensor]:
    """where (B, L) bool -> index (B, K) of the asked positions in order, padded, and which of them are real."""
    counts = where.sum(1, keepdim=True)
    most = max(int(counts.max()), 1)
    index = where.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :most]
    return index, torch.arange(most, device=where.device) < counts


class Transformer(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        c = self.config = config
        self.embed = nn.Embedding(c.vocab, c.width)
        self.time: nn.Module | None = TimeEmbedding(c.time_width) if c.time == "adaln" else None
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.layers))
        self.norm = NORMS[c.norm](c.width, c.norm_eps)
        self.modulate = nn.Linear(c.time_width, 2 * c.width) if c.time == "adaln" else None
        self.head = nn.Linear(c.width, c.vocab, bias=False)
        if c.tied:
            self.head.weight = self.embed.weight
        self.recompute = False  # gradient checkpointing: a block's activations are computed again in the backward pass

    def initialise(self, rng: torch.Generator) -> Transformer:
        """Normal weights of variance 1 / fan-in; what writes to the residual stream, and the head, start at zero."""
        for name, p in self.named_parameters():
            zero = name.endswith(("out.weight", "down.weight", "bias")) or "modulate" in name or name == "head.weight"
            if name == "embed.weight":
                nn.init.normal_(p, std=1.0 if not self.config.tied else 0.02, generator=rng)
            elif zero:
                nn.init.zeros_(p)
            elif p.dim() == 2:
                nn.init.normal_(p, std=p.shape[1] ** -0.5, generator=rng)
        return self

    def forward(
        self,
        tokens: Tensor,
        places: Places | None = None,
        rule: Rule = Everything(),
        t: Tensor | None = None,
        where: Tensor | None = None,
    ) -> Tensor:
        """Hidden states ready for the head.

        tokens (B, L) int64, t (B, L) noise levels for a time-conditioned model, where (B, L) bool: the positions
        that are wanted -> (B, L, D), or (N, D) in row order.
        """
        places = Places.of(tokens) if places is None else places
        see = Visibility(rule, places, places)
        x = self.embed(tokens)
        cos, sin = rope(places.position, self.config.head_dim, self.config.rope_theta)
        time = self._time(tokens, t, x.dtype)
        body = self.blocks if where is None else self.blocks[:-1]
        for block in body:
            if self.recompute and self.training:
                x = checkpoint(block, x, cos, sin, see, time, use_reentrant=False)
            else:
                x = block(x, cos, sin, see, time)
        if where is not None:
            x = cast(Block, self.blocks[-1]).ask(x, cos, sin, see, time, where)
            time = None if time is None else time[where]
        return self._finish(x, time)

    def _time(self, tokens: Tensor, t: Tensor | None, dtype: torch.dtype) -> Tensor | None:
        if self.time is None:
            return None
        level: Tensor = self.time(torch.zeros_like(tokens) if t is None else t)
        return level.to(dtype)

    def _finish(self, x: Tensor, time: Tensor | None) -> Tensor:
        x = self.norm(x)
        if self.modulate is None or time is None:
            return x
        shift, scale = self.modulate(time).chunk(2, -1)
        return x * (1 + scale) + shift

    def matmul_flops(self, length: int) -> int:
        """Useful floating point operations a token of one forward pass: 2 a weight in a matmul, 4 L D a layer."""
        weights = sum(p.numel() for n, p in self.named_parameters() if p.dim() == 2 and n != "embed.weight")
        weights += self.embed.weight.numel() if self.config.tied else 0
        return 2 * weights + 4 * self.config.layers * length * self.config.heads * self.config.head_dim

"""The one transformer. Config decides norms, biases, MLP, heads and time conditioning; a rule decides who sees whom.

It maps tokens to hidden states and knows nothing of noise: no mask token, no shift, no loss. Departures from a plain
Llama block: q/k norm is an option on every model, keys and values (and gate and up) are one matrix, what writes to the
residual stream and the head start at zero, and the last layer can compute only the positions that are asked for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .attention import Everything, Memory, Places, Rule, Sight, Visibility
from .cache import Cache
from .config import ModelConfig
from .feedback import FEEDBACKS
from .fused import rms_norm, turn
from .linear import Linear
from .mlp import MLPS
from .moe import MoE
from .rope import Angles, rope


class RMSNorm(nn.Module):
    def __init__(self, width: int, eps: float, bias: bool = False) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)


class LayerNorm(nn.Module):
    """Without a bias in the DiT of MDLM and SEDD, with one in GPT-2."""

    def __init__(self, width: int, eps: float, bias: bool = False) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.layer_norm(x, x.shape[-1:], self.weight.to(x.dtype), bias, self.eps)


NORMS = {"rms": RMSNorm, "layer": LayerNorm}


def norm(c: ModelConfig) -> nn.Module:
    return NORMS[c.norm](c.width, c.norm_eps, c.norm_bias)


class Attention(nn.Module):
    """Queries are a matrix of their own, so that they can be asked for at a few positions only."""

    def __init__(self, c: ModelConfig) -> None:
        super().__init__()
        self.head, self.rotary, self.clip = c.head_dim, c.rotary_dim, c.clip_qkv
        self.q = Linear(c.width, c.heads * c.head_dim, bias=c.qkv_bias)
        self.kv = Linear(c.width, 2 * c.n_kv_heads * c.head_dim, bias=c.qkv_bias)
        self.out = Linear(c.heads * c.head_dim, c.width, bias=c.out_bias)
        self.whole = c.qk_norm == "whole"
        q_width, k_width = (n * c.head_dim if self.whole else c.head_dim for n in (c.heads, c.n_kv_heads))
        self.q_norm = RMSNorm(q_width, c.norm_eps) if c.qk_norm else None
        self.k_norm = RMSNorm(k_width, c.norm_eps) if c.qk_norm else None
        self.norm_eps = c.norm_eps

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, see: Sight) -> Tensor:
        """x (B, L, D) -> (B, L, D)."""
        return self.out(self._mix(x, x, (cos, sin), (cos, sin), see))

    def ask(self, x: Tensor, cos: Tensor, sin: Tensor, see: Sight, index: Tensor, real: Tensor) -> Tensor:
        """Keys and values from all of x (B, L, D), queries only at index (B, K); real (B, K) -> (N, D) in row order."""
        asked = x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))
        where = index[..., None, None].expand(-1, -1, -1, self.rotary)
        cos_at, sin_at = (c.expand(len(x), -1, -1, -1).gather(1, where) for c in (cos, sin))
        return self.out(self._mix(asked, x, (cos_at, sin_at), (cos, sin), see.only(index))[real])

    def _mix(self, asked: Tensor, x: Tensor, q_at: Angles, k_at: Angles, see: Sight) -> Tensor:
        q, (k, v) = self._heads(self.q(asked)), self._heads(self.kv(x)).chunk(2, 2)
        q, k = self._turned(q, q_at, self.q_norm), self._turned(k, k_at, self.k_norm)
        v = v if self.clip is None else v.clamp(-self.clip, self.clip)
        return see.mix(q, k, v)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.head))  # (B, L, heads, D)

    def _turned(self, x: Tensor, at: Angles, norm: RMSNorm | None) -> Tensor:
        if self.rotary == self.head and self.clip is None and not self.whole:
            return turn(x, *at, None if norm is None else norm.weight, self.norm_eps)
        if norm is not None:
            x = norm(x.flatten(2)).view_as(x) if self.whole else norm(x)
        x = x if self.clip is None else x.clamp(-self.clip, self.clip)
        return _turned_in_part(x, at, self.rotary, self.norm_eps)


def _turned_in_part(x: Tensor, at: Angles, rotary: int, eps: float) -> Tensor:
    """Only the first `rotary` numbers of each head turn; none where positions are learned."""
    if not rotary:
        return x
    return torch.cat([turn(x[..., :rotary], *at, None, eps), x[..., rotary:]], -1)


class TimeEmbedding(nn.Module):
    """Noise level (B, L) -> (B, L, C): sinusoids of the scaled level through a small MLP, as in DiT."""

    def __init__(self, width: int, scale: float, waves: int = 256) -> None:
        super().__init__()
        self.scale, self.waves = scale, waves
        self.mlp = nn.Sequential(Linear(waves, width), nn.SiLU(), Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        half = self.waves // 2
        rates = torch.exp(-math.log(10_000.0) * torch.arange(half, device=t.device, dtype=torch.float32) / half)
        angle = self.scale * t[..., None].float() * rates
        return F.silu(self.mlp(torch.cat([angle.cos(), angle.sin()], -1)))


class Block(nn.Module):
    """x + attention(norm x), x + mlp(norm x); with time conditioning both are shifted, scaled and gated (adaLN)."""

    def __init__(self, c: ModelConfig, layer: int) -> None:
        super().__init__()
        self.norm1, self.attention = norm(c), Attention(c)
        self.norm2 = norm(c)
        self.mlp = MLPS[c.activation](c) if c.moe is None or layer in c.moe.dense else MoE(c)
        self.modulate = None if c.time == "none" else Linear(c.time_width, 6 * c.width)
        self.dropout = c.dropout

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, see: Sight, time: Tensor | None) -> Tensor:
        first, second = self._modulation(time)
        x = x + self._gated(self.attention(first.apply(self.norm1(x)), cos, sin, see), first)
        return x + self._gated(self.mlp(second.apply(self.norm2(x))), second)

    def ask(self, x: Tensor, cos: Tensor, sin: Tensor, see: Sight, time: Tensor | None, where: Tensor) -> Tensor:
        """The same block, computed only at where (B, L) bool -> (N, D)."""
        first, second = self._modulation(time)
        index, real = ragged(where)
        mixed = self.attention.ask(first.apply(self.norm1(x)), cos, sin, see, index, real)
        x = x[where] + self._gated(mixed, first.at(where))
        second = second.at(where)
        return x + self._gated(self.mlp(second.apply(self.norm2(x))), second)

    def _gated(self, branch: Tensor, modulation: Modulation) -> Tensor:
        branch = branch if modulation.gate is None else modulation.gate * branch
        return F.dropout(branch, self.dropout) if self.dropout and self.training else branch

    def _modulation(self, time: Tensor | None) -> tuple[Modulation, Modulation]:
        if self.modulate is None or time is None:
            return Modulation(), Modulation()
        parts = self.modulate(time).chunk(6, -1)
        return Modulation(*parts[:3]), Modulation(*parts[3:])


class Modulation:
    """shift, scale, gate of one branch, each (B, L, D), or with 1 for B or L where all are told the same; or None."""

    def __init__(self, shift: Tensor | None = None, scale: Tensor | None = None, gate: Tensor | None = None) -> None:
        self.shift, self.scale, self.gate = shift, scale, gate

    def apply(self, x: Tensor) -> Tensor:
        return x if self.scale is None or self.shift is None else x * (1 + self.scale) + self.shift

    def at(self, where: Tensor) -> Modulation:
        parts = (self.shift, self.scale, self.gate)
        return Modulation(*(None if part is None else _picked(part, where) for part in parts))


def _picked(part: Tensor, where: Tensor) -> Tensor:
    """part (B or 1, L or 1, D) at where (B, L) -> (N, D)."""
    return part.expand(*where.shape, -1)[where]


def ragged(where: Tensor) -> tuple[Tensor, Tensor]:
    """where (B, L) bool -> index (B, K) of the asked positions in order, padded, and which of them are real."""
    if len(where) == 1:  # a packed pass
        index = where.nonzero()[:, 1][None]
        return index, torch.ones_like(index, dtype=torch.bool)
    counts = where.sum(1, keepdim=True)
    most = max(int(counts.max()), 1)
    index = where.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :most]
    return index, torch.arange(most, device=where.device) < counts


ZERO = ("out.weight", "down.weight", "mlp.down", "bias")  # what writes to the residual stream starts at zero


class Transformer(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        c = self.config = config
        self.embed = nn.Embedding(c.vocab, c.latent or c.width)
        self.inlet = Linear(c.latent, c.width, bias=False) if c.latent else None
        self.feedback: nn.Module | None = None if c.feedback == "none" else FEEDBACKS[c.feedback](c)
        self.positions = nn.Embedding(c.context, c.width) if c.positions == "learned" else None
        time = None if c.time == "none" else TimeEmbedding(c.time_width, c.time_scale)
        self.time: nn.Module | None = time if c.timed else None
        self.no_time: nn.Module | None = None if c.timed else time  # adds its biases, and is always told 0
        self.blocks = nn.ModuleList(Block(c, layer) for layer in range(c.layers))
        self.norm = norm(c)
        self.modulate = None if c.time == "none" else Linear(c.time_width, 2 * c.width)
        self.head = Linear(c.width, c.vocab, bias=c.head_bias)
        if c.tied:
            self.head.weight = self.embed.weight
        self.recompute = False  # gradient checkpointing: a block's activations are computed again in the backward pass

    def initialise(self, rng: torch.Generator) -> Transformer:
        """Normal weights of variance 1 / fan-in; what writes to the residual stream, and the head, start at zero. The
        gates of adaLN start open: what is zero behind a gate that is zero would stay so."""
        for name, p in self.named_parameters():
            zero = name.endswith(ZERO) or "modulate" in name or name in ("head.weight", "feedback.lead.weight")
            if name == "embed.weight":
                nn.init.normal_(p, std=1.0 if not self.config.tied else 0.02, generator=rng)
            elif zero:
                nn.init.zeros_(p)
            elif p.dim() > 1:
                nn.init.normal_(p, std=p.shape[-1] ** -0.5, generator=rng)
            if name.startswith("blocks.") and name.endswith("modulate.bias"):
                for gate in p.detach().chunk(6)[2::3]:
                    nn.init.ones_(gate)
        return self

    def forward(
        self,
        tokens: Tensor,
        places: Places | None = None,
        rule: Rule = Everything(),
        t: Tensor | None = None,
        where: Tensor | None = None,
        *,
        cache: Memory | None = None,
        feed: Tensor | None = None,
        feedback: Tensor | None = None,
    ) -> Tensor:
        """Hidden states ready for the head.

        tokens (B, L) int64, or embeddings (B, L, E) in their place; feedback (B, L, E): what it is told of
        its last word, if it has an input for that; t (B, L) noise levels for a time-conditioned model, where (B, L)
        bool: the positions that are wanted -> (B, L, D), or (N, D) in row order.

        With a cache only the positions feed (B, L) bool (all but padding if None) go through the network; they see each
        other and what the cache holds of the same row, which is one text: documents are not told apart -> (N, D) at
        where, or of all that is fed.
        """
        places = Places.of(tokens) if places is None else places
        t = self.told(t)
        sights: Sequence[Sight] = [Visibility(rule, places, places)] * len(self.blocks)
        if cache is not None:
            feed = places.real if feed is None else feed
            where = feed if where is None else where
            assert not bool((where & ~feed).any()), "a position is wanted that is not fed"
            sights = cache.open(rule, places.position, feed, places.clean)
            feedback = None if feedback is None else feedback[feed][None]
            tokens, where, places = tokens[feed][None], where[feed][None], Places(places.position[feed][None])
            t = None if t is None else t.expand(feed.shape)[feed][None]
        x = self._embedded(tokens, places, feedback)
        cos, sin = rope(places.position, self.config)
        time = self._time(tokens, t, x.dtype)
        body = self.blocks if where is None else self.blocks[:-1]
        for block, see in zip(body, sights):
            if self.recompute and self.training:
                x = checkpoint(block, x, cos, sin, see, time, use_reentrant=False)
            else:
                x = block(x, cos, sin, see, time)
        if where is not None:
            x = cast(Block, self.blocks[-1]).ask(x, cos, sin, sights[-1], time, where)
            time = None if time is None else _picked(time, where)
        return self._finish(x, time)

    def told(self, t: Tensor | None) -> Tensor | None:
        """The part of the noise levels t (B, L) that the network reads: (B, L), (B, 1) if a row has one, or nothing."""
        if t is None or not self.config.timed:
            return None
        return t.amax(1, keepdim=True) if self.config.time_scope == "row" else t

    def cache(self, rows: int, slots: int) -> Cache:
        """An empty cache for texts of up to `slots` tokens, in the dtype and on the device of the weights."""
        c, like = self.config, self.embed.weight
        return Cache(c.layers, rows, slots, c.n_kv_heads, c.head_dim, like.dtype, like.device)

    def _embedded(self, tokens: Tensor, places: Places, feedback: Tensor | None) -> Tensor:
        x = tokens.to(self.embed.weight.dtype) if tokens.is_floating_point() else self.embed(tokens)
        x = x if self.inlet is None else self.inlet(x)
        if self.feedback is not None and feedback is not None:
            x = x + self.feedback(feedback.to(self.embed.weight.dtype))
        x = x if self.config.embed_scale == 1 else x * self.config.embed_scale
        return x if self.positions is None else x + self.positions(places.position)

    def _time(self, tokens: Tensor, t: Tensor | None, dtype: torch.dtype) -> Tensor | None:
        embedding = self.time or self.no_time
        if embedding is None:
            return None
        if t is None:  # one level for all, but in the shape of tokens: to the bit the same as levels that are given
            t = torch.zeros(tokens.shape[:2], device=tokens.device)
        level: Tensor = embedding(t)
        return level.to(dtype)

    def _finish(self, x: Tensor, time: Tensor | None) -> Tensor:
        x = self.norm(x)
        if self.modulate is not None and time is not None:
            shift, scale = self.modulate(time).chunk(2, -1)
            x = x * (1 + scale) + shift
        return x if self.config.logit_scale == 1 else x * self.config.logit_scale

    def matmul_flops(self, length: int, asked: float = 1.0) -> int:
        """Useful floating point operations a token of one forward pass: 2 a weight in a matmul, 4 L D a layer.

        asked: the share of positions whose output is wanted: only there run head and last block, but keys and values.
        """
        c, tables, last = self.config, ("embed.weight", "positions.weight"), cast(Block, self.blocks[-1])
        weights = self._in_matmuls(self) - sum(p.numel() for n, p in self.named_parameters() if n in tables)
        weights += self.embed.weight.numel() if c.tied else 0
        spared = self.head.weight.numel() + self._in_matmuls(last.mlp)
        spared += self._in_matmuls(last.attention.q) + self._in_matmuls(last.attention.out)
        pairs = length * c.heads * c.head_dim * (c.layers - 1 + asked)
        return round(2 * (weights - (1 - asked) * spared) + 4 * pairs)

    def _in_matmuls(self, part: nn.Module) -> int:
        """Weights that a token meets in matrices; of a mixture's experts, the active ones."""
        moe, flat = self.config.moe, sum(p.numel() for p in part.parameters() if p.dim() == 2)
        experts = sum(p.numel() for p in part.parameters() if p.dim() == 3)
        return flat + (experts * moe.active // moe.experts if moe else 0)

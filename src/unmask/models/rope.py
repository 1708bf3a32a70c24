"""Rotary position embedding (arXiv 2104.09864): the angles by which queries and keys are turned."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .config import ModelConfig, RopeScaling

Angles = tuple[Tensor, Tensor]  # their cos and sin, as `rope` lays them out


def rope(position: Tensor, c: ModelConfig) -> Angles:
    """Two tensors (B, L, 1, R), float32, for the R numbers of a head that rotate in the rotate-half form: the cos of
    each number's angle, and its sin, negative for the left half, so that a turn is x cos + (x's halves swapped) sin."""
    width = c.rotary_dim
    rates = c.rope_theta ** (-torch.arange(0, width, 2, device=position.device, dtype=torch.float32) / max(width, 1))
    if c.rope_scaling is not None:
        rates = _stretched(rates, c.rope_scaling)
    angle = position[:, :, None, None].float() * rates
    cos, sin = angle.cos(), angle.sin()
    return torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)


def _stretched(rates: Tensor, s: RopeScaling) -> Tensor:
    """Llama 3.1: rotations with few waves in the original context are slowed down, fast ones are not."""
    waves = s.original * rates / (2 * math.pi)
    keep = ((waves - s.low) / (s.high - s.low)).clamp(0, 1)
    return keep * rates + (1 - keep) * rates / s.factor

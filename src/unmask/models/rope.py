"""Rotary position embedding (arXiv 2104.09864): the angles by which queries and keys are turned."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .config import ModelConfig, RopeScaling

Angles = tuple[Tensor, Tensor]  # their cos and sin


def rope(position: Tensor, c: ModelConfig) -> Angles:
    """cos and sin (B, L, 1, R / 2) of the rotate-half form, float32, for the R numbers of a head that rotate."""
    width = c.rotary_dim
    rates = c.rope_theta ** (-torch.arange(0, width, 2, device=position.device, dtype=torch.float32) / max(width, 1))
    if c.rope_scaling is not None:
        rates = _stretched(rates, c.rope_scaling)
    angle = position[:, :, None, None].float() * rates
    return angle.cos(), angle.sin()


def _stretched(rates: Tensor, s: RopeScaling) -> Tensor:
    """Llama 3.1: rotations with few waves in the original context are slowed down, fast ones are not."""
    waves = s.original * rates / (2 * math.pi)
    keep = ((waves - s.low) / (s.high - s.low)).clamp(0, 1)
    return keep * rates + (1 - keep) * rates / s.factor

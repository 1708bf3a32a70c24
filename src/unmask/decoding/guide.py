"""Plug-in control: a classifier of noisy vectors pulls what is being written towards what is wanted (Diffusion-LM,
arXiv 2205.14217, section 5). Knows no noise law and not what is wanted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import UserError

# x (B, W, D) noisy vectors, t (B, W) their times, real (B, W) bool: not padding -> log p(what is wanted | x), (B,)
Wanted = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Guide:
    """After each step, `rounds` moves of open positions by strength * n^2 * the gradient of log p(wanted | x).

    n^2 is the variance of the noise then: what the classifier says counts as one more observation beside z itself. The
    gradient of a row must depend on that row alone, and not on its padding.
    """

    wanted: Wanted
    strength: float = 1.0
    rounds: int = 3

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise UserError(f"guide.rounds={self.rounds}: use 1 or more, or no guide")

    def pull(self, x: Tensor, t: Tensor, real: Tensor, power: Tensor) -> Tensor:
        """x (B, W, D) at times t (B, W), moved where t > 0; power (B, W): n^2."""
        with torch.inference_mode(False), torch.enable_grad():
            x, t, real, power = (part.clone() for part in (x, t, real, power))  # made without gradients, they have none
            reach = (self.strength * power).masked_fill(t == 0, 0.0)[..., None]
            for _ in range(self.rounds):
                here = x.detach().requires_grad_()
                (slope,) = torch.autograd.grad(self.wanted(here, t, real).sum(), here)
                x = x + reach * slope
        return x.detach()

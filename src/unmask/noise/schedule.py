"""How fast a token fades: alpha(t) is the probability that it survives to time t. Knows no tokens and no networks.

Every schedule falls from alpha(0), one or nearly, to alpha(1), zero or nearly. The masked bound does not depend on the
choice, its variance does (MDLM, arXiv 2406.07524, section 3.5.1). All methods are elementwise on tensors of any shape.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor


class Schedule(Protocol):
    def alpha(self, t: Tensor) -> Tensor:
        """P(a token is still itself at time t), t in [0, 1]."""
        ...

    def slope(self, t: Tensor) -> Tensor:
        """d alpha / dt, never positive."""
        ...

    def time(self, alpha: Tensor) -> Tensor:
        """The inverse of alpha."""
        ...


@dataclass(frozen=True)
class Linear:
    """alpha = 1 - t: the weight of a masked token is 1/t, LLaDA's loss (arXiv 2502.09992, eq. 3)."""

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t

    def slope(self, t: Tensor) -> Tensor:
        return -torch.ones_like(t)

    def time(self, alpha: Tensor) -> Tensor:
        return 1 - alpha


@dataclass(frozen=True)
class Cosine:
    """alpha = cos(pi t / 2) ** power. Power 1 is MDLM's cosine, 2 its squared cosine."""

    power: float = 1.0

    def alpha(self, t: Tensor) -> Tensor:
        return torch.cos(t * (math.pi / 2)).clamp(min=0) ** self.power

    def slope(self, t: Tensor) -> Tensor:
        angle = t * (math.pi / 2)
        return -self.power * (math.pi / 2) * torch.sin(angle) * torch.cos(angle).clamp(min=0) ** (self.power - 1)

    def time(self, alpha: Tensor) -> Tensor:
        return torch.acos(alpha ** (1 / self.power)) * (2 / math.pi)


@dataclass(frozen=True)
class Sine:
    """alpha = 1 - sin(pi t / 2): fast at first, slow at the end. Duo calls it cosine."""

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - torch.sin(t * (math.pi / 2))

    def slope(self, t: Tensor) -> Tensor:
        return -(math.pi / 2) * torch.cos(t * (math.pi / 2))

    def time(self, alpha: Tensor) -> Tensor:
        return torch.asin(1 - alpha) * (2 / math.pi)


@dataclass(frozen=True)
class Polynomial:
    """alpha = 1 - t ** power: power 2 keeps text clean for longer, 0.5 fades it early."""

    power: float = 2.0

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t**self.power

    def slope(self, t: Tensor) -> Tensor:
        return -self.power * t ** (self.power - 1)

    def time(self, alpha: Tensor) -> Tensor:
        return (1 - alpha) ** (1 / self.power)


@dataclass(frozen=True)
class Sqrt:
    """alpha = 1 - sqrt(t + start): Diffusion-LM's, fast at first, since a little noise on a vector hides no token
    (arXiv 2205.14217, appendix A). alpha(0) = 1 - sqrt(start); zero already a moment before t = 1."""

    start: float = 1e-4

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - (t + self.start).clamp(max=1).sqrt()

    def slope(self, t: Tensor) -> Tensor:
        late = t + self.start
        return torch.where(late < 1, -0.5 * late.rsqrt(), 0.0)

    def time(self, alpha: Tensor) -> Tensor:
        return (1 - alpha).square() - self.start


@dataclass(frozen=True)
class LogLinear:
    """alpha = 1 - (1 - eps) t, that is sigma(t) = -log(1 - (1 - eps) t): SEDD's and MDLM's default. alpha(1) = eps."""

    eps: float = 1e-3

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - (1 - self.eps) * t

    def slope(self, t: Tensor) -> Tensor:
        return torch.full_like(t, self.eps - 1)

    def time(self, alpha: Tensor) -> Tensor:
        return (1 - alpha) / (1 - self.eps)


@dataclass(frozen=True)
class Geometric:
    """alpha = exp(-low ** (1 - t) high ** t), SEDD's noise for uniform graphs. Even alpha(0) is a little below one."""

    low: float = 1e-3
    high: float = 20.0

    def alpha(self, t: Tensor) -> Tensor:
        return torch.exp(-self._sigma(t))

    def slope(self, t: Tensor) -> Tensor:
        sigma = self._sigma(t)
        return -sigma * math.log(self.high / self.low) * torch.exp(-sigma)

    def time(self, alpha: Tensor) -> Tensor:
        return torch.log(-torch.log(alpha) / self.low) / math.log(self.high / self.low)

    def _sigma(self, t: Tensor) -> Tensor:
        return self.low * (self.high / self.low) ** t


@dataclass(frozen=True)
class Exponential:
    """alpha = exp(-sigma), sigma even from `low` to `high`: a token's chance to fade in the next moment is the same at
    all times. MDLM calls it linear. alpha(0) = exp(-low), alpha(1) = exp(-high)."""

    low: float = 0.0
    high: float = 10.0

    def alpha(self, t: Tensor) -> Tensor:
        return torch.exp(-(self.low + (self.high - self.low) * t))

    def slope(self, t: Tensor) -> Tensor:
        return (self.low - self.high) * self.alpha(t)

    def time(self, alpha: Tensor) -> Tensor:
        return (-torch.log(alpha) - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Logarithmic:
    """alpha = 1 - log2(1 + t): a little faster at first than a straight line (BD3-LM, arXiv 2503.09573, table 7)."""

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - torch.log1p(t) / math.log(2)

    def slope(self, t: Tensor) -> Tensor:
        return -1 / ((1 + t) * math.log(2))

    def time(self, alpha: Tensor) -> Tensor:
        return torch.expm1((1 - alpha) * math.log(2))


@dataclass(frozen=True)
class LogUniform:
    """1 - alpha = least ** (1 - t) most ** t: mask rates even in their logarithm, so that a masked token weighs alike
    at all times. It is what MDLM's change of variables and its importance sampling draw (arXiv 2406.07524, section
    3.5.1). Most texts are then hardly masked; even alpha(0) is a little below one."""

    least: float = 1e-3
    most: float = 1.0

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - self._lost(t)

    def slope(self, t: Tensor) -> Tensor:
        return -math.log(self.most / self.least) * self._lost(t)

    def time(self, alpha: Tensor) -> Tensor:
        return torch.log((1 - alpha) / self.least) / math.log(self.most / self.least)

    def _lost(self, t: Tensor) -> Tensor:
        return self.least * (self.most / self.least) ** t


@dataclass(frozen=True)
class Within:
    """Another schedule, drawn together so that alpha falls from `first` to `last` rather than from one to zero: the
    published schedules that keep an epsilon away from their ends. Of `Linear` it makes `LogLinear`."""

    schedule: Schedule = field(default_factory=Cosine)
    first: float = 1.0
    last: float = 1e-3

    def alpha(self, t: Tensor) -> Tensor:
        return self.last + (self.first - self.last) * self.schedule.alpha(t)

    def slope(self, t: Tensor) -> Tensor:
        return (self.first - self.last) * self.schedule.slope(t)

    def time(self, alpha: Tensor) -> Tensor:
        return self.schedule.time((alpha - self.last) / (self.first - self.last))

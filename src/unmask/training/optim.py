"""Optimisers and the course of their step size. Knows parameters by shape and name, not what they compute."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


def warm_cosine(progress: float, warmup: float, floor: float) -> float:
    """Linear warm-up, then half a cosine down to `floor` of the peak. progress in [0, 1] of the whole budget."""
    if progress < warmup:
        return progress / warmup
    along = (progress - warmup) / max(1 - warmup, 1e-9)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(along, 1.0)))


def warm_stable_decay(progress: float, warmup: float, floor: float, decay: float = 0.2) -> float:
    """Warm-up, a plateau, and a linear way down over the last `decay` of the budget (MiniCPM, arXiv 2404.06395)."""
    if progress < warmup:
        return progress / warmup
    return 1.0 if progress < 1 - decay else floor + (1 - floor) * max(0.0, (1 - progress) / decay)


def constant(progress: float, warmup: float, floor: float) -> float:
    return min(1.0, progress / warmup) if warmup else 1.0


COURSES: dict[str, Callable[[float, float, float], float]] = {
    "cosine": warm_cosine,
    "wsd": warm_stable_decay,
    "constant": constant,
}


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made orthogonal, for matrices inside the network (Jordan et al. 2024).

    torch.optim.Muon does the same in bfloat16; on processors without it that is several times slower than the whole
    training step, and it came only with torch 2.9. Here the five Newton-Schulz steps run in the gradient's own dtype.
    """

    def __init__(self, params: Iterable[Any], lr: float, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._move(p, p.grad, group["lr"], group["momentum"], group["weight_decay"])

    def _move(self, p: Tensor, grad: Tensor, lr: float, momentum: float, decay: float) -> None:
        state = self.state[p]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(p)
        average = state["momentum_buffer"].lerp_(grad, 1 - momentum)
        update = orthogonal(torch.lerp(grad, average, momentum))
        # a wide-to-tall matrix needs a larger step for the same change of its outputs
        p.mul_(1 - lr * decay).add_(update, alpha=-lr * max(1.0, p.shape[0] / p.shape[1]) ** 0.5)


def orthogonal(x: Tensor, steps: int = 5) -> Tensor:
    """The nearest (semi-)orthogonal matrix, roughly: a quintic Newton-Schulz iteration, singular values near 1."""
    tall = x.shape[0] > x.shape[1]
    y = (x.T if tall else x) / (x.norm() + 1e-7)
    for _ in range(steps):
        square = y @ y.T
        y = 3.4445 * y + (-4.7750 * square + 2.0315 * square @ square) @ y
    return y.T if tall else y


def positive(**values: float) -> None:
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name}={value} is not a positive number")


def adamw(groups: list[dict[str, Any]], lr: float, betas: tuple[float, float], eps: float) -> torch.optim.AdamW:
    return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps, fused=True)


@dataclass(frozen=True)
class AdamWPlan:
    """AdamW for everything. Decay acts on matrices only: a decayed norm or bias has no reason to shrink."""

    lr: float = 2e-3
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-8
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        positive(lr=self.lr, eps=self.eps)

    def build(self, network: nn.Module) -> list[torch.optim.Optimizer]:
        trained = {n: p for n, p in network.named_parameters() if p.requires_grad}
        groups = [
            {"params": [p for p in trained.values() if p.dim() >= 2], "weight_decay": self.weight_decay},
            {"params": [p for p in trained.values() if p.dim() < 2], "weight_decay": 0.0},
        ]
        return [adamw([g for g in groups if g["params"]], self.lr, self.betas, self.eps)]


@dataclass(frozen=True)
class MuonPlan:
    """Muon for the matrices inside the blocks, AdamW for embeddings, head, norms and biases."""

    lr: float = 4e-3
    matrix_lr: float = 0.02
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        positive(lr=self.lr, matrix_lr=self.matrix_lr, eps=self.eps)

    def build(self, network: nn.Module) -> list[torch.optim.Optimizer]:
        trained = [(n, p) for n, p in network.named_parameters() if p.requires_grad]
        inner = [
            p for n, p in trained if p.dim() == 2 and "blocks." in n and not any(w in n for w in ("modulate", "lora"))
        ]
        chosen = {id(p) for p in inner}
        outer = [p for _, p in trained if id(p) not in chosen]
        found: list[torch.optim.Optimizer] = []
        if outer:
            found.append(adamw([{"params": outer, "weight_decay": 0.0}], self.lr, self.betas, self.eps))
        if inner:
            found.append(Muon(inner, self.matrix_lr, weight_decay=self.weight_decay))
        return found


Plan = AdamWPlan | MuonPlan


def set_pace(optimizers: Iterable[torch.optim.Optimizer], factor: float) -> None:
    """Scale every group's own peak step size; the peak is kept beside it."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("peak_lr", group["lr"]) * factor


class Average:
    """Exponential moving average of trained weights, in float32. Young averages forget faster: (1 + n) / (10 + n)."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.shadow = {n: p.detach().float().clone() for n, p in network.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        self.steps += 1
        keep = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, p in network.named_parameters():
            if name in self.shadow:
                self.shadow[name].lerp_(p.detach().float(), 1 - keep)

    @torch.no_grad()
    def swap(self, network: nn.Module) -> None:
        """Exchange the average and the network's weights: call it again to get the weights back."""
        for name, p in network.named_parameters():
            if name in self.shadow:
                mine = p.detach().float().clone()
                p.copy_(self.shadow[name])
                self.shadow[name] = mine

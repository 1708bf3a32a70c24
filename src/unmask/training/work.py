"""How hard the machine works: the useful operations a run asks for, beside the best rate the machine has shown."""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from ..models.transformer import Transformer

AGAIN = 60.0  # seconds between two measurements of the peak
BACKWARD = 1  # forward passes' worth of work to carry the gradient back; once more for the gradients of the weights


def matmul_peak(device: torch.device, dtype: torch.dtype, size: int = 768) -> float:
    """The machine's FLOP/s in one large matmul, best of four. Takes about 0.3 s on a laptop."""
    size = size if device.type == "cpu" else 8192
    a = torch.randn(size, size, device=device, generator=torch.Generator(device)).to(dtype)
    best = math.inf
    for _ in range(4):
        _wait(device)
        start = time.perf_counter()
        a @ a
        _wait(device)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Work:
    """Counts what a network is fed and asked for while it trains, and says what share of the peak that work is.

    Useful work is matrix products, forward and backward, at the positions whose output is wanted; recomputed
    activations, padding of the asked positions and element-wise work are time, not work. Every query counts against
    the whole row, as is usual (PaLM, arXiv 2204.02311, appendix B). The peak is the best matmul this process has seen:
    measured anew now and then, since a machine may have been busy, or cold, the first time.
    """

    def __init__(self, network: Transformer, device: torch.device, dtype: torch.dtype) -> None:
        self.network, self.device, self.dtype = network, device, dtype
        self.fed = self.asked = 0
        self.peak, self.due = 0.0, 0.0
        seen = torch.compiler.disable(self._saw)  # here, not as a decorator: that would load the compiler on import
        self.hook = network.register_forward_hook(seen)

    def measure_peak(self) -> None:
        """At most once in AGAIN seconds: it is cheap beside training, not beside one small step."""
        if time.monotonic() >= self.due:
            self.peak = max(self.peak, matmul_peak(self.device, self.dtype))
            self.due = time.monotonic() + AGAIN

    def _saw(self, network: torch.nn.Module, given: tuple[Tensor, ...], hidden: Tensor) -> None:
        if network.training:
            self.fed += given[0].shape[0] * given[0].shape[1]
            self.asked += hidden.shape[:-1].numel()

    def take(self, length: int) -> float:
        """Useful floating point operations since the last call, for rows of `length`."""
        fed, asked = self.fed, self.asked
        self.fed = self.asked = 0
        trained = [p.numel() for p in self.network.parameters() if p.requires_grad]
        share = sum(trained) / max(sum(p.numel() for p in self.network.parameters()), 1)
        return fed * self.network.matmul_flops(length, asked / max(fed, 1)) * (1 + BACKWARD + share)

    def close(self) -> None:
        self.hook.remove()

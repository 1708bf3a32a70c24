"""What a block does to each position on its own: one MLP. The mixture of experts is in `moe`."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .config import ModelConfig
from .linear import Linear


class SwiGLU(nn.Module):
    def __init__(self, c: ModelConfig) -> None:
        super().__init__()
        self.gate_up = Linear(c.width, 2 * c.mlp_width, bias=c.mlp_bias)
        self.down = Linear(c.mlp_width, c.width, bias=c.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, -1)
        return self.down(F.silu(gate) * up)


class GELU(nn.Module):
    def __init__(self, c: ModelConfig) -> None:
        super().__init__()
        self.up = Linear(c.width, c.mlp_width, bias=c.mlp_bias)
        self.down = Linear(c.mlp_width, c.width, bias=c.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x), approximate="tanh"))


MLPS = {"swiglu": SwiGLU, "gelu": GELU}

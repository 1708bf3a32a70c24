"""A network's second input: what it said of the text before, as vectors beside the embeddings. Knows no noise."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..rowwise import sigmoid
from .config import ModelConfig
from .linear import Linear


class Added(nn.Module):
    """Added through a matrix that starts at zero: at first nobody listens (self-conditioning, arXiv 2208.04202)."""

    def __init__(self, c: ModelConfig) -> None:
        super().__init__()
        self.lead = Linear(c.latent or c.width, c.width, bias=False)

    def forward(self, said: Tensor) -> Tensor:
        return self.lead(said)


class Soft(nn.Module):
    """Added as it is, having been made a share of the way from the mask's embedding to that of what was believed (soft
    masks, arXiv 2510.17206): lam = scale * sigmoid(steepness * (-entropy - offset)), all three learnt, no share at
    first."""

    def __init__(self, c: ModelConfig) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(()))
        self.steepness = nn.Parameter(torch.ones(()))
        self.offset = nn.Parameter(-torch.ones(()))

    def share(self, entropy: Tensor) -> Tensor:
        """lam for beliefs of this entropy in nats, elementwise."""
        return self.scale * sigmoid(self.steepness * (-entropy - self.offset))

    def forward(self, said: Tensor) -> Tensor:
        return said + 0 * self.share(said[:1, :1, :1])  # its weights have a gradient in every step: processes agree


FEEDBACKS = {"added": Added, "soft": Soft}

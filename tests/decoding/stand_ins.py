"""Two models to decode with: one that knows a small distribution exactly, one transformer with random weights."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from unmask.denoiser import CleanLogits
from unmask.layout import Whole
from unmask.models.attention import Places
from unmask.models.config import ModelConfig
from unmask.models.transformer import Transformer
from unmask.noise.tokens import TokenNoise


@dataclass
class Answer:
    log_probs: Tensor

    def logits(self) -> Tensor:
        return self.log_probs

    def mu(self) -> Tensor:
        return self.log_probs

    def at(self, rows: slice) -> Answer:
        return Answer(self.log_probs[rows])


class Oracle(nn.Module):
    """mu_i = p(x0_i | what the other positions look like), by enumerating every text. Symbol `tokens` is the mask."""

    def __init__(self, process: TokenNoise, tokens: int, length: int, seed: int = 1) -> None:
        super().__init__()
        self.process, self.vocab, self.length = process, tokens + 1, length
        self.texts = torch.tensor(list(itertools.product(range(tokens), repeat=length)))
        rng = torch.Generator().manual_seed(seed)
        self.joint = torch.softmax(1.5 * torch.randn(len(self.texts), generator=rng).double(), 0)
        self.head, self.rule, self.network = CleanLogits(), Whole().rule, SimpleNamespace(time=object())
        self.banned, self.echo, self.packs = torch.tensor([tokens]), None, False

    def forward(self, x: Tensor, t: Tensor, *, places: Places, where: Tensor) -> Answer:
        """Equal rows are enumerated once: open positions of one pass have one time, or it does not matter (masking)."""
        code = ((x + self.vocab * (t > 0)) * (2 * self.vocab) ** torch.arange(self.length)).sum(1)
        _, back = code.unique(return_inverse=True)
        first = torch.empty(int(back.max()) + 1, dtype=torch.int64).scatter_(0, back, torch.arange(len(x)))
        return Answer(self.table(x[first], t[first])[back][where])

    def table(self, x: Tensor, t: Tensor) -> Tensor:
        like = self.process.likelihood(x, t)  # (B, L, V)
        each = torch.stack([like[:, i].gather(1, self.texts[:, i].expand(len(x), -1)) for i in range(self.length)], -1)
        mu = torch.zeros(*x.shape, self.vocab, dtype=torch.float64)
        for i in range(self.length):
            others = self.joint * each[..., [j for j in range(self.length) if j != i]].prod(-1)
            mu[:, i].scatter_add_(-1, self.texts[:, i].expand(len(x), -1), others)
        return (mu / mu.sum(-1, keepdim=True)).log()


VOCAB, MASK = 13, 12


def network(seed: int = 0, context: int = 64, **shape: Any) -> Transformer:
    """Random weights everywhere; a large head, so that the model is sure of some words and not of others."""
    net = Transformer(
        ModelConfig(**{"vocab": VOCAB, "width": 16, "layers": 2, "heads": 2, "context": context, **shape})
    )
    rng = torch.Generator().manual_seed(seed)
    for p in net.initialise(rng).parameters():
        if p.dim() == 2:
            nn.init.normal_(p, std=p.shape[1] ** -0.5, generator=rng)
    nn.init.normal_(net.head.weight, std=0.7, generator=rng)
    return net.eval()

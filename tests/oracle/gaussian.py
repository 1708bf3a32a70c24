"""The Bayes-optimal denoiser of embedding diffusion on the toy: the true posterior, by enumeration."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import nn
from toy import MASK, SYMBOLS, Toy

from unmask.denoiser import CleanLogits
from unmask.models.attention import Everything
from unmask.noise.embeddings import EmbeddingNoise
from unmask.noise.schedule import Sqrt

RADIUS, SQRT = 3.0, Sqrt()


def noise_of(schedule):
    """Three tokens in the plane, as far from each other as they can be; the mask, which nobody writes, on the first."""
    angle = torch.arange(SYMBOLS, dtype=torch.float64) * (2 * torch.pi / 3)
    return EmbeddingNoise(RADIUS * torch.stack([angle.cos(), angle.sin()], -1), schedule)


@dataclass
class Told:
    """Like `denoiser.Prediction`, mu held in full."""

    hidden: torch.Tensor

    def mu(self):
        return self.hidden

    def map(self, read):
        return read(self.hidden, slice(None))

    logits = mu


class PosteriorMean(nn.Module):
    """mu of every position by enumeration: all texts, weighed by how well they fit the other positions' vectors."""

    mask_id, vocab, rule, head, echo, packs = MASK, SYMBOLS, Everything(), CleanLogits(), None, False

    def __init__(self, toy, process):
        super().__init__()
        self.toy, self.process, self.network = toy, process, SimpleNamespace(time=object())
        self.register_buffer("banned", torch.tensor([MASK]))

    def forward(self, x, t, *, places=None, where=None, feedback=None, **more):
        x, t = x.double(), t.double()
        like = self.process.log_likelihood(x, t)  # (B, L, V)
        like = torch.where((t > 0)[..., None], like, torch.where(self._same(x), 0.0, -torch.inf))
        each = torch.stack([like[:, l, self.toy.texts[:, l]] for l in range(self.toy.length)], -1)  # (B, T, L)
        mu = torch.full((*t.shape, SYMBOLS), -torch.inf, dtype=torch.float64)
        for l in range(self.toy.length):
            others = self.toy.joint.log() + each[..., [j for j in range(self.toy.length) if j != l]].sum(-1)
            for v in range(MASK):
                mu[:, l, v] = others[:, self.toy.texts[:, l] == v].logsumexp(-1)
        return Told(mu.log_softmax(-1)[where])

    def _same(self, x):
        return (x[..., None, :] - self.process.table).abs().sum(-1) < 1e-6


def oracle(length=2, schedule=SQRT):
    toy, process = Toy(length), noise_of(schedule)
    return toy, process, PosteriorMean(toy, process)

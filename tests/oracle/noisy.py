"""Toy texts under noise that looks like text: the Bayes-optimal answer at every time, and everything enumerated."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from toy import MASK, SYMBOLS, TOKENS, Toy

from unmask.decoding.canvas import Row
from unmask.decoding.sampler import decode
from unmask.decoding.settings import Decoding
from unmask.denoiser import CleanLogits
from unmask.layout import Whole
from unmask.models.attention import Places
from unmask.noise.tokens import TokenNoise
from unmask.scores import ScorePrediction

as_many = pytest.mark.parametrize("draws", [4000, pytest.param(20_000, marks=pytest.mark.thorough)])
Integrand = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]  # (mu, x0, x, t) -> nats a position


class Said(ScorePrediction):
    """What a prediction offers, from mu (N, V) held in full; its scores are exactly those of mu."""

    def __init__(self, table: Tensor, process: TokenNoise, x: Tensor, t: Tensor) -> None:
        empty = torch.empty(0)
        super().__init__(empty, empty, None, process=process, scaled=False, x=x, t=t)
        object.__setattr__(self, "table", table)

    def logits(self) -> Tensor:
        return self.table

    def log_score(self) -> Tensor:
        return self.process.log_score(self.x, self.table, self.t.double())

    def cost(self, cost, weights: Tensor) -> tuple[Tensor, Tensor]:
        nats = cost(self.table, slice(None))
        return (weights * nats).sum(), nats

    def score_cost(self, cost, weights: Tensor) -> tuple[Tensor, Tensor]:
        nats = cost(self.log_score(), slice(None))
        return (weights * nats).sum(), nats


class Bayes(nn.Module):
    """Called like a `Denoiser`: the best answer to any noisy text, given how noisy each of its positions is."""

    banned: Tensor
    mask_id, vocab, level, echo, packs = MASK, SYMBOLS, None, None, False

    def __init__(self, process: TokenNoise, toy: Toy) -> None:
        super().__init__()
        self.process, self.toy = process, toy
        self.head, self.rule, self.network = CleanLogits(), Whole().rule, SimpleNamespace(time=object())
        self.register_buffer("banned", torch.tensor([MASK]))

    def forward(self, x: Tensor, t: Tensor, *, places: Places | None = None, where: Tensor | None = None) -> Said:
        """Equal rows at equal times are worked out once."""
        where = torch.ones_like(x, dtype=torch.bool) if where is None else where
        rows, back = torch.cat([x.double(), t.double()], 1).unique(dim=0, return_inverse=True)
        seen, times = rows.chunk(2, 1)
        mu = leave_one_out(self.process, self.toy, seen.long(), times)[back]
        return Said(mu[where], self.process, x[where], t[where])


def leave_one_out(process: TokenNoise, toy: Toy, x: Tensor, t: Tensor) -> Tensor:
    """log p(x0_l | what all other positions look like), (N, L, V) float64."""
    like = process.likelihood(x, t)  # (N, L, V)
    each = torch.stack([like[:, l].gather(1, toy.texts[:, l].expand(len(x), -1)) for l in range(toy.length)], -1)
    mu = torch.zeros(*x.shape, SYMBOLS, dtype=torch.float64)
    for l in range(toy.length):
        others = toy.joint * each[..., [j for j in range(toy.length) if j != l]].prod(-1)
        mu[:, l].scatter_add_(-1, toy.texts[:, l].expand(len(x), -1), others)
    return (mu / mu.sum(-1, keepdim=True)).log()


class Enumerated:
    """Every text x under every noisy text z, as pairs in the order of texts."""

    def __init__(self, process: TokenNoise, toy: Toy) -> None:
        self.process, self.toy = process, toy
        self.noisy = torch.tensor(list(itertools.product(range(SYMBOLS), repeat=toy.length)))
        self.x0 = toy.texts.repeat_interleave(len(self.noisy), 0)
        self.x = self.noisy.repeat(len(toy.texts), 1)

    def chance(self, t: float) -> Tensor:
        """q_t(z | x): (texts, noisy)."""
        times = torch.full(self.x.shape, t, dtype=torch.float64)
        like = self.process.likelihood(self.x, times).gather(-1, self.x0[..., None])[..., 0]
        return like.prod(1).view(len(self.toy.texts), -1)

    def divergence(self, t: float) -> Tensor:
        """KL(q_t(. | x) || p_t), (texts,): the nats about x that time t leaves."""
        q = self.chance(t)
        p = self.toy.joint @ q
        return (torch.xlogy(q, q) - torch.xlogy(q, p)).sum(1)

    def mean(self, t: float, values: Tensor) -> Tensor:
        """E over z ~ q_t of values (pairs,): (texts,)."""
        q = self.chance(t)
        return torch.where(q > 0, q * values.view(q.shape), 0.0).sum(1)

    def integrand(self, t: float, cost: Integrand, knows: Toy | None = None) -> Tensor:
        times = torch.full(self.noisy.shape, t, dtype=torch.float64)
        mu = leave_one_out(self.process, knows or self.toy, self.noisy, times).nan_to_num(-torch.inf)
        nats = cost(mu.repeat(len(self.toy.texts), 1, 1), self.x0, self.x, times.repeat(len(self.toy.texts), 1))
        return self.mean(t, nats.sum(1))

    def integral(self, cost: Integrand, first: float = 0.0, nodes: int = 64, knows: Toy | None = None) -> Tensor:
        """Gauss-Legendre in u, t = first + (1 - first) u^3: near t = 0 the integrand grows like log t."""
        points, weights = np.polynomial.legendre.leggauss(nodes)
        total = torch.zeros(len(self.toy.texts), dtype=torch.float64)
        for point, weight in zip((points + 1) / 2, weights / 2):
            t = first + (1 - first) * point**3
            total += weight * (1 - first) * 3 * point**2 * self.integrand(float(t), cost, knows)
        return total


def fitting(toy: Toy, known: Sequence[int | None]) -> Tensor:
    """p of all texts given the known tokens, (texts,)."""
    law = toy.joint.clone()
    for i, token in enumerate(known):
        if token is not None:
            law[toy.texts[:, i] != token] = 0
    return law / law.sum()


def drawn(process: TokenNoise, toy: Toy, settings: Decoding, known: list[int | None], draws: int) -> Tensor:
    rows = [Row.gaps(known, seed=seed) for seed in range(draws)]
    return torch.tensor([text.tokens for text in decode(Bayes(process, toy), process, rows, settings)])


def p_value(texts: Tensor, law: Tensor) -> float:
    """Chi-square of texts drawn (N, L) against law over all texts in order; rare ones are pooled."""
    length = texts.shape[1]
    assert (texts < TOKENS).all(), "a mask was left"
    power = TOKENS ** torch.arange(length - 1, -1, -1)
    counts = torch.bincount((texts * power).sum(1), minlength=len(law)).double()
    assert counts[law == 0].sum() == 0
    expected = law * len(texts)
    often = expected >= 8
    seen, hoped = counts[often].tolist(), expected[often].tolist()
    if expected[~often].sum() > 0:
        seen, hoped = [*seen, float(counts[~often].sum())], [*hoped, float(expected[~often].sum())]
    return float(stats.chisquare(seen, hoped, sum_check=False).pvalue)

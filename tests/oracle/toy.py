"""A text distribution small enough to enumerate, and denoisers that know it: Bayes-optimal tables, no network."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.data.packing import Batch
from unmask.models.attention import Places

TOKENS = 3
MASK = TOKENS  # the symbol after the last token
SYMBOLS = TOKENS + 1


class Toy:
    """p(x) over texts of `length` tokens; texts (T, L), joint (T,) float64."""

    def __init__(self, length: int, seed: int = 1, sharpness: float = 1.5) -> None:
        rng = torch.Generator().manual_seed(seed)
        self.length = length
        self.texts = torch.tensor(list(itertools.product(range(TOKENS), repeat=length)))
        self.joint = torch.softmax(sharpness * torch.randn(len(self.texts), generator=rng, dtype=torch.float64), 0)
        self.nats = -self.joint.log()
        self.masks = torch.tensor(list(itertools.product([False, True], repeat=length)))  # (2 ** L, L)
        self.clean = self.texts.repeat_interleave(len(self.masks), 0)  # every text under every mask: (T * 2 ** L, L)
        self.noisy = self.clean.masked_fill(self.masks.repeat(len(self.texts), 1), MASK)

    def given(self, z: Tensor) -> Tensor:
        """log p(the visible tokens of z (N, L)): (N,)."""
        return (self._fits(z) @ self.joint).log()

    def mu(self, z: Tensor) -> Tensor:
        """log p(x_l | the visible tokens of z, position l's own left out): (N, L, SYMBOLS) float64."""
        each = F.one_hot(self.texts, SYMBOLS).double()  # (T, L, V)
        out = torch.empty(*z.shape, SYMBOLS, dtype=torch.float64)
        for l in range(self.length):
            hidden = z.index_fill(1, torch.tensor([l]), MASK)
            out[:, l] = (self._fits(hidden) * self.joint) @ each[:, l]
        return (out / out.sum(-1, keepdim=True)).log()

    def batch(self, tokens: Tensor, scored: Tensor | None = None) -> Batch:
        places = Places.of(tokens).position
        return Batch(tokens, torch.zeros_like(tokens), places, tokens >= 0 if scored is None else scored)

    def _fits(self, z: Tensor) -> Tensor:
        return ((z[:, None] == self.texts) | (z[:, None] == MASK)).all(-1).double()


@dataclass
class Looked:
    """What `denoiser.Prediction` offers, from log-probabilities (N, V) held in full."""

    scores: Tensor

    def mu(self) -> Tensor:
        return self.scores

    def cross_entropy(self, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        nll = -self.scores.gather(1, targets[:, None])[:, 0]
        return (weights * nll).sum(), nll


class Table(nn.Module):
    """Called like `denoiser.Denoiser`: the Bayes-optimal answer to any masked text."""

    banned: Tensor
    mask_id, echo, packs = MASK, None, False

    def __init__(self, toy: Toy) -> None:
        super().__init__()
        self.toy = toy
        self.register_buffer("banned", torch.tensor([MASK]))

    def forward(
        self, x: Tensor, t: Tensor | None = None, *, places: Places | None = None, where: Tensor | None = None
    ) -> Looked:
        where = torch.ones_like(x, dtype=torch.bool) if where is None else where
        return Looked(self.toy.mu(self.shown(x))[where])

    def shown(self, x: Tensor) -> Tensor:
        return x


class LeftToRight(Table):
    """The answer at each position knows only what stands before it."""

    def forward(
        self, x: Tensor, t: Tensor | None = None, *, places: Places | None = None, where: Tensor | None = None
    ) -> Looked:
        after = torch.ones(self.toy.length, self.toy.length).triu().bool()
        steps = [self.toy.mu(x.masked_fill(after[l], MASK))[:, l] for l in range(self.toy.length)]
        return Looked(torch.stack(steps, 1)[where])


class ByBlocks(Table):
    """The answer to a text shown twice: a noisy token knows its block as it is shown and the clean blocks before."""

    def __init__(self, toy: Toy, size: int) -> None:
        super().__init__(toy)
        self.size = size

    def forward(
        self, x: Tensor, t: Tensor | None = None, *, places: Places | None = None, where: Tensor | None = None
    ) -> Looked:
        assert places is not None
        assert where is not None
        if places.clean is None:
            return Looked(self.toy.mu(x)[where])
        length = self.toy.length
        assert not where[:, length:].any(), "the clean half is only looked at"
        noisy, clean, mu = x[:, :length], x[:, length:], []
        for start in range(0, length, self.size):
            block = slice(start, start + self.size)
            known = torch.full_like(clean, MASK)
            known[:, :start], known[:, block] = clean[:, :start], noisy[:, block]
            mu.append(self.toy.mu(known)[:, block])
        return Looked(torch.cat(mu, 1)[where[:, :length]])

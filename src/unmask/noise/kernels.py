"""Token noise by any Markov kernel (D3PM, arXiv 2107.03006): q_t(. | x0) is a row of exp(sigma(t) Q).

Q = R - 1 for a row-stochastic matrix R, so that a token jumps at rate sigma'(t) to one of R's choice. To stay cheap for
thousands of symbols R is a matrix over classes of symbols: a jump picks a class by the old token's class, then a token
in it by a fixed law. Every symbol its own class is any R at all; a single class is `TokenNoise`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..errors import UserError
from .draws import Draws, categorical
from .schedule import Schedule
from .tokens import LEAST_SCORE, LEAST_SHARE, TokenNoise


@dataclass(frozen=True)
class KernelNoise(TokenNoise):
    """classes (V,) int64: of each symbol; within (V,) float64: its probability in its class, 0 where noise never makes
    it; moves (C, C) float64: R over classes; rate: jumps for each unit of -log alpha of the schedule.

    pi is what becomes of evenly drawn symbols at t = 1, and what generation begins with.
    """

    classes: Tensor = field(repr=False)
    within: Tensor = field(repr=False)
    moves: Tensor = field(repr=False)
    rate: float = 1.0
    _tables: dict[tuple[torch.device, torch.dtype], Tensor] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def over(
        cls,
        moves: Tensor,
        schedule: Schedule,
        classes: Tensor | None = None,
        barred: Sequence[int] = (),
        rate: float = 1.0,
    ) -> KernelNoise:
        """classes (V,): default every symbol its own; barred: symbols that noise never makes (they are in some class
        all the same, and leave it like the others); inside a class all others are alike."""
        moves = moves.double()
        classes = torch.arange(len(moves)) if classes is None else classes
        _check(moves, classes)
        real = torch.ones(len(classes), dtype=torch.float64).index_fill(0, torch.tensor(list(barred)).long(), 0)
        sizes = torch.zeros(len(moves), dtype=torch.float64).index_add(0, classes, real)
        if bool(((sizes == 0) & (moves.sum(0) > 0)).any()):
            raise UserError("moves: a class without a symbol that may be written is moved to; take it out")
        within = real / sizes.clamp(min=1)[classes]
        noise = cls(real, schedule, classes, within, moves, rate)
        return replace(noise, pi=noise.marginal(real / real.sum(), torch.ones((), dtype=torch.float64)))

    # -- the kernel

    def marginal(self, probs: Tensor, t: Tensor) -> Tensor:
        still, (kernel, which) = self._kernel(t, probs)
        pooled = probs.new_zeros(*probs.shape[:-1], len(self.moves)).index_add(-1, self.classes.to(t.device), probs)
        jumped = _times(pooled, kernel, which)
        return still[..., None] * probs + self._spread(jumped, probs)

    def arrival(self, x: Tensor, t: Tensor, s: Tensor | None) -> Tensor:
        still, (kernel, which) = self._kernel(t, t, s)
        classes = self.classes.to(t.device)
        into = kernel[which, :, classes[x]]  # (..., C)
        others = into[..., classes] * self.within.to(t)[x][..., None]
        return others.scatter_add(-1, x[..., None], still[..., None])

    def rates(self, x: Tensor) -> Tensor:
        classes, within = self.classes.to(x.device), self.within.to(x.device)
        into = self.moves.to(x.device).T[classes[x]][..., classes]
        return self.rate * into * within[x][..., None]

    def certain(self, x: Tensor) -> Tensor:
        never = (self.within == 0) | (self.moves.sum(0) == 0)[self.classes]
        return never.to(x.device)[x]

    def corrupt(self, x0: Tensor, t: Tensor, rng: Draws) -> Tensor:
        """Whether it has jumped at all, the class it is in, the token inside: no work over the symbols."""
        still, (kernel, which) = self._kernel(t, t.double())
        classes, within = self.classes.to(t.device), self.within.to(t.device)
        jumps = rng.uniform(x0) >= still
        landed = categorical(kernel[which, classes[x0]], rng.uniform(x0))
        order = classes.argsort(stable=True)
        cdf = within[order].cumsum(0)  # every class that is moved to adds one
        filled = torch.zeros(len(self.moves), dtype=torch.float64, device=t.device).index_add(0, classes, within)
        before = (filled.cumsum(0) - filled)[landed]
        found = order[torch.searchsorted(cdf, before + rng.uniform(x0) * filled[landed]).clamp(max=len(order) - 1)]
        return torch.where(jumps, found, x0)

    def _kernel(self, t: Tensor, like: Tensor, s: Tensor | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """From s (the clean text if None) to t: the probability of no jump, shaped like t, and the kernels over classes
        for one jump or more, (U, C, C), with which of them is whose, in the dtype of `like`.

        exp(sigma (R - 1)) = sum over k of Poisson(k; sigma) R^k: nothing is ever subtracted, so the smallest entries
        keep all their digits.
        """
        sigma = self._jumps(t) - (0 if s is None else self._jumps(s))
        each, which = sigma.clamp(min=0).unique(return_inverse=True)
        powers = self._powers(like)
        k = torch.arange(1, len(powers) + 1, dtype=torch.float64, device=t.device)
        poisson = (torch.xlogy(k, each[:, None]) - each[:, None] - torch.lgamma(k + 1)).exp()
        kernel = (poisson.to(like.dtype) @ powers.flatten(1)).view(len(each), *self.moves.shape)
        return (-sigma).exp().to(like.dtype), (kernel, which)

    def _jumps(self, t: Tensor) -> Tensor:
        """sigma, the expected number of jumps by t, float64."""
        return -self.rate * self.schedule.alpha(t.double()).clamp(min=LEAST_SHARE).log()

    def _powers(self, like: Tensor) -> Tensor:
        """R, R^2, ... (K, C, C), as many as the jumps by t = 1 may be."""
        key = like.device, like.dtype
        if key not in self._tables:
            most = float(self._jumps(torch.ones(())))
            count = math.ceil(most + 10 * math.sqrt(most) + 10)
            powers = [self.moves]
            while len(powers) < count:
                powers.append(powers[-1] @ self.moves)
            self._tables[key] = torch.stack(powers).to(device=like.device, dtype=like.dtype)
        return self._tables[key]

    def _spread(self, by_class: Tensor, like: Tensor) -> Tensor:
        """Probabilities of classes (..., C) -> of symbols (..., V)."""
        return by_class[..., self.classes.to(like.device)] * self.within.to(like)

    # -- the bound

    def nelbo(self, mu: Tensor, x0: Tensor, x: Tensor, t: Tensor) -> Tensor:
        return self.score_entropy(self.log_score(x, mu, t), x0, x, t)

    def score_entropy(self, log_score: Tensor, x0: Tensor, x: Tensor, t: Tensor) -> Tensor:
        true = self._row(x0, t, log_score)
        true = true / true.gather(-1, x[..., None])
        gap = log_score.exp() - true + torch.xlogy(true, true) - true * log_score.clamp(min=LEAST_SCORE)
        gap = (self.rates(x).to(gap) * gap).scatter(-1, x[..., None], 0).sum(-1)
        return torch.where(self.certain(x), 0.0, self.speed(t) * gap)

    def _row(self, x0: Tensor, t: Tensor, like: Tensor) -> Tensor:
        """q_t(. | x0), (..., V)."""
        still, (kernel, which) = self._kernel(t, like)
        row = self._spread(kernel[which, self.classes.to(t.device)[x0]], like)
        return row.scatter_add(-1, x0[..., None], still[..., None])

    def prior_nats(self, x0: Tensor) -> Tensor:
        """KL(q_1(. | x0) || pi), nats a position."""
        pi = self.pi.to(x0.device).double()
        each, which = x0.unique(return_inverse=True)
        costs = []
        for some in each.split(256):
            row = self._row(some, torch.ones(len(some), device=x0.device, dtype=torch.float64), pi)
            costs.append((torch.xlogy(row, row) - torch.xlogy(row, pi)).sum(-1))
        return torch.cat(costs)[which]


def _times(rows: Tensor, kernel: Tensor, which: Tensor) -> Tensor:
    """rows (..., C) each times its own of the kernels (U, C, C), which (...)."""
    if len(kernel) == 1:
        return rows @ kernel[0]
    flat, whose = rows.flatten(0, -2), which.flatten()
    order = whose.argsort(stable=True)
    parts = flat[order].split(whose.bincount(minlength=len(kernel)).tolist())
    done = torch.cat([part @ matrix for part, matrix in zip(parts, kernel)])
    return done[order.argsort()].view(rows.shape)


def _check(moves: Tensor, classes: Tensor) -> None:
    if moves.dim() != 2 or moves.shape[0] != moves.shape[1]:
        raise UserError(f"moves: a matrix of shape {tuple(moves.shape)} is not square; give one row and column a class")
    if bool((moves < 0).any()) or bool(((moves.sum(1) - 1).abs() > 1e-6).any()):
        raise UserError("moves: every row must be probabilities that sum to 1; divide each by its sum")
    if bool((classes < 0).any()) or int(classes.max()) >= len(moves):
        raise UserError(f"classes: there are {len(moves)} of them, numbered from 0; {int(classes.max())} is not one")

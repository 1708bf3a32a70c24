"""How probable a model finds text: exactly, or a bound with its standard error. Knows tokens, never text or files.

An estimator turns one batch into nats for each row; `score_batches` adds them up. Only `scored` positions cost
anything, so a prompt that is not scored is a condition: the sum is then -log p(rest | prompt), or its bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from ..data.packing import Batch
from ..denoiser import Denoiser, Prediction
from ..errors import UserError
from ..layout import GOLDEN, Blocks, Whole
from ..noise.draws import FromCounters
from ..objectives.masked import counted_masks, shown
from ..objectives.objective import places_of


@dataclass(frozen=True)
class Score:
    """nats: total -log p of `tokens` tokens if exact, else an unbiased estimate of an upper bound on it, whose
    standard error is stderr. bytes: of the text they spell, 0 if unknown; rates of an empty text are nan."""

    nats: float
    stderr: float
    tokens: int
    bytes: int
    exact: bool

    def __add__(self, other: Score) -> Score:
        """Independent texts: nats add, variances add."""
        return Score(
            self.nats + other.nats,
            math.hypot(self.stderr, other.stderr),
            self.tokens + other.tokens,
            self.bytes + other.bytes,
            self.exact and other.exact,
        )

    @property
    def bits_per_byte(self) -> float:
        return _rate(self.nats, self.bytes) / math.log(2)

    @property
    def bits_per_byte_stderr(self) -> float:
        return _rate(self.stderr, self.bytes) / math.log(2)

    @property
    def bits_per_token(self) -> float:
        return _rate(self.nats, self.tokens) / math.log(2)

    @property
    def perplexity(self) -> float:
        """exp(nats a token); for a bound this is an upper bound too."""
        mean = _rate(self.nats, self.tokens)
        return math.inf if mean > 700 else math.exp(mean)  # a network that gives a token probability zero


def _rate(total: float, count: int) -> float:
    return total / count if count else math.nan


class Estimator(Protocol):
    @property
    def exact(self) -> bool:
        """Whether the nats are -log p itself."""
        ...

    def __call__(self, denoiser: Denoiser, batch: Batch, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Nats of each row and the variance of that number, both (B,) float64; keys (B,) int64 seed each row."""
        ...


@dataclass(frozen=True)
class Exact:
    """Autoregressive models: the cross-entropy of every scored token given what stands before it, in one pass."""

    exact: bool = field(default=True, init=False)

    def __call__(self, denoiser: Denoiser, batch: Batch, keys: Tensor) -> tuple[Tensor, Tensor]:
        prediction = denoiser(batch.tokens, places=places_of(batch), where=batch.scored)
        nats = _sum_rows(prediction, batch.tokens, batch.scored, torch.ones_like(batch.tokens, dtype=torch.float32))
        return nats, torch.zeros_like(nats)


@dataclass(frozen=True)
class FixedCount:
    """Masked models: mask exactly k of a block's n scored tokens and weigh their cross-entropy by n / k, k uniform on
    1..n (LLaDA, arXiv 2502.09992, eq. 14), a row being one block unless the layout has more. Its mean is the
    continuous-time bound of every schedule; with blocks of one token nothing is left to chance and it is -log p.

    The `draws` passes a row (rounded up to fill the replicates evenly) form `replicates` independent groups. Inside a
    group the levels k / n lie one in each of equal strata, moved by one shared uniform; a group's mean is unbiased, and
    the spread of the groups' means, which share nothing, gives the standard error. With two groups one row's error is
    rough (one degree of freedom); over a text of many rows the sum is well determined.
    """

    draws: int = 8
    replicates: int = 2
    layout: Blocks = Whole()

    @property
    def exact(self) -> bool:
        return self.layout.size == 1

    def __post_init__(self) -> None:
        if self.replicates < 2:
            raise UserError(f"replicates: {self.replicates} gives no standard error; use 2 or more")
        if self.draws < 1:
            raise UserError(f"draws: {self.draws} measures nothing; use 1 or more")

    def __call__(self, denoiser: Denoiser, batch: Batch, keys: Tensor) -> tuple[Tensor, Tensor]:
        means = torch.stack([self._group(denoiser, batch, keys, group) for group in range(self.replicates)])
        return means.mean(0), means.var(0) / self.replicates

    def _group(self, denoiser: Denoiser, batch: Batch, keys: Tensor, group: int) -> Tensor:
        """One unbiased estimate a row, (B,): the mean over one level in each stratum."""
        strata = -(-self.draws // self.replicates)
        columns = torch.arange(batch.tokens.shape[1], device=keys.device).expand(batch.tokens.shape)
        chance, shift = FromCounters(keys, columns), FromCounters(~keys, columns[:, :1])
        shift.begin(group)
        numbers = self.layout.numbers(places_of(batch))
        along = torch.arange(int(numbers.max()) + 1, device=keys.device)
        start = (shift.uniform(columns[:, :1]) + along * GOLDEN) % 1  # a row's blocks: other levels, evenly spread
        total = torch.zeros(len(keys), dtype=torch.float64, device=keys.device)
        for stratum in range(strata):
            chance.begin(group * strata + stratum)
            masked, weights = counted_masks(batch.scored, (start + stratum) / strata, chance, numbers)
            total += masked_nats(denoiser, batch, masked, weights, self.layout)
        return total / strata


def masked_nats(denoiser: Denoiser, batch: Batch, masked: Tensor, weights: Tensor, layout: Blocks = Whole()) -> Tensor:
    """Weighted cross-entropy of the masked tokens given the others, summed over each row: (B, L), (B, L) -> (B,)."""
    return _sum_rows(shown(denoiser, batch, masked, layout), batch.tokens, masked, weights)


def score_batches(
    denoiser: Denoiser,
    batches: Iterable[Batch],
    estimator: Estimator,
    *,
    seed: int = 0,
    n_bytes: int = 0,
    progress: Callable[[Score], None] | None = None,
) -> Score:
    """The score of all rows together; n_bytes is the length of the text they spell, if known.

    A row's random numbers depend on the seed and its index alone, so the result does not depend on how rows are
    grouped into batches (beyond rounding). `progress` gets the sum so far after each batch.
    """
    total, rows = Score(0.0, 0.0, 0, n_bytes, estimator.exact), 0
    training = denoiser.training
    denoiser.eval()
    try:
        for batch in batches:
            total += _score(denoiser, batch.to(denoiser.banned.device), estimator, seed, rows)
            rows += len(batch.tokens)
            if progress is not None:
                progress(total)
    finally:
        denoiser.train(training)
    return total


@torch.inference_mode()
def _score(denoiser: Denoiser, batch: Batch, estimator: Estimator, seed: int, first: int) -> Score:
    keys = torch.arange(first, first + len(batch.tokens), device=batch.tokens.device) + (seed % (1 << 30) << 32)
    nats, variance = estimator(denoiser, batch, keys)
    return Score(float(nats.sum()), math.sqrt(float(variance.sum())), batch.n_scored, 0, estimator.exact)


def _sum_rows(prediction: Prediction, tokens: Tensor, where: Tensor, weights: Tensor) -> Tensor:
    """Weighted cross-entropies of the positions asked for, summed over each row in float64: (B,)."""
    _, nll = prediction.cross_entropy(tokens[where], weights[where])
    costs = torch.zeros(where.shape, dtype=torch.float64, device=where.device)
    costs[where] = weights[where].double() * nll.double()
    return costs.sum(1)

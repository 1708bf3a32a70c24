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
        nats = _weighed(prediction, batch.tokens, batch.scored, torch.ones_like(batch.tokens, dtype=torch.float32))
        return nats, torch.zeros_like(nats)


@dataclass(frozen=True)
class Stratified:
    """What all estimates of a mean over levels in (0, 1) share; `nats` says what a row costs at one level.

    The `draws` passes a row (rounded up to fill the replicates evenly) form `replicates` independent groups. Inside a
    group the levels lie one in each of equal strata, moved by one shared uniform; a group's mean is unbiased, and the
    spread of the groups' means, which share nothing, gives the standard error. With two groups one row's error is
    rough (one degree of freedom); over a text of many rows the sum is well determined.
    """

    draws: int = 8
    replicates: int = 2

    def __post_init__(self) -> None:
        if self.replicates < 2:
            raise UserError(f"replicates: {self.replicates} gives no standard error; use 2 or more")
        if self.draws < 1:
            raise UserError(f"draws: {self.draws} measures nothing; use 1 or more")

    @property
    def exact(self) -> bool:
        return False

    def __call__(self, denoiser: Denoiser, batch: Batch, keys: Tensor) -> tuple[Tensor, Tensor]:
        means = torch.stack([self._group(denoiser, batch, keys, group) for group in range(self.replicates)])
        return means.mean(0), means.var(0) / self.replicates

    def nats(self, denoiser: Denoiser, batch: Batch, level: Tensor, rng: FromCounters) -> Tensor:
        """(B,) float64 at levels (B, 1) float64."""
        raise NotImplementedError

    def ends(self, denoiser: Denoiser, batch: Batch, rng: FromCounters) -> Tensor | float:
        """What comes on top of the mean, (B,) float64."""
        return 0.0

    def _group(self, denoiser: Denoiser, batch: Batch, keys: Tensor, group: int) -> Tensor:
        """One unbiased estimate a row, (B,): the mean over one level in each stratum."""
        strata = -(-self.draws // self.replicates)
        columns = torch.arange(batch.tokens.shape[1], device=keys.device).expand(batch.tokens.shape)
        chance, shift = FromCounters(keys, columns), FromCounters(~keys, columns[:, :1])
        shift.begin(group)
        start = shift.uniform(columns[:, :1])
        total = torch.zeros(len(keys), dtype=torch.float64, device=keys.device)
        for stratum in range(strata):
            chance.begin(group * strata + stratum)
            total += self.nats(denoiser, batch, (start + stratum) / strata, chance)
        chance.begin(self.replicates * strata + group)
        return total / strata + self.ends(denoiser, batch, chance)


def over_blocks(level: Tensor, numbers: Tensor) -> Tensor:
    """A level a row (B, 1) -> one a block (B, blocks): a row's blocks have other levels, evenly spread. numbers (B, L):
    which block a token is in."""
    along = torch.arange(int(numbers.max()) + 1, device=level.device)
    return (level + along * GOLDEN) % 1


@dataclass(frozen=True)
class FixedCount(Stratified):
    """Masked models: mask exactly k of a block's n scored tokens and weigh their cross-entropy by n / k, k uniform on
    1..n (LLaDA, arXiv 2502.09992, eq. 14), a row being one block unless the layout has more. Its mean is the
    continuous-time bound of every schedule; with blocks of one token nothing is left to chance and it is -log p.
    """

    layout: Blocks = Whole()

    @property
    def exact(self) -> bool:
        return self.layout.size == 1

    def nats(self, denoiser: Denoiser, batch: Batch, level: Tensor, rng: FromCounters) -> Tensor:
        numbers = self.layout.numbers(places_of(batch))
        masked, weights = counted_masks(batch.scored, over_blocks(level, numbers), rng, numbers)
        return masked_nats(denoiser, batch, masked, weights, self.layout)


def masked_nats(denoiser: Denoiser, batch: Batch, masked: Tensor, weights: Tensor, layout: Blocks = Whole()) -> Tensor:
    """Weighted cross-entropy of the masked tokens given the others, summed over each row: (B, L), (B, L) -> (B,)."""
    return _weighed(shown(denoiser, batch, masked, layout), batch.tokens, masked, weights)


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


def _weighed(prediction: Prediction, tokens: Tensor, where: Tensor, weights: Tensor) -> Tensor:
    """Weighted cross-entropies of the positions asked for, summed over each row: (B,)."""
    _, nll = prediction.cross_entropy(tokens[where], weights[where])
    return sum_rows(where, weights[where].double() * nll.double())


def sum_rows(where: Tensor, values: Tensor) -> Tensor:
    """Values (N,) at where (B, L), summed over each row in float64: (B,)."""
    full = torch.zeros(where.shape, dtype=torch.float64, device=where.device)
    return full.masked_scatter(where, values.double()).sum(1)

"""An autoregressive model that says how likely a text is after another. Knows no sampler: it reads finished text.

A judge with the writer's vocabulary reads the tokens as they were written; any other reads the text, in tokens of its
own. Its word alone is worth nothing: see `samples`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.packing import Batch
from ..data.tokenizer import Tokenizer, n_bytes
from ..denoiser import Denoiser
from ..errors import UserError
from .likelihood import Estimator, Score

Pair = tuple[Sequence[int], Sequence[int]]  # tokens of the writer's: what is given, what is judged


@dataclass(frozen=True)
class Verdict:
    """Over many texts: nats a token of the judge's and their standard error from text to text; bits a byte."""

    nats: float
    stderr: float
    bits_per_byte: float

    @property
    def perplexity(self) -> float:
        return math.exp(self.nats)

    @classmethod
    def over(cls, scores: Sequence[Score]) -> Verdict:
        """A ratio of sums, its error by linearisation. Texts without a token weigh nothing."""
        total, tokens = sum(s.nats for s in scores), sum(s.tokens for s in scores)
        if not tokens:
            return cls(math.nan, math.nan, math.nan)
        mean, n = total / tokens, len(scores)
        rest = sum((s.nats - mean * s.tokens) ** 2 for s in scores)
        stderr = math.sqrt(rest * n / max(n - 1, 1)) / tokens
        return cls(mean, stderr, total / max(sum(s.bytes for s in scores), 1) / math.log(2))


@dataclass(frozen=True)
class Judge:
    """A model whose likelihood is exact. name: what a report calls it."""

    name: str
    denoiser: Denoiser
    tokenizer: Tokenizer
    estimator: Estimator
    batch: int = 32

    def __post_init__(self) -> None:
        if not self.estimator.exact:
            raise UserError(f"judge: {self.name} has only a bound on the likelihood; name an autoregressive model")

    def __call__(self, pairs: Sequence[Pair], tokenizer: Tokenizer) -> list[Score]:
        """-log p(text | given) of every pair, in order; tokenizer is the writer's. What is given loses its beginning
        where both exceed the judge's context; UserError where the text alone does."""
        rows = self._fitting(pairs, tokenizer)
        found = []
        for begin in range(0, len(rows), self.batch):
            some = slice(begin, begin + self.batch)
            for (_, text), (_, ids), nats in zip(pairs[some], rows[some], self._nats(rows[some])):
                found.append(Score(nats, 0.0, len(ids), n_bytes(tokenizer.decode(text)), exact=True))
        return found

    def _fitting(self, pairs: Sequence[Pair], tokenizer: Tokenizer) -> list[tuple[list[int], list[int]]]:
        context, same = self.denoiser.network.config.context, _alike(tokenizer, self.tokenizer)
        rows = []
        for pair in pairs:
            given, text = (list(p) if same else self.tokenizer.encode_plain(tokenizer.decode(p)) for p in pair)
            if len(text) > context:
                raise UserError(f"judge: a text of {len(text)} tokens exceeds its context of {context}; write less")
            rows.append((given[max(0, len(given) + len(text) - context) :], text))
        return rows

    @torch.inference_mode()
    def _nats(self, rows: Sequence[tuple[list[int], list[int]]]) -> list[float]:
        batch = _padded(rows, self.tokenizer.pad_id).to(self.denoiser.banned.device)
        if not batch.n_scored:
            return [0.0] * len(rows)
        keys = torch.zeros(len(rows), dtype=torch.int64, device=batch.tokens.device)  # nothing is drawn
        nats, _ = self.estimator(self.denoiser.eval(), batch, keys)
        return nats.tolist()


def _alike(one: Tokenizer, other: Tokenizer) -> bool:
    return one is other or one.vocabulary() == other.vocabulary()


def _padded(rows: Sequence[tuple[list[int], list[int]]], pad: int) -> Batch:
    """One document a row, scored where it is to be judged."""
    sizes = torch.tensor([len(given) + len(text) for given, text in rows])[:, None]
    starts = torch.tensor([len(given) for given, _ in rows])[:, None]
    width = max(int(sizes.max()), 1)
    tokens = torch.tensor([[*a, *b, *[pad] * (width - len(a) - len(b))] for a, b in rows])
    column = torch.arange(width).expand(tokens.shape)
    inside = column < sizes
    positions: Tensor = torch.where(inside, column, 0)
    return Batch(tokens, inside.long() - 1, positions, inside & (column >= starts))

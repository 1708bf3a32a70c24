"""What a text looks like from outside: variety and repetition of its tokens. Knows no model and no words.

Never read a judge's score without these: text that repeats itself is cheap for any judge, and a sampler that loses
randomness in secret looks better by it (arXiv 2409.02908).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Variety:
    """Means over texts. entropy: nats of a text's own token frequencies, at most log(its length) (MDLM's and ReMDM's
    measure); distinct: share of its token pairs that are different ones; repeats: share of its tokens that only say
    the one before again ("brain brain")."""

    entropy: float
    distinct: float
    repeats: float

    @classmethod
    def of(cls, texts: Sequence[Sequence[int]]) -> Variety:
        return cls(*(_mean([measure(text) for text in texts]) for measure in (entropy, distinct, repeats)))


def entropy(tokens: Sequence[int]) -> float:
    """-sum p log p over the frequencies p of the text's own tokens, nats; 0 for no text."""
    n = len(tokens)
    return -sum(c / n * math.log(c / n) for c in Counter(tokens).values())


def distinct(tokens: Sequence[int], n: int = 2) -> float:
    """Different n-grams over all n-grams (Li et al., arXiv 1510.03055); nan for a text without any."""
    grams = list(zip(*(tokens[i:] for i in range(n))))
    return len(set(grams)) / len(grams) if grams else math.nan


def repeats(tokens: Sequence[int]) -> float:
    """Share of tokens that equal the one before; nan for a text of fewer than two."""
    pairs = list(pairwise(tokens))
    return sum(a == b for a, b in pairs) / len(pairs) if pairs else math.nan


def _mean(values: Sequence[float]) -> float:
    known = [v for v in values if not math.isnan(v)]
    return sum(known) / len(known) if known else math.nan

"""The same prompts continued with fewer and fewer network passes. Knows no judge and no report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..decoding.canvas import Row
from .samples import Variety
from .subject import Subject


@dataclass(frozen=True)
class Pace:
    """One way of writing. at_once: tokens a step on average, 1 being as slow as can be; changes: what it changes in the
    model's own settings, for example {"rule": "ancestral"}."""

    at_once: int
    changes: Mapping[str, Any]


@dataclass(frozen=True)
class Continued:
    """texts: what stands behind each prompt, as tokens; passes: network passes a text, on average."""

    texts: list[list[int]]
    passes: float
    seconds: float

    @property
    def variety(self) -> Variety:
        return Variety.of(self.texts)


def go_on(subject: Subject, prompts: Sequence[Sequence[int]], length: int, pace: Pace, seed: int = 0) -> Continued:
    """`length` tokens after every prompt, text i seeded by seed + i. No text may end early, so that all are as long;
    none is thrown away. UserError where the model cannot write so."""
    rows = [Row.after(prompt, length, seed + i) for i, prompt in enumerate(prompts)]
    steps = {"steps": max(1, length // pace.at_once)} if pace.at_once > 1 else {}
    done = subject.write(rows, suppress_eos=True, **steps, **pace.changes)
    passes = sum(d.counts.forwards for d in done) / len(done)
    longest = max(d.counts.seconds for d in done)  # rows of a batch share their passes
    batches = -(-len(rows) // subject.batch)
    return Continued([d.tokens for d in done], passes, longest * batches)

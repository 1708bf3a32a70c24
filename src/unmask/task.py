"""What a run learns: texts, or the answers in conversations. All that differs between `train` and `tune`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from .corpus import Corpus, prepare
from .data.packing import Batch, Loader, windows
from .data.tokenizer import Tokenizer
from .methods.method import Method, Symbols
from .objectives.objective import Objective
from .recipe import Recipe


class Task(Protocol):
    def corpus(self, recipe: Recipe, tokenizer: Tokenizer | None) -> Corpus: ...

    def objective(self, method: Method, symbols: Symbols) -> Objective: ...

    def whole(self, recipe: Recipe) -> bool:
        """Whether a document must not be cut."""
        ...

    def held_out(self, recipe: Recipe, corpus: Corpus, most: int) -> list[Batch]:
        """At most so many rows of the validation part, from all over it; the same ones each time."""
        ...


@dataclass(frozen=True)
class Texts:
    def corpus(self, recipe: Recipe, tokenizer: Tokenizer | None) -> Corpus:
        return prepare(recipe, tokenizer)

    def objective(self, method: Method, symbols: Symbols) -> Objective:
        return method.objective(symbols)

    def whole(self, recipe: Recipe) -> bool:
        return recipe.data.whole

    def held_out(self, recipe: Recipe, corpus: Corpus, most: int) -> list[Batch]:
        return list(windows(corpus.valid, recipe.length, batch=16, pad_id=corpus.tokenizer.pad_id, most=most))


@dataclass(frozen=True)
class Answers:
    def corpus(self, recipe: Recipe, tokenizer: Tokenizer | None) -> Corpus:
        return prepare(recipe, tokenizer, kind="answers")

    def objective(self, method: Method, symbols: Symbols) -> Objective:
        return method.tuning(symbols)

    def whole(self, recipe: Recipe) -> bool:
        return True

    def held_out(self, recipe: Recipe, corpus: Corpus, most: int) -> list[Batch]:
        """One conversation a row, in an order that a seed has mixed."""
        pad, count = corpus.tokenizer.pad_id, corpus.valid.n_documents
        loader = Loader(corpus.valid, length=recipe.length, batch=1, seed=0, pad_id=pad, pack=False, keep_whole=True)
        return [next(loader) for _ in range(min(most, count))]


def bytes_of(batches: list[Batch], tokenizer: Tokenizer) -> int:
    """UTF-8 bytes that the scored tokens of these rows stand for."""
    return sum(tokenizer.byte_count(row[scored].tolist()) for b in batches for row, scored in zip(b.tokens, b.scored))

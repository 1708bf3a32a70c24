"""A loaded model as requests see it: text to rows, settings; what does not fit is refused at once. Knows no HTTP."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..data.chat import Message
from ..data.tokenizer import Tokenizer, whole
from ..decoding.batch import Batch
from ..decoding.canvas import Row
from ..decoding.settings import Decoding, one_sided
from ..errors import UserError
from ..lm import LanguageModel
from ..models.prefixes import Prefixes

MOST_LETTERS = 64  # that a token is taken to stand for, so that a text far too long is refused before it is read


@dataclass(frozen=True)
class Order:
    """Rows to be written with one way of writing. start: where each row's answer begins; tail: tokens of every row that
    stand behind it; shown: text before each answer that is given back with it. seed: of the first text."""

    rows: Sequence[Row]
    start: Sequence[int]
    settings: Decoding
    prompt_tokens: int
    seed: int
    stops: Sequence[str] = ()
    tail: int = 0
    shown: Sequence[str] = ()


class Served:
    """A model under a name. usual: new tokens where a request does not say; longest: most tokens of a text, prompt
    included, where the model itself sets no limit."""

    def __init__(self, lm: LanguageModel, name: str | None = None, usual: int = 64, longest: int | None = None) -> None:
        self.lm, self.name, self.usual = lm, name or lm.name, usual
        if longest is not None and longest > lm.context and not lm.boundless:
            raise UserError(
                f"length={longest}: this model writes no more than its context of {lm.context}; leave it out"
            )
        self.context = longest or lm.context
        subject = lm.subject
        self.denoiser, self.process, self._settings = subject.denoiser, subject.process, subject.settings

    @property
    def tokenizer(self) -> Tokenizer:
        return self.lm.tokenizer

    @cached_property
    def one_sided(self) -> bool:
        return one_sided(self.denoiser)

    def batch(self, slots: int | None, prefixes: Prefixes) -> Callable[[], Batch]:
        return lambda: Batch(self.denoiser, self.process, slots=slots, prefixes=prefixes)

    def ids(self, text: str) -> list[int]:
        if len(text) > self.context * MOST_LETTERS:
            raise UserError(f"prompt: {len(text)} characters exceed the model's context of {self.context}; shorten it")
        ids = self.tokenizer.encode(whole(text))
        if self.tokenizer.mask_id in ids:
            mask = self.tokenizer.mask_token
            raise UserError(f"prompt: the text holds {mask!r}, which only the sampler may place; remove it")
        return ids

    def known(self, ids: Sequence[int]) -> list[int]:
        """Tokens of a client's own."""
        if self.tokenizer.mask_id in ids:
            raise UserError(f"prompt: token {self.tokenizer.mask_id} is the mask, which only the sampler may place")
        return list(ids)

    def turn(self, messages: list[Message]) -> tuple[list[int], int]:
        """The prompt of the assistant's next turn, and the token that ends it."""
        if sum(len(message["content"]) for message in messages) > self.context * MOST_LETTERS:
            raise UserError(f"prompt: the conversation exceeds the model's context of {self.context}; shorten it")
        return self.lm.turn(messages)

    def settings(self, said: Mapping[str, Any], eos_id: int | None = None) -> Decoding:
        """The model's own way of writing, with what the client says on top."""
        return self._settings.saying({"eos_id": self._settings.eos_id if eos_id is None else eos_id, **said})

    def room(self, given: int, wanted: int | None) -> int:
        """New tokens beside so many given ones."""
        if given >= self.context:
            raise UserError(f"prompt: {given} tokens fill the model's context of {self.context}; shorten it")
        if wanted is not None and given + wanted > self.context:
            raise UserError(
                f"max_tokens={wanted}: with {given} tokens of prompt it exceeds the model's context of {self.context}; "
                "shorten one of them"
            )
        return wanted or min(self.usual, self.context - given)

    def fits(self, tokens: int) -> None:
        if tokens > self.context:
            raise UserError(f"text: {tokens} tokens exceed the model's context of {self.context}; shorten it")

    def after(self, ids: list[int], wanted: int | None, seed: int, n: int = 1) -> list[Row]:
        room = self.room(len(ids), wanted)
        return [Row.after(ids, room, seed + i) for i in range(n)]

    def between(self, ids: list[int], suffix: list[int], wanted: int | None, seed: int, n: int = 1) -> list[Row]:
        """Texts after the prompt; with a suffix exactly as long as wanted, since nothing can end them early."""
        if not suffix:
            return self.after(ids, wanted, seed, n)
        return self.gaps([ids, suffix], [self.room(len(ids) + len(suffix), wanted)], seed, n)

    def gaps(self, parts: Sequence[list[int]], sizes: Sequence[int], seed: int, n: int = 1) -> list[Row]:
        """The parts with gaps of so many tokens between them."""
        if self.one_sided:
            raise UserError("fill: an autoregressive model sees only what stands before a gap; serve a masked model")
        self.room(sum(map(len, parts)), sum(sizes))
        row: list[int | None] = []
        for ids, size in zip(parts, [*sizes, 0]):
            row += [*ids, *[None] * size]
        return [Row.gaps(row, seed + i) for i in range(n)]

    def check(self, order: Order) -> None:
        """UserError where the model cannot write so: now, and not when the rows' turn has come."""
        Batch(self.denoiser, self.process).check(order.rows, order.settings)


def seed_of(said: int | None, n: int = 1) -> int:
    """What was said, or one drawn; text i gets seed + i."""
    if said is None:
        return secrets.randbelow(2**53 - n)  # a number that JavaScript can hold too
    if said + n > 2**63:
        raise UserError(f"seed={said}: with n={n} it does not fit into 64 bits; use a less")
    return said

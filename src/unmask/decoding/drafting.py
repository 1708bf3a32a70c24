"""A diffusion model drafts what an autoregressive one then reads in one pass. What is written is what the latter writes
by itself. Knows no tokenizer, and of the model that reads only what it says.

Draws are those of left to right, for the draft and for its check, as in `speculate`: a guess stays where both are the
same token. Two ways to draft, each one pass over what is new:
  Onward    a joint model reads the text left to right; its next token, and a block of masks behind
  Within    any other model with masks: those that the text's last block has left, or, if it sees no blocks, a few more
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ..denoiser import Denoiser
from ..errors import UserError
from ..models.attention import CausalContext, Places, block_size
from ..models.cache import Cache
from .branches import Plan
from .drafts import drawn
from .propose import Proposal
from .reader import Reader
from .speculate import GREEDY, Speculated

USUAL = 8  # tokens drafted by a model that has no blocks


class Reading(Protocol):
    """What an autoregressive model has read of one text."""

    def read(self, tokens: Sequence[int], wanted: int) -> Tensor:
        """Go on reading -> logits (wanted, V) float32 of what follows each of the last tokens."""
        ...

    def forget(self, count: int) -> None:
        """As if the last tokens had not been read."""
        ...


class Drafter(Protocol):
    """Drafts one text as it grows."""

    def guess(self, text: Sequence[int], most: int) -> Tensor:
        """Log-probabilities (K, V), 1 <= K <= most, of the tokens behind a text that only grows."""
        ...


Drafters = Callable[[int], Drafter]  # for a text of so many tokens


class Onward:
    def __init__(self, joint: Denoiser, room: int, size: int | None = None) -> None:
        self.reader = Reader(joint)
        self.size = size or self.reader.size
        self.cache = joint.network.cache(1, 1 + room + self.size)
        self.read = 0  # slots that hold clean text

    def guess(self, text: Sequence[int], most: int) -> Tensor:
        masks = min(self.size, most) if min(self.size, most) > 1 else 0
        tokens = torch.tensor([[self.reader.start, *text]], device=self.reader.banned.device)
        if self.read:
            ends = tokens.shape[1] - self.read
            plan = Plan(ends - 1, (*(0,) * (ends - 1), masks))
            hidden = self.reader.go_on(self.cache, tokens[:, self.read :], [self.read], plan)[:, ends - 1 :]
        else:
            length = torch.tensor([tokens.shape[1]], device=tokens.device)
            padded = torch.cat([tokens, tokens.new_zeros(1, masks)], 1)
            hidden = self.reader.begin(self.cache, padded, length, masks)
        self.read = tokens.shape[1]
        return self.reader.laws(hidden)[0]


class Within:
    def __init__(self, denoiser: Denoiser, room: int, size: int | None = None) -> None:
        self.denoiser, self.block = denoiser, block_size(denoiser.rule)
        self.size = size or self.block or USUAL
        self.cache: Cache | None = None
        if self.block is not None:
            room = -(-room // self.block) * self.block
            self.cache = denoiser.network.cache(1, room)
        self.room, self.read = room, 0

    def guess(self, text: Sequence[int], most: int) -> Tensor:
        ahead = min(self.size, most)
        if self.block is None:
            return self._said(text, len(text) + ahead, len(text) + ahead)
        begins = len(text) // self.block * self.block
        ends = begins + self.block
        said = self._said(text, min(ends, len(text) + ahead), ends, feed=slice(self.read, ends))
        self.read = begins  # the block is not what it will be
        return said

    def _said(self, text: Sequence[int], asked: int, width: int, feed: slice | None = None) -> Tensor:
        """Of the masks from the text's end to `asked`, in a row of so many tokens; with a cache only `feed` is fed."""
        x = torch.full((1, width), self.denoiser.mask_id, device=self.denoiser.banned.device)
        x[0, : len(text)] = torch.tensor(text, device=x.device)
        places, column = Places.of(x), torch.arange(width, device=x.device)[None]
        where = (column >= len(text)) & (column < asked)
        kept: dict[str, Any] = {}
        if self.cache is not None and feed is not None:
            self.cache.truncate(torch.tensor([feed.start], device=x.device))
            fed = ((column >= feed.start) & (column < feed.stop)) | self.denoiser.sought(where, places)
            kept = {"cache": self.cache, "feed": fed}
        return self.denoiser(x, (column >= len(text)).float(), places=places, where=where, **kept).mu()


def drafters(denoiser: Denoiser, size: int | None = None) -> Drafters:
    """size: tokens it drafts at most; default a block of the model's."""
    kind: Callable[[Denoiser, int, int | None], Drafter]
    kind = Onward if isinstance(denoiser.rule, CausalContext) else Within
    if kind is Within and block_size(denoiser.rule) == 1:
        raise UserError("drafter: an autoregressive model drafts a token a pass; use a joint, block or masked model")
    return lambda room: kind(denoiser, room, size)


@dataclass(frozen=True)
class Drafting:
    """reading: begins a text; drafters: begins to draft one; vocab: only tokens below it are drafted; ends: tokens that
    end a text."""

    reading: Callable[[], Reading]
    drafters: Drafters
    vocab: int
    proposal: Proposal = GREEDY
    ends: frozenset[int] = frozenset()

    @torch.inference_mode()
    def write(self, prompt: Sequence[int], new: int, seed: int = 0) -> Speculated:
        """Up to `new` tokens after a prompt of at least one; an end is the last."""
        began = time.perf_counter()
        text, end = list(prompt), len(prompt) + new
        reading, drafter = self.reading(), self.drafters(end)
        unread, queries = list(prompt), 0
        sure: list[float] = []
        drafted: list[int] = []
        accepted: list[int] = []
        while len(text) < end and self.ends.isdisjoint(text[len(prompt) :]):
            most = end - len(text) - 1
            guesses = self._guessed(drafter, text, most, prompt, seed) if most else []
            logp = reading.read([*unread, *guesses], len(guesses) + 1).log_softmax(-1)
            tokens = self._drawn(logp, text, prompt, seed)
            stayed = next((i for i, (a, b) in enumerate(zip(guesses, tokens.tolist())) if a != b), len(guesses))
            reading.forget(len(guesses) - stayed)
            sure += logp.gather(-1, tokens[:, None])[: stayed + 1, 0].exp().tolist()
            queries += len(unread) + len(guesses)
            drafted.append(len(guesses))
            accepted.append(stayed)
            text += tokens[: stayed + 1].tolist()
            unread = text[-1:]
        written = text[len(prompt) :]
        ended = next((i + 1 for i, token in enumerate(written) if token in self.ends), len(written))
        written = written[:ended]
        passes = [at for at, stays in enumerate(accepted) for _ in range(stays + 1)][: len(written)]
        seconds = time.perf_counter() - began
        return Speculated(
            written, sure[: len(written)], passes, drafted, accepted, [0] * len(drafted), queries, seconds
        )

    def _guessed(self, drafter: Drafter, text: Sequence[int], most: int, prompt: Sequence[int], seed: int) -> list[int]:
        found: list[int] = self._drawn(drafter.guess(text, most)[:, : self.vocab], text, prompt, seed).tolist()
        return found

    def _drawn(self, logp: Tensor, text: Sequence[int], prompt: Sequence[int], seed: int) -> Tensor:
        """Of the tokens behind the text, from logp (K, V)."""
        ahead = torch.arange(len(logp), device=logp.device)
        seeds, position = torch.full_like(ahead, seed), len(text) + ahead
        return drawn(self.proposal, logp, seeds, position, position - len(prompt))

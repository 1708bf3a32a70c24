"""Texts that are written by speculation, and the guesses of how they go on. Knows no network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..noise.draws import FromCounters
from .budget import NONE
from .propose import Proposal


@dataclass
class Texts:
    """B rows. tokens (B, S): a start token, the prompt, what is written; sure (B, S): the probability of that. (B,):
    prompt, where writing begins; length, how many tokens stand; end, how many there may be; row, which prompt it is."""

    tokens: Tensor
    sure: Tensor
    prompt: Tensor
    length: Tensor
    end: Tensor
    seed: Tensor
    row: Tensor

    @classmethod
    def of(
        cls, start: int, prompts: Sequence[Sequence[int]], new: Sequence[int], seeds: Sequence[int], ahead: int
    ) -> Texts:
        """ahead: slots behind the longest row's end, for drafts that reach beyond it."""
        prompt = torch.tensor([1 + len(tokens) for tokens in prompts])
        end = prompt + torch.tensor(new)
        tokens = torch.full((len(prompts), int(end.max()) + ahead), start)
        for line, given in zip(tokens, prompts):
            line[1 : 1 + len(given)] = torch.tensor(given, dtype=torch.int64)
        return cls(
            tokens, torch.ones(tokens.shape), prompt, prompt, end, torch.tensor(seeds), torch.arange(len(tokens))
        )

    def only(self, index: Tensor) -> Texts:
        return Texts(*(part[index] for part in vars(self).values()))

    def to(self, device: torch.device) -> Texts:
        return Texts(*(part.to(device) for part in vars(self).values()))

    @property
    def slot(self) -> Tensor:
        return torch.arange(self.tokens.shape[1], device=self.tokens.device).expand(self.tokens.shape)

    def ended(self, eos_id: int | None) -> Tensor:
        full = self.length >= self.end
        if eos_id is None:
            return full
        written = (self.slot >= self.prompt[:, None]) & (self.slot < self.length[:, None])
        return full | (written & (self.tokens == eos_id)).any(1)

    def ahead(self, count: int) -> Tensor:
        """The next slots to write in, (B, count)."""
        return self.length[:, None] + torch.arange(count, device=self.length.device)

    def draw(self, proposal: Proposal, logp: Tensor, slot: Tensor) -> Tensor:
        """Tokens (B, K) from logp (B, K, V) of what stands in slot (B, K)."""
        seeds, steps = (x.flatten() for x in (self.seed[:, None].expand_as(slot), slot - self.prompt[:, None]))
        return drawn(proposal, logp.flatten(0, 1), seeds, slot.flatten() - 1, steps).view(slot.shape)


def drawn(proposal: Proposal, logp: Tensor, seed: Tensor, position: Tensor, step: Tensor) -> Tensor:
    """Tokens (N,) from logp (N, V), with the numbers that left to right draws with at position (N,) of the row with
    seed (N,), where it is the step-th token that it writes (N,), from 0."""
    rng = FromCounters(seed, position[:, None])
    rng.begin(step)
    return proposal.draw(logp, rng.at(torch.ones_like(position, dtype=torch.bool)[:, None]))


@dataclass(frozen=True)
class Draft:
    """tokens (B, K): guesses of the next tokens, and the mask, which is never written, where there is none; sorts, B
    lists of K: of each guess (`budget`), NONE where there is none; sure, B lists of K: the model's probability of it,
    or how often such a one stays if it was looked up; 0 where there is none."""

    tokens: Tensor
    sorts: list[list[int]]
    sure: list[list[float]]

    @classmethod
    def none(cls, texts: Texts) -> Draft:
        return cls(texts.tokens[:, :0], [[] for _ in texts.row], [[] for _ in texts.row])

    def only(self, index: Tensor) -> Draft:
        rows = index.tolist()
        return Draft(self.tokens[index], [self.sorts[i] for i in rows], [self.sure[i] for i in rows])

    def but(self, other: dict[int, tuple[list[int], list[int], list[float]]], mask_id: int) -> Draft:
        """With other guesses in some rows: tokens, their sorts, how sure they are."""
        width = max(self.tokens.shape[1], *(len(tokens) for tokens, _, _ in other.values()))
        rows = [other.get(i, row) for i, row in enumerate(zip(self.tokens.tolist(), self.sorts, self.sure))]
        tokens, sorts, sure = (
            [[*part, *[nothing] * (width - len(part))] for part in parts]
            for parts, nothing in zip(zip(*rows), (mask_id, NONE, 0.0))
        )
        return Draft(torch.tensor(tokens, device=self.tokens.device), sorts, sure)

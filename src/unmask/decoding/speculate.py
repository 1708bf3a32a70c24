"""Self-speculation of joint models: diffusion drafts a block, one causal pass of the same network checks it. What is
written is exactly what the model would write left to right, several tokens a cycle. Knows no noise and no training.

A cycle is two passes over a cache of clean text, behind a start token:
  draft    the last token written, and a block of masks behind the text. The former's output is the law p of the next
           token, so that one is exact; the others' outputs are the laws q of the tokens after it, each on its own.
  verify   the block as text. Output by output p is now known of every token drafted. Drafts stay up to the first that
           is rejected, which is drawn anew; behind a block without any stands one token more, for which p is known too.
A draft x is accepted with probability min(1, p(x) / q(x)), and what replaces it is drawn from the part of p that q does
not cover: the tokens have law p, whatever q is (arXiv 2211.17192, theorem 1). At temperature 0 both laws are a single
token, and this is comparing them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ..denoiser import CleanLogits, Denoiser, NextTokenOrBlock
from ..errors import UserError
from ..models.attention import CausalContext, Places
from ..models.cache import Cache
from ..noise.draws import FromCounters, categorical
from .canvas import Row
from .propose import Proposal
from .settings import Decoding

GREEDY = Proposal()
CALLS = 3  # draws a cycle asks for: guesses, verdicts, replacements


@dataclass(frozen=True)
class Speculated:
    """tokens: what was written behind the prompt, up to an end of text and it included; sure: the probability that the
    model gives each of them; passes: the pass of the row, from 0, that wrote it. drafted, accepted: the guesses
    of each cycle, and how many of them stayed; besides these a cycle writes the token that its draft pass is sure of,
    and the one that corrects or continues. queries: tokens the network was fed; seconds: until the row was written."""

    tokens: list[int]
    sure: list[float]
    passes: list[int]
    drafted: list[int]
    accepted: list[int]
    queries: int
    seconds: float


@dataclass
class Texts:
    """B rows. tokens (B, S): a start token, the prompt, what is written. (B,): prompt, where writing begins; length,
    how many tokens stand; kept, how many of them the cache has; end, how many there may be; row, which prompt it is.
    sure (B, S): the probability of what is written."""

    tokens: Tensor
    sure: Tensor
    prompt: Tensor
    length: Tensor
    kept: Tensor
    end: Tensor
    seed: Tensor
    row: Tensor

    @classmethod
    def of(cls, start: int, prompts: Sequence[Sequence[int]], new: Sequence[int], seeds: Sequence[int]) -> Texts:
        prompt = torch.tensor([1 + len(tokens) for tokens in prompts])
        end = prompt + torch.tensor(new)
        tokens = torch.full((len(prompts), int(end.max())), start)
        for line, given in zip(tokens, prompts):
            line[1 : 1 + len(given)] = torch.tensor(given, dtype=torch.int64)
        kept, row = torch.zeros_like(end), torch.arange(len(prompts))
        return cls(tokens, torch.ones(tokens.shape), prompt, prompt, kept, end, torch.tensor(seeds), row)

    def only(self, index: Tensor) -> Texts:
        return Texts(*(part[index] for part in vars(self).values()))

    def to(self, device: torch.device) -> Texts:
        return Texts(*(part.to(device) for part in vars(self).values()))

    @property
    def slot(self) -> Tensor:
        return torch.arange(self.tokens.shape[1], device=self.tokens.device).expand(self.tokens.shape)

    def between(self, first: Tensor, last: Tensor) -> Tensor:
        """(B, S) bool: the slots in [first, last), both (B,)."""
        return (self.slot >= first[:, None]) & (self.slot < last[:, None])

    def ended(self, eos_id: int | None) -> Tensor:
        written = self.between(self.prompt, self.length)
        stops = torch.zeros_like(written) if eos_id is None else written & (self.tokens == eos_id)
        return (self.length >= self.end) | stops.any(1)

    def draws(self, call: int) -> FromCounters:
        rng = FromCounters(self.seed, self.slot)
        rng.begin(call)
        return rng


def speculate(denoiser: Denoiser, rows: Sequence[Row], settings: Decoding) -> list[Speculated]:
    """The rows' open ends, as the settings say; UserError where these say what only other rules can do."""
    for i, row in enumerate(rows):
        if row.open != sorted(row.open):
            raise UserError(f"prompt {i}: has a gap, and self_speculation writes ends of texts only; leave rule out")
    usual = Decoding(
        rule=settings.rule, block=settings.block, temperature=settings.temperature, top_p=settings.top_p,
        top_k=settings.top_k, eos_id=settings.eos_id, cache=settings.cache,
    )  # fmt: skip
    for field in fields(usual):
        if getattr(settings, field.name) not in (getattr(usual, field.name), False):
            raise UserError(f"{field.name}: self_speculation writes as the model does left to right; leave it out")
    proposal = Proposal(settings.temperature, settings.top_p, settings.top_k)
    speculation = Speculation(denoiser, proposal, settings.block, settings.eos_id)
    prompts = [row.tokens[: len(row.tokens) - row.n_open] for row in rows]
    if not rows:
        return []
    return speculation.write(prompts, [row.n_open for row in rows], [row.seed for row in rows])


class Speculation:
    """A joint model that checks its own drafts. size: of the blocks it drafts; default those it was trained on."""

    def __init__(
        self, denoiser: Denoiser, proposal: Proposal = GREEDY, size: int | None = None, eos_id: int | None = None
    ) -> None:
        rule, head = denoiser.rule, denoiser.head
        if not isinstance(rule, CausalContext) or not isinstance(head, NextTokenOrBlock):
            raise UserError("rule: self_speculation needs a model that drafts and checks; train one with method=joint")
        self.size, self.start = size or rule.size or 1, head.start
        unused = denoiser.banned.tolist()[1:]
        self.reader = Denoiser(
            denoiser.network, mask_id=denoiser.mask_id, rule=CausalContext(), head=CleanLogits(), unused=unused
        )
        self.proposal, self.eos_id = proposal, eos_id

    @torch.inference_mode()
    def write(
        self, prompts: Sequence[Sequence[int]], new: Sequence[int], seeds: Sequence[int] | None = None
    ) -> list[Speculated]:
        """Up to new[i] tokens after prompt i, as one batch; rows need not be in step."""
        began, call = time.perf_counter(), 0
        texts = Texts.of(self.start, prompts, new, seeds or [0] * len(prompts)).to(self.reader.banned.device)
        cache = self.reader.network.cache(*texts.tokens.shape)
        ledger: list[list[tuple[int, int, int]]] = [[] for _ in prompts]
        done: dict[int, Speculated] = {}
        while True:
            ended = texts.ended(self.eos_id)
            for i in ended.nonzero()[:, 0].tolist():
                done[int(texts.row[i])] = self._told(texts, i, ledger, time.perf_counter() - began)
            if bool(ended.any()):
                index = (~ended).nonzero()[:, 0]
                texts = texts.only(index)
                cache.only(index)
            if not len(texts.row):
                return [done[i] for i in range(len(prompts))]
            figures = self._cycle(texts, cache, call)
            for row, *numbers in zip(texts.row.tolist(), *(x.tolist() for x in figures)):
                ledger[row].append(tuple(numbers))
            call += CALLS

    def _told(self, texts: Texts, i: int, ledger: list[list[tuple[int, int, int]]], seconds: float) -> Speculated:
        drafted, accepted, queries = zip(*ledger[int(texts.row[i])]) if ledger[int(texts.row[i])] else ((), (), ())
        tokens = texts.tokens[i, texts.prompt[i] : texts.length[i]].tolist()
        if self.eos_id in tokens:
            tokens = tokens[: tokens.index(self.eos_id) + 1]
        sure = texts.sure[i, texts.prompt[i] :].tolist()[: len(tokens)]
        passes = [at for cycle, stayed in enumerate(accepted) for at in (2 * cycle, *[2 * cycle + 1] * (stayed + 1))]
        return Speculated(tokens, sure, passes[: len(tokens)], list(drafted), list(accepted), sum(queries), seconds)

    def _cycle(self, texts: Texts, cache: Cache, call: int) -> tuple[Tensor, Tensor, Tensor]:
        """Draft, verify, and go on: guesses, how many of them stayed, and tokens fed, of each row (B,)."""
        block = texts.between(texts.length, (texts.length + self.size).minimum(texts.end))
        count, fed = block.sum(1), texts.length - texts.kept + 2 * block.sum(1)
        draft = self._draft(texts, cache, block)
        guess = self.proposal.draw(draft, texts.draws(call).at(block))
        texts.tokens = texts.tokens.masked_scatter(block, guess)
        cache.truncate(texts.length)
        p = self.reader(
            texts.tokens, places=Places(texts.slot, None, texts.slot >= 0), where=block, cache=cache, feed=block
        )
        check = p.logits().log_softmax(-1)
        stayed, token = self._verdict(texts, block, draft, check, call)
        texts.kept = texts.length + 1 + stayed
        cache.truncate(texts.kept)
        follows = (texts.slot == texts.kept[:, None]) & (texts.kept < texts.end)[:, None]
        texts.tokens = torch.where(follows, token[:, None], texts.tokens)
        self._note(texts, block, draft, check)
        texts.length = (texts.kept + 1).minimum(texts.end)
        return count - 1, stayed, fed

    def _note(self, texts: Texts, block: Tensor, draft: Tensor, check: Tensor) -> None:
        """How sure the model is of what this cycle wrote: the first token as drafted, the others as checked."""
        after = check.gather(-1, texts.tokens.roll(-1, 1)[block][:, None])[:, 0].exp()
        sure = torch.zeros_like(texts.sure).masked_scatter(block, after).roll(1, 1)
        drafted = draft.gather(-1, texts.tokens[block][:, None])[:, 0].exp()
        first = texts.slot == texts.length[:, None]
        sure = torch.where(first, torch.zeros_like(sure).masked_scatter(block, drafted), sure)
        texts.sure = torch.where(texts.between(texts.length, texts.kept + 1), sure, texts.sure)

    def _draft(self, texts: Texts, cache: Cache, block: Tensor) -> Tensor:
        """log-probabilities (N, V) of the tokens of `block` (B, S): of the first from the text alone."""
        last = texts.slot == texts.length[:, None] - 1
        others = block & (texts.slot > texts.length[:, None])
        x = texts.tokens.masked_fill(block, self.reader.mask_id)
        places = Places(texts.slot, None, texts.slot < texts.length[:, None])
        feed = block | texts.between(texts.kept, texts.length)
        return self.reader(x, places=places, where=last | others, cache=cache, feed=feed).logits().log_softmax(-1)

    def _verdict(self, texts: Texts, block: Tensor, draft: Tensor, check: Tensor, call: int) -> tuple[Tensor, Tensor]:
        """How many guesses of each row stay (B,), and the token behind them (B,).

        draft (N, V): log q of the token in each slot of the block; check (N, V): log p of the token in the slot after.
        """
        count, column = block.sum(1), torch.arange(self.size, device=block.device)
        real = column < count[:, None]  # (B, K)
        guess = texts.tokens.new_zeros(real.shape).masked_scatter(real, texts.tokens[block])
        if self.proposal.temperature == 0:
            best = torch.zeros_like(guess).masked_scatter(real, check.argmax(-1))
            agrees = best[:, :-1] == guess[:, 1:]
            stayed = _leading(agrees & real[:, 1:])
            return stayed, best.gather(1, stayed[:, None])[:, 0]
        p, q = (torch.zeros(*real.shape, x.shape[-1], dtype=torch.float64, device=x.device) for x in (check, draft))
        p[real], q[real] = self.proposal.law(check).exp(), self.proposal.law(draft).exp()
        verdict = texts.draws(call + 1).uniform(texts.slot)
        chance = torch.zeros(real.shape, dtype=torch.float64, device=block.device).masked_scatter(real, verdict[block])
        said = guess[:, 1:, None]
        agrees = chance[:, 1:] * q[:, 1:].gather(-1, said)[..., 0] < p[:, :-1].gather(-1, said)[..., 0]
        stayed = _leading(agrees & real[:, 1:])
        rows = torch.arange(len(real), device=block.device)
        covered = torch.cat([q, torch.zeros_like(q[:, :1])], 1)[rows, stayed + 1]
        covered = covered.masked_fill((stayed + 1 >= count)[:, None], 0.0)  # every guess stayed: one more, from p
        left = (p[rows, stayed] - covered).clamp(min=0)
        after = (texts.length + 1 + stayed).clamp(max=texts.tokens.shape[1] - 1)
        return stayed, categorical(left, texts.draws(call + 2).uniform(texts.slot)[rows, after])


def _leading(agrees: Tensor) -> Tensor:
    """How many are True before the first that is not: (B, K) bool -> (B,)."""
    return agrees.long().cumprod(1).sum(1)

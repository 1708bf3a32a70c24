"""Self-speculation of joint models: diffusion drafts, and the same network checks the draft as it reads left to right.
What is written is what the model would write left to right, several tokens a pass. Knows no noise and no training.

Each cycle is one pass, over a cache of clean text behind a start token (the shape of it is in `branches`): it reads the
tokens that were drafted, and drafts anew behind every token at which the text may turn out to end. The law p of a token
is known wherever all tokens before it stand. Its draw from p is made with random numbers of the row and the place
alone, those that left to right would use, and the draft was drawn from its own law q with the same: it stays if both
are the same token. So whatever is drafted, and however much, the text does not depend on it, at any temperature
(drafter-invariant speculation, arXiv 2408.07978; a draft stays with a chance of at least (1 - d) / (1 + d), where d is
the total variation between p and q). Where the text repeats itself, a guess can also be looked up in it (`lookup`). How
much to draft, and whose guess to check, is a matter of time alone: `budget`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ..denoiser import Denoiser
from ..errors import UserError
from ..models.cache import Cache
from ..models.transformer import Transformer
from .branches import Plan, Shape
from .budget import FURTHEST, NONE, Budget, Thrift, Whole, by_chance, by_match, is_looked_up
from .canvas import Row
from .drafts import Draft, Texts
from .lookup import Lookup
from .propose import Proposal
from .reader import Reader
from .settings import SPECULATING, Decoding

GREEDY = Proposal()
FOLLOWED = ("rule", "block", "temperature", "top_p", "top_k", "eos_id", "cache", "vocabulary")  # of `Decoding`


@dataclass(frozen=True)
class Speculated:
    """tokens: what was written behind the prompt, up to an end of text and it included; sure: the probability that the
    model gives each of them; passes: the pass of the row, from 0, that wrote it. drafted, accepted: the guesses
    that each pass checked, and how many of them stayed; besides these a pass writes one token that it is sure of.
    looked_up: how many of those that stayed were no draft of the model. queries: tokens the network was fed; seconds:
    until the row was written."""

    tokens: list[int]
    sure: list[float]
    passes: list[int]
    drafted: list[int]
    accepted: list[int]
    looked_up: list[int]
    queries: int
    seconds: float

    @property
    def checks(self) -> list[tuple[int, int, int]]:
        """Of each pass: the guesses it checked, those that stayed, those of them that had been looked up."""
        return list(zip(self.drafted, self.accepted, self.looked_up))


class Entry(NamedTuple):
    """Of a row and a pass: guesses that were checked, those that stayed, those of them that had been looked up, and the
    tokens it was fed."""

    drafted: int
    accepted: int
    looked_up: int
    queries: int

    @classmethod
    def of(cls, sorts: Sequence[int], stayed: int, queries: int) -> Entry:
        drafted = sum(sort != NONE for sort in sorts)
        return cls(drafted, stayed, sum(is_looked_up(sort) for sort in sorts[:stayed]), queries)


@dataclass(frozen=True)
class Cycle:
    """Rows after a pass, until the next one begins. fed: tokens; done: those that are written now. texts, draft: how
    they stand and what is guessed next; before (B,): their lengths before the pass; passes: how many each has seen."""

    fed: int
    done: dict[int, Speculated]
    texts: Texts
    draft: Draft
    before: Tensor
    passes: list[int]


def speculation(denoiser: Denoiser, settings: Decoding) -> Speculation:
    """As the settings say; UserError where these say what only other rules can do."""
    check_followed(settings, SPECULATING)
    proposal = Proposal(settings.temperature, settings.top_p, settings.top_k)
    return Speculation(denoiser, proposal, settings.block, settings.eos_id)


def ends_only(rows: Sequence[Row]) -> None:
    """UserError where a row has gaps."""
    for i, row in enumerate(rows):
        if row.open != sorted(row.open):
            raise UserError(f"prompt {i}: has a gap, and self_speculation writes ends of texts only; leave rule out")


def check_followed(settings: Decoding, who: str) -> None:
    """UserError where the settings say what drafts and checks cannot follow."""
    for field in fields(settings):
        if field.name not in FOLLOWED and getattr(settings, field.name) not in (field.default, False):
            raise UserError(f"{field.name}: {who} writes as the model does left to right; leave it out")


class Speculation:
    """A joint model that checks its own drafts. size: of the blocks it drafts, each behind every token that it checks;
    default: up to those that it was trained on, as many and as long as pay on this machine, and what the text itself
    suggests where that is likelier."""

    def __init__(
        self, denoiser: Denoiser, proposal: Proposal = GREEDY, size: int | None = None, eos_id: int | None = None
    ) -> None:
        self.reader = Reader(denoiser)
        self.size = size or self.reader.size
        self.proposal, self.eos_id = proposal, eos_id
        self.budget: Budget = Whole(self.size) if size else self._thrift()
        self.looks_up = size is None

    @torch.inference_mode()
    def write(
        self, prompts: Sequence[Sequence[int]], new: Sequence[int], seeds: Sequence[int] | None = None
    ) -> list[Speculated]:
        """Up to new[i] tokens after prompt i, as one batch; rows need not be in step."""
        done: dict[int, Speculated] = {}
        for cycle in self.passes(prompts, new, seeds or [0] * len(prompts)):
            done |= cycle.done
        return [done[i] for i in range(len(prompts))]

    def passes(self, prompts: Sequence[Sequence[int]], new: Sequence[int], seeds: Sequence[int]) -> Iterator[Cycle]:
        """Before the first pass and after each."""
        began, fed = time.perf_counter(), 0
        texts, cache = self._opened(prompts, new, seeds, self.ahead)
        before = texts.length
        draft = Draft.none(texts)
        lookups = [Lookup(prompt) for prompt in prompts] if self.looks_up else []
        ledger: list[list[Entry]] = [[] for _ in prompts]
        while True:
            ended = texts.ended(self.eos_id)
            rows = [(i, int(texts.row[i])) for i in ended.nonzero()[:, 0].tolist()]
            seconds = time.perf_counter() - began
            done = {row: self._told(texts, i, ledger[row], seconds) for i, row in rows}
            yield Cycle(fed, done, texts, draft, before, [len(ledger[row]) for row in texts.row.tolist()])
            if rows:
                index = (~ended).nonzero()[:, 0]
                if not len(index):
                    return
                texts, draft = texts.only(index), draft.only(index)
                cache.only(index)
            before, plan = texts.length, self.budget.plan(draft.sorts)
            look = self._look if any(ledger) else self._first_look
            stayed, following = self._settle(texts, plan, draft, look(texts, cache, plan, draft))
            self.budget.learn(plan, draft.sorts, stayed)
            fed = 0
            for row, stays, sorts in zip(texts.row.tolist(), stayed, draft.sorts):
                own = plan.queries + (0 if ledger[row] else len(prompts[row]))
                ledger[row].append(Entry.of(sorts[: plan.checked], stays, own))
                fed += own
            draft = self._or_looked_up(texts, before, following, lookups) if lookups else following

    @property
    def ahead(self) -> int:
        """Slots behind a row's end that drafts may reach into."""
        return self.budget.most

    def _opened(
        self, prompts: Sequence[Sequence[int]], new: Sequence[int], seeds: Sequence[int], ahead: int
    ) -> tuple[Texts, Cache]:
        texts = Texts.of(self.reader.start, prompts, new, seeds, ahead).to(self.reader.banned.device)
        return texts, self.reader.network.cache(*texts.tokens.shape)

    def _told(self, texts: Texts, i: int, ledger: list[Entry], seconds: float) -> Speculated:
        drafted, accepted, looked_up, queries = map(list, zip(*ledger)) if ledger else ([], [], [], [])
        tokens = texts.tokens[i, texts.prompt[i] : texts.length[i]].tolist()
        if self.eos_id in tokens:
            tokens = tokens[: tokens.index(self.eos_id) + 1]
        sure = texts.sure[i, texts.prompt[i] :].tolist()[: len(tokens)]
        passes = [at for at, stayed in enumerate(accepted) for _ in range(stayed + 1)][: len(tokens)]
        return Speculated(tokens, sure, passes, drafted, accepted, looked_up, sum(queries), seconds)

    def _first_look(self, texts: Texts, cache: Cache, plan: Plan, draft: Draft) -> Tensor:
        return self.reader.begin(cache, texts.tokens, texts.length, plan.masks[0])

    def _look(self, texts: Texts, cache: Cache, plan: Plan, draft: Draft) -> Tensor:
        last = texts.tokens.gather(1, texts.length[:, None] - 1)
        trunk = torch.cat([last, draft.tokens[:, : plan.checked]], 1)
        return self.reader.go_on(cache, trunk, (texts.length - 1).tolist(), plan)

    def _settle(self, texts: Texts, plan: Plan, draft: Draft, hidden: Tensor) -> tuple[list[int], Draft]:
        """Write what a pass is sure of, draft anew -> how many of each row's guesses stayed, and the next ones."""
        slot = texts.ahead(plan.checked + 1)
        logp = self.reader.laws(hidden[:, : plan.checked + 1])
        token = texts.draw(self.proposal, logp, slot)
        stayed = (token[:, :-1] == draft.tokens[:, : plan.checked]).long().cumprod(1).sum(1)
        texts.tokens.scatter_(1, slot, token)  # those behind one that was not foreseen are written over
        texts.sure.scatter_(1, slot, logp.gather(-1, token[..., None])[..., 0].exp())
        texts.length = texts.length + stayed + 1
        return stayed.tolist(), self._drafted(texts, plan, hidden, stayed)

    def _drafted(self, texts: Texts, plan: Plan, hidden: Tensor, stayed: Tensor) -> Draft:
        """The guesses of each row's block behind the last token that stayed; that the pass wrote one more, and which,
        they do not know."""
        most, shape = max(plan.guesses), Shape.of(plan, hidden.device)
        if not most:
            return Draft.none(texts)
        column, slot = torch.arange(most, device=hidden.device), texts.ahead(most)
        real = (column < shape.count[stayed][:, None]) & (slot < texts.end[:, None] - 1)  # the last needs no draft
        index = (shape.first[stayed][:, None] + column).clamp_(max=hidden.shape[1] - 1)
        logq = self.reader.laws(hidden.gather(1, index[..., None].expand(-1, -1, hidden.shape[-1])))
        token = texts.draw(self.proposal, logq, slot)
        sure = logq.gather(-1, token[..., None])[..., 0].exp().masked_fill_(~real, 0.0).tolist()
        sorts = [[by_chance(p) if p > 0 else NONE for p in row] for row in sure]
        return Draft(token.masked_fill_(~real, self.reader.mask_id), sorts, sure)

    def _or_looked_up(self, texts: Texts, before: Tensor, drafted: Draft, lookups: Sequence[Lookup]) -> Draft:
        """What the text itself suggests, in rows where that is more likely to stay. before (B,): where what the last
        pass wrote begins."""
        better = {}
        spans = zip(texts.row.tolist(), before.tolist(), texts.length.tolist(), texts.end.tolist())
        for i, (row, begin, length, end) in enumerate(spans):
            lookups[row].read(texts.tokens[i, begin:length].tolist())
            tokens, match = lookups[row].guess(min(FURTHEST, end - length - 1))  # the last needs no guess
            sorts = [by_match(match + before_it) for before_it in range(len(tokens))]
            if sure := self.budget.better(sorts, drafted.sorts[i]):
                better[i] = tokens, sorts, sure
        return drafted.but(better, self.reader.mask_id) if better else drafted

    def _thrift(self) -> Thrift:
        """What is known of this network on this machine; measured when first asked for."""
        network = self.reader.network
        if network not in _THRIFT:
            _THRIFT[network] = Thrift(self.size, *self._cost())
        return _THRIFT[network]

    @torch.inference_mode()
    def _cost(self, prompt: int = 64, times: int = 8) -> tuple[float, float]:
        """Seconds of a pass, and of each token in it: the line through one token, and a whole draft and one block."""
        small, large = Plan(0, (0,)), Plan(self.size - 1, (*(0,) * (self.size - 1), self.size))
        texts, cache = self._opened([[self.reader.start] * prompt], [times * (2 + self.size)], [0], large.queries)
        draft = Draft(texts.tokens[:, : self.size - 1], [], [])
        self._settle(texts, small, draft, self._first_look(texts, cache, small, draft))
        seconds: list[list[float]] = [[], []]
        for _ in range(times):
            for plan, taken in zip((small, large), seconds):
                began = time.perf_counter()
                self._settle(texts, plan, draft, self._look(texts, cache, plan, draft))
                taken.append(time.perf_counter() - began)
        least, most = (min(taken) for taken in seconds)
        slope = max(most - least, 0.0) / max(large.queries - small.queries, 1)
        return least - slope, slope


_THRIFT: WeakKeyDictionary[Transformer, Thrift] = WeakKeyDictionary()

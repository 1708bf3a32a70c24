"""Self-speculation of joint models: diffusion drafts, and the same network checks the draft as it reads left to right.
What is written is what the model would write left to right, several tokens a pass. Knows no noise and no training.

Each cycle is one pass, over a cache of clean text behind a start token (the shape of it is in `branches`): it reads the
tokens that were drafted, and drafts anew behind every token at which the text may turn out to end. The law p of a token
is known wherever all tokens before it stand. Its draw from p is made with random numbers of the row and the place
alone, those that left to right would use, and the draft was drawn from its own law q with the same: it stays if both
are the same token. So whatever is drafted, and however much, the text does not depend on it, at any temperature
(drafter-invariant speculation, arXiv 2408.07978; a draft stays with a chance of at least (1 - d) / (1 + d), where d is
the total variation between p and q). How much to draft is a matter of time alone: `budget`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ..denoiser import CleanLogits, Denoiser, NextTokenOrBlock, Prediction
from ..errors import UserError
from ..models.attention import CausalContext, Places
from ..models.cache import Cache
from ..models.transformer import Transformer
from ..noise.draws import FromCounters
from .branches import Branches, Plan, Shape
from .budget import Budget, Thrift, Whole
from .canvas import Row
from .propose import Proposal
from .settings import Decoding

GREEDY = Proposal()


@dataclass(frozen=True)
class Speculated:
    """tokens: what was written behind the prompt, up to an end of text and it included; sure: the probability that the
    model gives each of them; passes: the pass of the row, from 0, that wrote it. drafted, accepted: the guesses
    that each pass checked, and how many of them stayed; besides these a pass writes one token that it is sure of.
    queries: tokens the network was fed; seconds: until the row was written."""

    tokens: list[int]
    sure: list[float]
    passes: list[int]
    drafted: list[int]
    accepted: list[int]
    queries: int
    seconds: float


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
        """Tokens (B, K) from logp (B, K, V) with the numbers that left to right would draw them with at slot (B, K): a
        step a token."""
        each = (slot - self.prompt[:, None]).flatten()
        rng = FromCounters(self.seed.repeat_interleave(slot.shape[1]), slot.flatten()[:, None] - 1)
        rng.begin(each)
        return proposal.draw(logp.flatten(0, 1), rng.at(torch.ones_like(each, dtype=torch.bool)[:, None])).view(
            slot.shape
        )


@dataclass(frozen=True)
class Draft:
    """tokens (B, K): guesses of the next tokens; sure: the model's probability of each, B lists of K, 0 where nothing
    was guessed and the token is the mask, which is never written."""

    tokens: Tensor
    sure: list[list[float]]

    @classmethod
    def none(cls, texts: Texts) -> Draft:
        return cls(texts.tokens[:, :0], [[] for _ in texts.row])

    def only(self, index: Tensor) -> Draft:
        return Draft(self.tokens[index], [self.sure[i] for i in index.tolist()])


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
    """A joint model that checks its own drafts. size: of the blocks it drafts, each behind every token that it checks;
    default: up to those that it was trained on, as many and as long as pay on this machine."""

    def __init__(
        self, denoiser: Denoiser, proposal: Proposal = GREEDY, size: int | None = None, eos_id: int | None = None
    ) -> None:
        rule, head = denoiser.rule, denoiser.head
        if not isinstance(rule, CausalContext) or not isinstance(head, NextTokenOrBlock):
            raise UserError("rule: self_speculation needs a model that drafts and checks; train one with method=joint")
        self.size, self.start = size or rule.size or 1, head.start
        self.reader = Denoiser(
            denoiser.network,
            mask_id=denoiser.mask_id,
            rule=CausalContext(),
            head=CleanLogits(),
            unused=denoiser.banned.tolist()[1:],
        )
        self.proposal, self.eos_id = proposal, eos_id
        self.budget: Budget = Whole(self.size) if size else self._thrift()

    @torch.inference_mode()
    def write(
        self, prompts: Sequence[Sequence[int]], new: Sequence[int], seeds: Sequence[int] | None = None
    ) -> list[Speculated]:
        """Up to new[i] tokens after prompt i, as one batch; rows need not be in step."""
        began = time.perf_counter()
        texts, cache = self._opened(prompts, new, seeds or [0] * len(prompts))
        draft = Draft.none(texts)
        ledger: list[list[tuple[int, int, int]]] = [[] for _ in prompts]
        done: dict[int, Speculated] = {}
        while True:
            ended = texts.ended(self.eos_id)
            if bool(ended.any()):
                for i in ended.nonzero()[:, 0].tolist():
                    row = int(texts.row[i])
                    done[row] = self._told(texts, i, ledger[row], time.perf_counter() - began)
                if len(done) == len(prompts):
                    return [done[i] for i in range(len(prompts))]
                index = (~ended).nonzero()[:, 0]
                texts, draft = texts.only(index), draft.only(index)
                cache.only(index)
            plan = self.budget.plan(draft.sure)
            look = self._pass if any(ledger) else self._begin
            stayed, following = self._settle(texts, plan, draft, look(texts, cache, plan, draft))
            self.budget.learn(plan, draft.sure, stayed)
            for row, stays, sure in zip(texts.row.tolist(), stayed, draft.sure):
                fed = plan.queries if ledger[row] else plan.queries + len(prompts[row])
                ledger[row].append((sum(p > 0 for p in sure[: plan.checked]), stays, fed))
            draft = following

    def _opened(
        self, prompts: Sequence[Sequence[int]], new: Sequence[int], seeds: Sequence[int]
    ) -> tuple[Texts, Cache]:
        most = Plan(self.size - 1, (self.size,) * self.size).queries
        texts = Texts.of(self.start, prompts, new, seeds, ahead=most).to(self.reader.banned.device)
        return texts, self.reader.network.cache(*texts.tokens.shape)

    def _told(self, texts: Texts, i: int, ledger: list[tuple[int, int, int]], seconds: float) -> Speculated:
        drafted, accepted, queries = zip(*ledger) if ledger else ((), (), ())
        tokens = texts.tokens[i, texts.prompt[i] : texts.length[i]].tolist()
        if self.eos_id in tokens:
            tokens = tokens[: tokens.index(self.eos_id) + 1]
        sure = texts.sure[i, texts.prompt[i] :].tolist()[: len(tokens)]
        passes = [at for at, stayed in enumerate(accepted) for _ in range(stayed + 1)]
        return Speculated(tokens, sure, passes[: len(tokens)], list(drafted), list(accepted), sum(queries), seconds)

    def _begin(self, texts: Texts, cache: Cache, plan: Plan, draft: Draft) -> Tensor:
        """The first pass: prompts of unequal lengths, and a block of masks behind each -> hidden states (B K, D) of the
        outputs that the plan's shape wants."""
        slot, length = texts.slot, texts.length[:, None]
        masked = (slot >= length) & (slot < length + plan.masks[0])
        hidden: Tensor = self.reader.network(
            texts.tokens.masked_fill(masked, self.reader.mask_id),
            Places(slot, None, slot < length),
            self.reader.rule,
            where=(slot == length - 1) | (masked & (slot > length)),
            cache=cache,
            feed=slot < length + plan.masks[0],
        )
        return hidden

    def _pass(self, texts: Texts, cache: Cache, plan: Plan, draft: Draft) -> Tensor:
        """The same of every other pass."""
        shape = Shape.of(plan, texts.tokens.device)
        last = texts.tokens.gather(1, texts.length[:, None] - 1)
        masks = last.new_full((1, sum(plan.masks)), self.reader.mask_id).expand(len(last), -1)
        branches = Branches(cache, shape, (texts.length - 1).tolist())
        hidden: Tensor = self.reader.network(
            torch.cat([last, draft.tokens[:, : plan.checked], masks], 1),
            branches.places,
            where=shape.wanted.expand(len(last), -1),
            cache=branches,
        )
        return hidden

    def _settle(self, texts: Texts, plan: Plan, draft: Draft, hidden: Tensor) -> tuple[list[int], Draft]:
        """Write what a pass is sure of, draft anew -> how many of each row's guesses stayed, and the next ones."""
        hidden = hidden.view(len(texts.row), -1, hidden.shape[-1])
        slot = texts.ahead(plan.checked + 1)
        logp = self._laws(hidden[:, : plan.checked + 1])
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
        logq = self._laws(hidden.gather(1, index[..., None].expand(-1, -1, hidden.shape[-1])))
        token = texts.draw(self.proposal, logq, slot)
        sure = logq.gather(-1, token[..., None])[..., 0].exp().masked_fill_(~real, 0.0)
        return Draft(token.masked_fill_(~real, self.reader.mask_id), sure.tolist())

    def _laws(self, hidden: Tensor) -> Tensor:
        """(B, K, D) -> log-probabilities (B, K, V)."""
        head = self.reader.network.head
        said = Prediction(hidden.flatten(0, 1), head.weight, self.reader.banned, head.bias)
        return said.mu().unflatten(0, hidden.shape[:2])

    def _thrift(self) -> Thrift:
        """What is known of this network on this machine; measured when first asked for."""
        network = self.reader.network
        if network not in _THRIFT:
            _THRIFT[network] = Thrift(self.size, *self._cost())
        return _THRIFT[network]

    @torch.inference_mode()
    def _cost(self, prompt: int = 64, times: int = 4) -> tuple[float, float]:
        """Seconds of a pass, and of each token in it: the line through one token, and a whole draft and one block."""
        small, large = Plan(0, (0,)), Plan(self.size - 1, (*(0,) * (self.size - 1), self.size))
        texts, cache = self._opened([[self.start] * prompt], [times * (2 + self.size)], [0])
        draft = Draft(texts.tokens[:, : self.size - 1], [])
        self._settle(texts, small, draft, self._begin(texts, cache, small, draft))
        seconds: list[list[float]] = [[], []]
        for _ in range(times):
            for plan, taken in zip((small, large), seconds):
                began = time.perf_counter()
                self._settle(texts, plan, draft, self._pass(texts, cache, plan, draft))
                taken.append(time.perf_counter() - began)
        least, most = (min(taken) for taken in seconds)
        slope = max(most - least, 0.0) / max(large.queries - small.queries, 1)
        return least - slope, slope


_THRIFT: WeakKeyDictionary[Transformer, Thrift] = WeakKeyDictionary()

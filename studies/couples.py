"""A language of couples whose every text is known, and the exact law of what each decoding rule writes in it.

A text is a few couples of tokens, each drawn on its own: token i with chance weights[i], and then its partner, always.
Any other pair is impossible. A denoiser that knows the language perfectly still says of a couple with both tokens open
what each token may be, not what they may be together: what is written in one step is drawn on its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from unmask.decoding.ancestral import Ancestral
from unmask.decoding.propose import Proposal
from unmask.decoding.quotas import Quota
from unmask.decoding.select import Rank
from unmask.decoding.steppers import Commit, Tick
from unmask.denoiser import CleanLogits
from unmask.layout import Whole
from unmask.models.attention import Places
from unmask.noise.draws import FromCounters
from unmask.noise.tokens import Masking


@dataclass(frozen=True)
class Couples:
    """near: partners are neighbours (AaBbCc); else all first tokens stand before all partners (ABCabc)."""

    weights: tuple[float, ...] = (1 / 2, 1 / 3, 1 / 6)
    couples: int = 3
    near: bool = True

    @property
    def n(self) -> int:
        return len(self.weights)

    @property
    def length(self) -> int:
        return 2 * self.couples

    @property
    def mask_id(self) -> int:
        return 2 * self.n

    @property
    def process(self) -> Masking:
        return Masking.over(2 * self.n + 1, self.mask_id)

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Positions of the couples."""
        return [(2 * i, 2 * i + 1) if self.near else (i, self.couples + i) for i in range(self.couples)]

    @property
    def apart(self) -> float:
        """The chance that two tokens drawn on their own are no couple."""
        return 1 - sum(w * w for w in self.weights)

    def mu(self, x: Tensor) -> Tensor:
        """log p(token | all other positions), x (B, L) -> (B, L, V) float64; -inf where impossible."""
        p = torch.zeros(*x.shape, 2 * self.n + 1, dtype=torch.float64)
        weights = torch.tensor(self.weights, dtype=torch.float64)
        for first, second in self.pairs:
            for here, there, offset in ((first, second, 0), (second, first, self.n)):
                open = x[:, there] == self.mask_id
                partner = (x[:, there] + self.n) % (2 * self.n)
                p[open, here, offset : offset + self.n] = weights
                p[~open, here, partner[~open]] = 1.0
        return p.log()

    def texts(self, n: int, seed: int = 0) -> list[str]:
        """n texts in letters: A, B, ... and their partners a, b, ..."""
        rng = torch.Generator().manual_seed(seed)
        drawn = torch.multinomial(torch.tensor(self.weights), n * self.couples, replacement=True, generator=rng)
        found = []
        for row in drawn.view(n, -1).tolist():
            letters = [""] * self.length
            for (first, second), token in zip(self.pairs, row):
                letters[first], letters[second] = chr(65 + token), chr(97 + token)
            found.append("".join(letters))
        return found

    def read(self, text: str) -> list[int]:
        """Tokens of letters; what is no letter of the language is the mask, which fits to nothing."""
        known = {chr(65 + i): i for i in range(self.n)} | {chr(97 + i): self.n + i for i in range(self.n)}
        return [known.get(letter, self.mask_id) for letter in text]


@dataclass(frozen=True)
class Law:
    """Of what is written, averaged over the couples. impossible: the chance of a pair that is no couple; distance: from
    the true law of couples, in total variation, which sees what was never written too; passes: a text."""

    impossible: float
    distance: float
    passes: float


def law_of(language: Couples, texts: Tensor, p: Tensor, passes: float) -> Law:
    """texts (T, L) with their probabilities (T,)."""
    n, impossible, distance = language.n, 0.0, 0.0
    for first, second in language.pairs:
        joint = torch.zeros(2 * n + 1, 2 * n + 1, dtype=torch.float64)
        joint.index_put_((texts[:, first], texts[:, second]), p, accumulate=True)
        true = torch.zeros_like(joint)
        for i, weight in enumerate(language.weights):
            true[i, n + i] = weight
        impossible += float(joint[true == 0].sum())
        distance += float((joint - true).abs().sum()) / 2
    return Law(impossible / language.couples, distance / language.couples, passes)


# -- rules that look: every proposal enumerated and put through the stepper itself


@dataclass(frozen=True)
class Given(Proposal):
    """The tokens that were enumerated, instead of a draw."""

    tokens: Tensor | None = None

    def draw(self, logp: Tensor, rng: FromCounters) -> Tensor:
        assert self.tokens is not None
        return self.tokens


def looking(language: Couples, rank: Rank, quota: Quota, steps: int) -> Law:
    """Exact: from each state all that may be proposed, in the proportion in which it is."""
    states = {(language.mask_id,) * language.length: 1.0}
    done: dict[tuple[int, ...], float] = {}
    passes = 0.0
    for left in range(steps, 0, -1):
        passes += sum(states.values())
        after: dict[tuple[int, ...], float] = {}
        for count, some in itertools.groupby(sorted(states, key=_open(language)), _open(language)):
            x, p = _proposed(language, list(some), count, states, rank, quota, left, steps)
            for text, chance in zip(map(tuple, x.tolist()), p.tolist()):
                target = after if language.mask_id in text else done
                target[text] = target.get(text, 0.0) + chance
        states = after
        if not states:
            break
    texts = torch.tensor(list(done))
    return law_of(language, texts, torch.tensor(list(done.values()), dtype=torch.float64), passes)


def _open(language: Couples):
    return lambda state: sum(token == language.mask_id for token in state)


def _proposed(
    language: Couples,
    some: Sequence[tuple[int, ...]],
    count: int,
    chances: dict[tuple[int, ...], float],
    rank: Rank,
    quota: Quota,
    left: int,
    steps: int,
) -> tuple[Tensor, Tensor]:
    """States with `count` open positions -> what they become, and with what chance."""
    options = torch.tensor(list(itertools.product(range(language.n), repeat=count)))
    x = torch.tensor(some).repeat_interleave(len(options), 0)
    p = torch.tensor([chances[s] for s in some], dtype=torch.float64).repeat_interleave(len(options))
    open = x == language.mask_id
    seconds = torch.zeros(language.length, dtype=torch.int64).index_fill(
        0, torch.tensor([second for _, second in language.pairs]), language.n
    )
    tokens = (options.repeat(len(some), 1) + seconds.expand(x.shape)[open].view(-1, count)).flatten()
    mu = language.mu(x)[open]
    each = mu.gather(-1, tokens[:, None]).view(-1, count).sum(1).exp()
    may = each > 0
    flat = may.repeat_interleave(count)
    x, p, open = x[may], (p * each)[may], open[may]
    rows, ones = len(x), torch.ones(len(x), dtype=torch.int64)
    tick = Tick(
        x=x, t=open.float(), position=torch.arange(language.length).expand(x.shape), open=open, left=left * ones,
        steps=steps * ones, taken=(steps - left) * ones, seed=torch.arange(rows),
    )  # fmt: skip
    stepper = Commit(rank, quota, Given(temperature=1.0, tokens=tokens[flat]))
    return stepper.move(language.process, tick, open, mu[flat]).x, p


# -- rules that do not look: the chance that both tokens of a couple are written in one step


def blind(language: Couples, steps: int, *, ordered: bool, block: int | None = None) -> Law:
    """left_to_right (ordered) or random, in blocks: tokens of one step are no couple with the chance `apart`."""
    size, together = block or language.length, 0.0
    sizes = [min(size, language.length - start) for start in range(0, language.length, size)]
    plans = [_evenly(count, max(1, steps * count // language.length)) for count in sizes]
    for first, second in language.pairs:
        if first // size != second // size:
            continue
        plan, count = plans[first // size], sizes[first // size]
        if ordered:
            ends = list(itertools.accumulate(plan))
            step = [next(i for i, end in enumerate(ends) if at % size < end) for at in (first, second)]
            together += step[0] == step[1]
        else:
            together += sum(k * (k - 1) for k in plan) / (count * (count - 1))
    chance = together / language.couples * language.apart
    return Law(chance, chance, sum(map(len, plans)))


def _evenly(count: int, steps: int) -> list[int]:
    """Tokens written in each step."""
    found = []
    for left in range(steps, 0, -1):
        found.append(-(-count // left))
        count -= found[-1]
    return [k for k in found if k]


# -- rules of the noise: couples do not know of each other, so one couple's Markov chain says all


def chained(language: Couples, stepper: Ancestral, steps: int) -> Law:
    """Ancestral and its renewing relatives, exactly: (n + 1)^2 states of a couple, n open."""
    n, process = language.n, language.process
    weights = torch.tensor(language.weights, dtype=torch.float64)
    chance = torch.zeros(n + 1, n + 1, dtype=torch.float64)
    chance[n, n] = 1.0
    for left in range(steps, 0, -1):
        t, s = (stepper.time(torch.tensor([[share / steps]], dtype=torch.float64)) for share in (left, left - 1))
        renewal = stepper.renewal(process, t, s, torch.ones_like(t))
        r = float(renewal) if renewal is not None and left > 1 else 0.0
        a_t, a_s = float(process.schedule.alpha(t)), float(process.schedule.alpha(s))
        after = torch.zeros_like(chance)
        for first, second in itertools.product(range(n + 1), repeat=2):
            laws = [_moves(own, other, weights, a_t, a_s, r) for own, other in ((first, second), (second, first))]
            after += chance[first, second] * torch.outer(*laws)
        chance = after
    true = torch.diag(weights)
    joint = chance[:n, :n]
    return Law(float(joint[true == 0].sum()), float((joint - true).abs().sum()) / 2, float(steps))


def _moves(own: int, other: int, weights: Tensor, a_t: float, a_s: float, r: float) -> Tensor:
    """What a token may be after a step, (n + 1,), from the posterior, or with chance r from noising it anew."""
    n, out = len(weights), torch.zeros(len(weights) + 1, dtype=torch.float64)
    if own == n:
        mu = weights if other == n else torch.eye(n, dtype=torch.float64)[other]
        shown = (1 - r) * (a_s - a_t) / (1 - a_t) + r * a_s
        out[:n], out[n] = shown * mu, 1 - shown
    else:
        out[own], out[n] = 1 - r * (1 - a_s), r * (1 - a_s)
    return out


# -- drafts that are verified


def speculated(language: Couples, draft: int) -> Law:
    """Self-speculation: `draft` tokens drawn on their own in one pass, then one causal pass that takes each with chance
    min(1, p / q) and draws the first that it does not take anew from what is missing of p. What is written has the
    causal pass's law, which is the truth, so nothing is impossible; passes: two a round."""
    match = 1 - language.apart
    expected = [0.0] * (language.length + 1)  # rounds from `start` on
    for start in reversed(range(language.length)):
        rounds, alive = 1.0, 1.0
        for at in range(start, min(start + draft, language.length)):
            partner = next((first for first, second in language.pairs if second == at), None)
            taken = match if partner is not None and partner >= start else 1.0
            rounds += alive * (1 - taken) * expected[at + 1]
            alive *= taken
        expected[start] = rounds + alive * expected[min(start + draft, language.length)]
    return Law(0.0, 0.0, 2 * expected[0])


# -- the same denoiser for the loop that writes


@dataclass
class Known:
    """What a prediction offers."""

    log_probs: Tensor

    def logits(self) -> Tensor:
        return self.log_probs


class Knows(nn.Module):
    """Called like a `Denoiser`; knows the language exactly."""

    def __init__(self, language: Couples) -> None:
        super().__init__()
        self.language, self.vocab, self.mask_id = language, 2 * language.n + 1, language.mask_id
        self.head, self.rule, self.network = CleanLogits(), Whole().rule, SimpleNamespace(time=None)
        self.banned, self.echo = torch.tensor([language.mask_id]), None

    def forward(self, x: Tensor, t: Tensor, *, places: Places, where: Tensor) -> Known:
        return Known(self.language.mu(x)[where])

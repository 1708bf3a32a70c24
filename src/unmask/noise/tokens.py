"""All token noise in one line, q_t(. | x0) = alpha_t x0 + (1 - alpha_t) pi, and Bayes' rule on it.

pi on [MASK] is masked diffusion (LLaDA, MDLM), pi uniform is uniform diffusion (UDLM), anything between is a hybrid.
`TokenNoise` never asks which it has; `Masking` is the same without (B, L, V) work, and tested equal to its parent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from .draws import Draws, categorical, inverse
from .schedule import Linear, Schedule

SMALLEST = 1e-30  # a probability below is taken for it where a logarithm has to be finite
LEAST_SHARE = 1e-12  # of what is kept or lost, where it is divided by
LEAST_SCORE = -80.0  # a log score below is taken for it where it is multiplied by a ratio that may be zero


def resting(vocab: int, barred: Sequence[int], mask_id: int | None = None, uniform_share: float = 1.0) -> Tensor:
    """pi (V,) float64: `uniform_share` evenly on all symbols but the barred, which noise never makes; the rest, if any,
    on the mask. A negative id is no symbol."""
    pi = torch.ones(vocab, dtype=torch.float64)
    pi[[symbol for symbol in barred if symbol >= 0]] = 0
    pi *= uniform_share / pi.sum()
    if mask_id is not None:
        pi[mask_id] += 1 - uniform_share
    return pi


@dataclass(frozen=True)
class TokenNoise:
    """Tokens fade towards a resting distribution pi (V,)."""

    pi: Tensor = field(repr=False)
    schedule: Schedule

    @property
    def vocab(self) -> int:
        return len(self.pi)

    # -- the noise

    def marginal(self, probs: Tensor, t: Tensor) -> Tensor:
        """q_t(. | clean ~ probs): (..., V)."""
        kept, lost = self._shares(t, probs)
        return kept[..., None] * probs + lost[..., None] * self.pi.to(probs)

    def likelihood(self, x: Tensor, t: Tensor) -> Tensor:
        """q_t(x | clean = v) for every v: (..., V)."""
        return self.arrival(x, t, None)

    def arrival(self, x: Tensor, t: Tensor, s: Tensor | None) -> Tensor:
        """q_t|s(x | x_s = v) for every v: (..., V); s None is the clean text, whatever alpha(0) is."""
        kept, lost = self._shares(t, t, s)
        others = (lost * self.pi.to(t)[x])[..., None].expand(*x.shape, self.vocab)
        return others.scatter_add(-1, x[..., None], kept[..., None])

    def rates(self, x: Tensor) -> Tensor:
        """How fast v turns into x for every v != x, for each unit of -log alpha: (..., V)."""
        return self.pi.to(x.device)[x][..., None].expand(*x.shape, self.vocab)

    def speed(self, t: Tensor) -> Tensor:
        """-alpha' / alpha: units of -log alpha for each unit of time, shaped like t."""
        exact = t.double()
        return (-self.schedule.slope(exact) / self.schedule.alpha(exact).clamp(min=LEAST_SHARE)).to(t.dtype)

    def prior(self, like: Tensor, rng: Draws) -> Tensor:
        return inverse(self.pi.to(like.device), rng.uniform(like))

    def corrupt(self, x0: Tensor, t: Tensor, rng: Draws) -> Tensor:
        fades = rng.uniform(x0) >= self.schedule.alpha(t.double())
        return torch.where(fades, self.prior(x0, rng), x0)

    def _shares(self, t: Tensor, like: Tensor, s: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """alpha(t) / alpha(s) and one minus it, in the dtype of `like`. From float64, since the second cancels."""
        kept = self.schedule.alpha(t.double())
        if s is not None:
            kept = kept / self.schedule.alpha(s.double())
        return kept.to(like.dtype), (1 - kept).to(like.dtype)

    # -- the bound: prior_nats + the integral of nelbo + what alpha(0) < 1 leaves to guess

    def nelbo(self, mu: Tensor, x0: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """`score_entropy` at the scores of mu, in closed form: with q the marginal of mu, q* that of x0,

            speed pi(x) / q*(x) * [ KL(q* || q) + q*(x) / q(x) - 1 - log(q*(x) / q(x)) ],

        (GIDD, arXiv 2503.04482, theorem 3.7; with pi uniform it is UDLM's, arXiv 2412.10193, eq. 18). One pass over the
        symbols: q = (1 - alpha) pi (1 + r) with r = alpha mu / ((1 - alpha) pi), and the KL is what x0 adds less
        (1 - alpha) sum pi log(1 + r), which loses no digits where alpha is small.
        """
        a = self.schedule.alpha(t.double()).clamp(min=LEAST_SHARE)
        lost, pi = (1 - a).clamp(min=LEAST_SHARE), self.pi.to(mu)
        odds = a / lost  # (...)
        rests = torch.where(pi > 0, 1 / pi, 0.0)  # where noise never comes from nothing is lost
        r = mu.exp() * rests * odds[..., None].to(mu.dtype)
        spread = torch.log1p(r) @ pi
        pi0, pix, r0, rx = (part.double() for part in (pi[x0], pi[x], _at(r, x0), _at(r, x)))
        bare, same = pi0 == 0, x == x0
        true0 = torch.where(bare, 0.0, odds / pi0.clamp(min=SMALLEST))  # r of a mu that is sure of x0
        own = torch.where(bare, -a * _at(mu, x0).double(), (a + lost * pi0) * true0.log1p() - a * r0.log1p())
        kl = own - lost * spread.double()
        ratio = (1 + torch.where(same, true0, 0.0)) / (1 + rx)
        weight = self.speed(t.double()) / (lost * (1 + torch.where(same, true0, 0.0)))
        return torch.where(pix > 0, weight * (kl + ratio - 1 - ratio.log()), 0.0).to(mu.dtype)

    def score_entropy(self, log_score: Tensor, x0: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """The bound's integrand for any score (SEDD, arXiv 2310.16834, eq. 5 and 12), nats a position:

            sum over y != x of rate(y -> x) * ( score(y) - true(y) log score(y) + true(y) (log true(y) - 1) ).

        true(y) = q*(y) / q*(x) takes two values only, besides x0's, so what does not depend on the score is summed in
        closed form. The score of x itself is not read.
        """
        a, pi = self.schedule.alpha(t.double()), self.pi.to(log_score)
        lost, pi0, pix = 1 - a, pi[x0].double(), pi[x].double()
        same = x == x0
        others = log_score.scatter(-1, x[..., None], -torch.inf)
        total = others.exp().sum(-1).double()
        finite = others.clamp(min=LEAST_SCORE)
        spread = (finite @ pi).double() - LEAST_SCORE * pix
        true0, truex = a + lost * pi0, torch.where(same, a, 0.0) + lost * pix
        crossed = lost * spread + torch.where(same, 0.0, a * _at(finite, x0).double())
        negentropy = lost * torch.xlogy(pi, pi).sum().double() + torch.xlogy(lost, lost)
        negentropy = negentropy - torch.xlogy(lost * pi0, lost * pi0) + torch.xlogy(true0, true0)
        safe = truex.clamp(min=SMALLEST)
        known = negentropy - torch.xlogy(truex, truex) - (1 - truex) * (safe.log() + 1)
        gap = total + (known - crossed) / safe
        return torch.where(pix > 0, self.speed(t.double()) * pix * gap, 0.0).to(log_score.dtype)

    def prior_nats(self, x0: Tensor) -> Tensor:
        """KL(q_1(. | x0) || noise) where alpha(1) > 0 leaves a trace of x0, nats a position. The noise is then what
        becomes of symbols drawn evenly, so that it may be a trace of any; 0 where alpha(1) = 0."""
        pi = self.pi.double().to(x0.device)
        kept = self.schedule.alpha(torch.ones((), dtype=torch.float64))
        faded = (1 - kept) * pi
        each = torch.xlogy(faded, faded) - torch.xlogy(faded, faded + kept / self.vocab)
        own = torch.xlogy(faded + kept, (faded + kept) / (faded + kept / self.vocab)) if kept > 0 else each
        return (each.sum() - each + own)[x0]

    # -- the way back

    def log_score(self, x: Tensor, mu: Tensor, t: Tensor) -> Tensor:
        """log p_t(y, rest) / p_t(x, rest) for every y (SEDD's concrete score); -inf where y cannot be."""
        q = self.marginal(mu.exp(), t)
        log_q = q.clamp(min=SMALLEST).log().masked_fill(q == 0, -torch.inf)
        return log_q - log_q.gather(-1, x[..., None])

    def mu_of(self, log_score: Tensor, t: Tensor) -> Tensor:
        """The mu (..., V) that would have these scores. Scores that no mu has are cut to the nearest that one has."""
        kept, lost = self._shares(t, log_score)
        q = log_score.softmax(-1)
        probs = (q - lost[..., None] * self.pi.to(q)).clamp(min=0) / kept[..., None] + SMALLEST * q
        return torch.where(self.pi.to(q) < 1, probs, 0.0).log().log_softmax(-1)

    def reverse(self, x: Tensor, mu: Tensor, t: Tensor, s: Tensor, rng: Draws) -> Tensor:
        return categorical(self.arrival(x, t, s).to(mu) * self.marginal(mu.exp(), s), rng.uniform(x))

    def beliefs(self, x: Tensor, mu: Tensor, t: Tensor) -> Tensor:
        return (mu + self.likelihood(x, t).log()).log_softmax(-1)

    def certain(self, x: Tensor) -> Tensor:
        return self.pi.to(x.device)[x] == 0

    def hold(self, x: Tensor, mu: Tensor, t: Tensor, s: Tensor, rng: Draws) -> tuple[Tensor, Tensor]:
        """Open positions wait as pure noise."""
        return torch.where(t > 0, self.prior(x, rng), x), (t > 0).to(t.dtype)

    def write(self, x: Tensor, tokens: Tensor, where: Tensor) -> Tensor:
        return torch.where(where, tokens, x)

    def read(self, x: Tensor) -> Tensor:
        return x


def _at(values: Tensor, index: Tensor) -> Tensor:
    """values (..., V) at index (...)."""
    return values.gather(-1, index[..., None]).squeeze(-1)


@dataclass(frozen=True)
class Masking(TokenNoise):
    """Token noise whose rest is the mask alone. An open position is masked, a settled one is itself for certain."""

    mask_id: int = 0

    @classmethod
    def over(cls, vocab: int, mask_id: int, schedule: Schedule | None = None) -> Masking:
        pi = F.one_hot(torch.tensor(mask_id), vocab).float()
        return cls(pi, schedule or Linear(), mask_id)

    def weight(self, t: Tensor) -> Tensor:
        """-alpha' / (1 - alpha): what one masked token's cross-entropy counts in the bound (MDLM, eq. 10)."""
        exact = t.double()  # 1 - alpha cancels near t = 0: in float32 the weight would be off by 1e-4 there
        return (-self.schedule.slope(exact) / (1 - self.schedule.alpha(exact))).to(t.dtype)

    def prior(self, like: Tensor, rng: Draws) -> Tensor:
        return torch.full(like.shape[:2], self.mask_id, dtype=torch.int64, device=like.device)

    def corrupt(self, x0: Tensor, t: Tensor, rng: Draws) -> Tensor:
        return x0.masked_fill(rng.uniform(x0) >= self.schedule.alpha(t.double()), self.mask_id)

    def nelbo(self, mu: Tensor, x0: Tensor, x: Tensor, t: Tensor) -> Tensor:
        nll = -mu.gather(-1, x0[..., None]).squeeze(-1)
        return torch.where(x == self.mask_id, self.weight(t) * nll, 0.0)

    def reverse(self, x: Tensor, mu: Tensor, t: Tensor, s: Tensor, rng: Draws) -> Tensor:
        a_t, a_s = self.schedule.alpha(t.double()), self.schedule.alpha(s.double())
        reveals = (x == self.mask_id) & (rng.uniform(x) < (a_s - a_t) / (1 - a_t))
        u, out = rng.uniform(x), x.clone()
        out[reveals] = categorical(mu[reveals].exp(), u[reveals])  # no work over the vocabulary where nothing changes
        return out

    def beliefs(self, x: Tensor, mu: Tensor, t: Tensor) -> Tensor:
        """The network's own word where masked, certainty where not: MDLM's carry-over rule."""
        if bool((x == self.mask_id).all()):
            return mu
        certain = F.one_hot(x, self.vocab).to(mu.dtype).log()
        return torch.where((x == self.mask_id)[..., None], mu, certain)

"""All token noise in one line, q_t(. | x0) = alpha_t x0 + (1 - alpha_t) pi, and Bayes' rule on it.

pi on [MASK] is masked diffusion (LLaDA, MDLM), pi uniform is uniform diffusion (UDLM), anything between is a hybrid.
`TokenNoise` never asks which it has; `Masking` is the same without (B, L, V) work, and tested equal to its parent.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .draws import Draws, categorical
from .schedule import Linear, Schedule


@dataclass(frozen=True)
class TokenNoise:
    """Tokens fade towards a resting distribution pi (V,)."""

    pi: Tensor
    schedule: Schedule

    @property
    def vocab(self) -> int:
        return len(self.pi)

    def marginal(self, probs: Tensor, t: Tensor) -> Tensor:
        """q_t(. | clean ~ probs): (..., V)."""
        a = self.schedule.alpha(t)[..., None]
        return a * probs + (1 - a) * self.pi.to(t.device)

    def likelihood(self, x: Tensor, t: Tensor) -> Tensor:
        """q_t(x | clean = v) for every v: (..., V)."""
        a = self.schedule.alpha(t)[..., None]
        return a * F.one_hot(x, self.vocab) + (1 - a) * self.pi.to(t.device)[x][..., None]

    def prior(self, like: Tensor, rng: Draws) -> Tensor:
        return categorical(self.pi.to(like.device).expand(*like.shape[:2], -1), rng.uniform(like))

    def corrupt(self, x0: Tensor, t: Tensor, rng: Draws) -> Tensor:
        fades = rng.uniform(x0) >= self.schedule.alpha(t.double())
        return torch.where(fades, self.prior(x0, rng), x0)

    def log_score(self, x: Tensor, mu: Tensor, t: Tensor) -> Tensor:
        """log p_t(y, rest) / p_t(x, rest) for every y (SEDD's concrete score, arXiv 2310.16834)."""
        q = self.marginal(mu.exp(), t)
        return q.log() - q.gather(-1, x[..., None]).log()

    def score_entropy(self, log_score: Tensor, x0: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """The bound's integrand for any score (SEDD, eq. 5 and 12), nats a position."""
        q0 = self.marginal(F.one_hot(x0, self.vocab).to(log_score.dtype), t)
        true = q0 / q0.gather(-1, x[..., None])
        gap = log_score.exp() - true + torch.xlogy(true, true) - true * log_score.clamp(min=-80)
        gap = gap.scatter(-1, x[..., None], 0).sum(-1)
        rate = -self.schedule.slope(t) / self.schedule.alpha(t)
        return rate * self.pi.to(t.device)[x] * gap

    def nelbo(self, mu: Tensor, x0: Tensor, x: Tensor, t: Tensor) -> Tensor:
        return self.score_entropy(self.log_score(x, mu, t), x0, x, t)

    def reverse(self, x: Tensor, mu: Tensor, t: Tensor, s: Tensor, rng: Draws) -> Tensor:
        step = (self.schedule.alpha(t) / self.schedule.alpha(s))[..., None]
        arrive = step * F.one_hot(x, self.vocab) + (1 - step) * self.pi.to(t.device)[x][..., None]
        return categorical(arrive * self.marginal(mu.exp(), s), rng.uniform(x))

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

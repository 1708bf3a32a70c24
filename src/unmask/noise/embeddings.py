"""Gaussian noise on embeddings: q_t(z | token v) = N(a_t e_v, n_t^2 I), and Bayes' rule on it (Diffusion-LM, arXiv
2205.14217). States are vectors (..., D).

The first latent is already a little noisy, z_0 ~ N(e_v, jitter^2 I), and fades from there, z_t = sqrt(alpha) z_0 +
sqrt(1 - alpha) noise, so a_t^2 = alpha and n_t^2 = 1 - alpha (1 - jitter^2). A prediction is `mu`, as for tokens: what
the rest of the text says of a position. Together with its own vector that gives the beliefs about its token, and their
mean embedding is the estimate of the clean vector (as in CDCD, arXiv 2211.15089, and Plaid, arXiv 2305.18619): a
network that says nothing at all then costs log V a token, never more.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UserError
from ..rowwise import times
from .draws import Draws
from .schedule import Schedule, Sqrt


@dataclass(frozen=True)
class EmbeddingNoise:
    """table (V, D): the embedding of every symbol. jitter: standard deviation of z_0 around it."""

    table: Tensor
    schedule: Schedule = Sqrt()
    jitter: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.jitter < 1 or float(self.noise_power(torch.zeros(()))) < 1e-6:
            raise UserError(f"jitter={self.jitter} is not in (0, 1): the first latent needs a little noise; use 0.1")

    @classmethod
    def over(cls, weight: Tensor, schedule: Schedule, radius: float, jitter: float = 0.1) -> EmbeddingNoise:
        """Learnt embeddings (V, D), brought to one length: longer ones would cheat the noise."""
        return cls(radius * F.normalize(weight.float(), dim=-1), schedule, jitter)

    @property
    def width(self) -> int:
        return self.table.shape[1]

    # -- the noise

    def noise_power(self, t: Tensor) -> Tensor:
        """n_t^2, shaped like t."""
        return 1 - self.schedule.alpha(t) * (1 - self.jitter**2)

    def snr(self, t: Tensor) -> Tensor:
        """a_t^2 / n_t^2, shaped like t."""
        return self.schedule.alpha(t) / self.noise_power(t)

    def signal(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """a_t and n_t, (..., 1), in the dtype of the embeddings."""
        powers = self.schedule.alpha(t), self.noise_power(t)
        a, n = (power.sqrt()[..., None].to(self.table.dtype) for power in powers)
        return a, n

    def prior(self, like: Tensor, rng: Draws) -> Tensor:
        """Standard normal vectors for positions shaped like `like` (...)."""
        return torch.special.ndtri(rng.uniform(like, self.width)).to(self.table.dtype)

    def corrupt(self, x0: Tensor, t: Tensor, rng: Draws) -> Tensor:
        a, n = self.signal(t)
        return a * self.table[x0] + n * self.prior(x0, rng)

    # -- what a noisy vector and a prediction say

    def log_likelihood(self, x: Tensor, t: Tensor) -> Tensor:
        """log q_t(x | v) for every v, (..., V), up to what all v share."""
        scale, offset = self.rounding(t)
        return times(x * scale, self.table.T) + offset * self.table.square().sum(-1)

    def rounding(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """log q_t(x | v) = scale <x, e_v> + offset |e_v|^2, up to what all v share: both (..., 1)."""
        a, n = self.signal(t)
        return a / n.square(), -(a / n).square() / 2

    def beliefs(self, x: Tensor, mu: Tensor, t: Tensor) -> Tensor:
        return (mu + self.log_likelihood(x, t)).log_softmax(-1)

    def estimate(self, x: Tensor, mu: Tensor, t: Tensor) -> Tensor:
        """The mean of the clean vector under the beliefs, (..., D)."""
        return times(self.beliefs(x, mu, t).exp().to(self.table.dtype), self.table)

    # -- the way back

    def move(self, x: Tensor, clean: Tensor, t: Tensor, s: Tensor, noise: Tensor, eta: float = 1.0) -> Tensor:
        """z_s given z_t = x and an estimate of the clean vector. eta 1 draws from q(z_s | z_t, clean), which is DDPM; 0
        keeps the noise there is, which is DDIM (arXiv 2010.02502, eq. 12 and 16)."""
        (a_t, n_t), (a_s, n_s) = self.signal(t), self.signal(s)
        kept = a_t / a_s.clamp(min=1e-6) * n_s / n_t
        fresh = eta * n_s * (1 - kept.square()).clamp(min=0).sqrt()
        old = (n_s.square() - fresh.square()).clamp(min=0).sqrt()
        return a_s * clean + old / n_t * (x - a_t * clean) + fresh * noise

    def reverse(self, x: Tensor, mu: Tensor, t: Tensor, s: Tensor, rng: Draws) -> Tensor:
        moved = self.move(x, self.estimate(x, mu, t), t, s, self.prior(x[..., 0], rng))
        return torch.where((t > 0)[..., None], moved, x)

    def hold(self, x: Tensor, mu: Tensor, t: Tensor, s: Tensor, rng: Draws) -> tuple[Tensor, Tensor]:
        """Open positions wait as pure noise, as under token noise: moved on by what is written so far, they would count
        later as evidence of their own."""
        wait = t > 0
        return torch.where(wait[..., None], self.prior(t, rng), x), wait.to(t.dtype)

    def certain(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x[..., 0], dtype=torch.bool)

    def write(self, x: Tensor, tokens: Tensor, where: Tensor) -> Tensor:
        return torch.where(where[..., None], self.table[tokens], x)

    def read(self, x: Tensor) -> Tensor:
        """The nearest symbol; of what was written, the symbol itself."""
        return (x @ self.table.T - self.table.square().sum(-1) / 2).argmax(-1)

    # -- the bound: prior + rounding + the integral of nelbo (VDM, arXiv 2107.00630, eq. 11 and 17)

    def nelbo(self, mu: Tensor, x0: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """The integrand alone; `prior_nats` and the rounding of z_0 come on top."""
        slope = -self.schedule.slope(t) / self.noise_power(t).square()  # -d snr / dt
        return slope / 2 * self.gap(self.estimate(x, mu, t), x0)

    def gap(self, clean: Tensor, x0: Tensor) -> Tensor:
        """Squared distance of an estimate from the true embedding, (...)."""
        return (self.table[x0] - clean).square().sum(-1)

    def prior_nats(self, x0: Tensor) -> Tensor:
        """KL(q(z_1 | x0) || N(0, I)), (...)."""
        end = torch.ones((), device=self.table.device, dtype=self.table.dtype)
        power, alpha = self.noise_power(end), self.schedule.alpha(end)
        return (alpha * self.table[x0].square().sum(-1) + self.width * (power - 1 - power.log())) / 2

    def span(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """`noise_power` at t = 0 and at t = 1."""
        return self.noise_power(torch.zeros_like(like)), self.noise_power(torch.ones_like(like))

    def time(self, share: Tensor) -> Tensor:
        """The time at which `share` of the way of `noise_power` from t = 0 to 1 is behind. Even shares look most often
        where tokens come out of the noise, and weigh a gap by the square of 1 + snr."""
        first, last = self.span(share)
        return self.schedule.time((1 - first - (last - first) * share) / (1 - self.jitter**2)).clamp(0, 1)

    def weight(self, t: Tensor) -> Tensor:
        """What a squared gap counts in the bound where t = `time` of an even share: -d snr / 2 d share."""
        first, last = self.span(t)
        return (last - first) / (2 * (1 - self.jitter**2) * self.noise_power(t).square())

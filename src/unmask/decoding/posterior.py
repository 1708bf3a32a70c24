"""Guidance of the reverse process itself, step by step (Schiff et al., arXiv 2412.10193): x_s is drawn from

    p(x_s | x_t, given) ^ (1 + scale)  /  p(x_s | x_t) ^ scale,

not, as `guidance.Tokens` would, from the step that a guided word on the clean token implies. Under Bayes' rule
p(x_s | x_t) is q(x_t | x_s) times the marginal of x_s, and the first of these is the same in both views: what is guided
are the marginals, alpha_s p(token) + (1 - alpha_s) pi.

Under masking, the two forms write the same tokens, at other times. With S = sum over tokens of p_given ^ (1 + scale) /
p ^ scale, which is 1 where the given text says nothing new and more where it does, a mask is lifted with probability
(alpha_s - alpha_t) S / ((alpha_s - alpha_t) S + 1 - alpha_s), and the token is then drawn from the guided law: what the
given text decides is written first. S = 1 is `Tokens`. So rules that say themselves what is written when have no other
form; nor does the last step, s = 0, of any rule. In many small steps it is guidance of rates, S times that of a mask.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor

from ..noise.draws import FromCounters, categorical
from ..noise.process import Process
from ..noise.tokens import TokenNoise
from .guidance import Guidance, Tokens, check_scale, guided
from .propose import Proposal


@dataclass(frozen=True)
class Posterior(Guidance):
    """A law (N, 2, V) is that of the clean tokens with the given text in sight, and without."""

    scale: float = 1.0
    in_steps: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_scale(self.scale)

    def mixed(self, sees: Tensor, blind: Tensor) -> Tensor:
        return torch.stack([sees, blind], 1)

    def law(self, logp: Tensor, proposal: Proposal) -> Tensor:
        """Both views sharpened, and cut to the tokens that the proposal leaves of the guided ones: what is guided
        after that is what the proposal makes of the guided law."""
        both = logp.double()
        left = proposal.law(self.tokens(both)).isneginf().logical_not()
        return (both / (proposal.temperature or 1.0)).masked_fill(~left[:, None], -torch.inf).log_softmax(-1)

    def tokens(self, law: Tensor) -> Tensor:
        return guided(law[:, 0], law[:, 1], self.scale).log_softmax(-1)

    def step(self, noise: TokenNoise, x: Tensor, law: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """The probabilities (N, V) of x_s."""
        sees, blind = noise.marginal(law.exp(), s[:, None].expand(-1, 2)).log().unbind(1)
        return (noise.arrival(x, t, s).to(law).log() + guided(sees, blind, self.scale)).softmax(-1)

    def reverse(self, process: Process, x: Tensor, law: Tensor, t: Tensor, s: Tensor, rng: FromCounters) -> Tensor:
        noise = cast(TokenNoise, process)  # vectors cannot be guided: checked before anything is written
        return categorical(self.step(noise, x, law, t, s), rng.uniform(x))


GUIDANCES: dict[str, Callable[..., Guidance]] = {"tokens": Tokens, "posterior": Posterior}

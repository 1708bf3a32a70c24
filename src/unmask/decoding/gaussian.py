"""Steps through noisy vectors: DDPM and DDIM, the estimate rounded to an embedding if wished. Knows no networks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import UserError
from ..noise.embeddings import EmbeddingNoise
from ..noise.process import Process
from ..rowwise import times
from .guide import Guide
from .propose import Proposal
from .steppers import Move, Stepper, Tick, put


@dataclass(frozen=True)
class Gaussian(Stepper):
    """From t = 1 to 0 in even steps; the last writes the token drawn from the beliefs.

    eta: 1 is DDPM, each step a draw from the posterior; 0 is DDIM, which adds no noise (arXiv 2010.02502). clamp: the
    estimate is the embedding of the token drawn from the beliefs, not their mean: Diffusion-LM's clamping trick, with
    temperature 0 the likeliest token. guide: what pulls at the vectors between steps.
    """

    proposal: Proposal
    eta: float = 1.0
    clamp: bool = False
    guide: Guide | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise UserError(f"rule.eta={self.eta} is outside [0, 1]; 1 is DDPM, 0 is DDIM")

    def ask(self, tick: Tick) -> Tensor:
        return tick.open

    def move(self, process: Process, tick: Tick, asked: Tensor, values: Tensor) -> Move:
        if not isinstance(process, EmbeddingNoise):
            raise UserError("rule: ddpm and ddim step through vectors, which only a continuous model has; leave it out")
        x, t, s, rng = tick.x[asked], tick.t[asked], tick.next[asked], tick.draws().at(asked)
        logp = process.beliefs(x, values.log_softmax(-1), t)
        tokens = self.proposal.draw(logp, rng)
        clean = process.table[tokens] if self.clamp else times(logp.exp(), process.table)
        noise = process.prior(t, rng) if self.eta else torch.zeros_like(x)
        ends = s == 0
        moved = process.write(process.move(x, clean, t, s, noise, self.eta), tokens, ends)
        sure = tick.spread(logp.gather(-1, tokens[:, None]).squeeze(-1).exp(), asked)
        x, t = put(tick.x, asked, moved), tick.t.masked_scatter(asked, s)
        if self.guide is not None:
            x = self.guide.pull(x, t, tick.real, process.noise_power(t))
        return Move(x, t, tick.spread(ends, asked), sure, torch.ones_like(tick.left))


@dataclass(frozen=True)
class DDIM(Gaussian):
    eta: float = 0.0

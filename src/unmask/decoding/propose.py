"""Which token to write at a position: temperature, nucleus, top-k. Knows positions only as rows of logits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..models.readout import rows_at_a_time
from ..noise.draws import FromCounters


@dataclass(frozen=True)
class Proposal:
    """Sharpen by the temperature, cut to the nucleus top_p, cut to the top_k best, draw (Dream's order of cuts).

    temperature 0 is the best token, whatever the cuts. How sure the model is of a token is never read from here but
    from its raw probabilities, as in LLaDA: sharpening must not make a guess look certain.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None

    def draw(self, logp: Tensor, rng: FromCounters) -> Tensor:
        """logp (N, V) -> tokens (N,). Gumbel-max in float64: in single precision the cut tail of the noise lowers the
        temperature in secret (arXiv 2409.02908)."""
        if self.temperature == 0:
            return logp.argmax(-1)
        parts = torch.arange(len(logp), device=logp.device).split(rows_at_a_time(logp.shape[1]))
        # every part is keyed by its own positions, so cutting the work in parts changes no number
        return torch.cat([self._gumbel(logp[rows], rng.at(rows)) for rows in parts])

    def law(self, logp: Tensor) -> Tensor:
        """The log-probabilities (N, V) float64 that `draw` draws from."""
        if self.temperature == 0:
            best = logp.argmax(-1, keepdim=True)
            return torch.full_like(logp, -torch.inf, dtype=torch.float64).scatter(-1, best, 0.0)
        return self.cut(logp.double())

    def cut(self, logp: Tensor) -> Tensor:
        """Log-probabilities (N, V) after temperature and cuts; temperature 0 cuts what is there as it is."""
        return self._cut(logp / (self.temperature or 1.0)).log_softmax(-1)

    def _gumbel(self, logp: Tensor, rng: FromCounters) -> Tensor:
        u = rng.uniform(logp[:, 0], symbols=logp.shape[1])
        return (self.law(logp) - (-u.log()).log()).argmax(-1)

    def _cut(self, logits: Tensor) -> Tensor:
        if self.top_p < 1:
            logits = nucleus(logits, self.top_p)
        if self.top_k is not None:
            logits = best(logits, self.top_k)
        return logits


def nucleus(logits: Tensor, mass: float) -> Tensor:
    """The fewest best symbols that hold at least `mass`, never none (arXiv 1904.09751); the others are -inf."""
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    p = ordered.softmax(-1)
    beyond = p.cumsum(-1) - p >= mass  # the mass before a symbol already suffices
    return logits.masked_fill(torch.zeros_like(beyond).scatter(-1, order, beyond), -torch.inf)


def best(logits: Tensor, k: int) -> Tensor:
    """The k best symbols; equals of the k-th stay too."""
    least = logits.topk(min(k, logits.shape[-1])).values[..., -1:]
    return logits.masked_fill(logits < least, -torch.inf)

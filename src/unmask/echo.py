"""What a network is told of its own last word on a text, as vectors beside the embeddings of its next input. Knows no
noise law."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from .models.feedback import Soft
from .models.transformer import Transformer
from .rowwise import times

# mu (N, V) said at N positions, the noisy x (N,) or (N, E) and times t (N,) there -> vectors (N, E)
Echo = Callable[[Transformer, Tensor, Tensor, Tensor], Tensor]

LEAST = -100.0  # a log-probability below is taken for it where it is multiplied by the probability


def believed(network: Transformer, mu: Tensor, x: Tensor, t: Tensor) -> Tensor:
    """The mean embedding under what was said: self-conditioning for tokens."""
    return times(mu.exp().to(network.embed.weight.dtype), network.embed.weight)


@dataclass(frozen=True)
class SoftMask:
    """From the mask's embedding a share of the way to the mean of the `top` likeliest tokens' (arXiv 2510.17206)."""

    mask_id: int
    top: int = 8

    def __call__(self, network: Transformer, mu: Tensor, x: Tensor, t: Tensor) -> Tensor:
        assert isinstance(network.feedback, Soft), "the network has no soft masks"
        table = network.embed.weight
        best, tokens = mu.topk(min(self.top, mu.shape[-1]))
        mean = (best.softmax(-1)[..., None] * table[tokens]).sum(-2)
        entropy = -(mu.exp() * mu.clamp(min=LEAST)).sum(-1)  # entr has no gradient where a probability is zero
        share = network.feedback.share(entropy)[..., None]
        return share * (mean - table[self.mask_id]) * network.config.embed_scale

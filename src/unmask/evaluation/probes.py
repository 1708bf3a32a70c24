"""Two questions to a masked network, of those that the field's analysis asks ("On the Role of Discreteness in Diffusion
LLMs", arXiv 2512.22630): does what can be known of a text fade smoothly as it is masked, and do predictions far from
what is given collapse to frequent words? Knows no sampler: the network is asked once and nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.packing import Batch
from ..denoiser import Denoiser
from ..layout import Whole
from ..noise.draws import seeded
from ..objectives.masked import counted_masks, shown
from ..objectives.objective import places_of


@dataclass(frozen=True)
class Level:
    """Of the tokens masked where a share `level` is. nats: of the true token; recovered: how many fewer than for one
    who knows only how frequent tokens are; spread: the standard deviation of the nats over tokens, which a nominal
    noise level says nothing of."""

    level: float
    nats: float
    recovered: float
    spread: float


@dataclass(frozen=True)
class Distance:
    """Of the token so far behind the prompt, everything behind the prompt being masked. right: share of texts whose
    likeliest token is the true one; nats: of the true token; entropy: of the prediction, nats; frequent: share whose
    likeliest token is among the most frequent ones; truly: share whose true token is."""

    distance: int
    right: float
    nats: float
    entropy: float
    frequent: float
    truly: float


def frequencies(texts: Iterable[Sequence[int]], vocab: int) -> Tensor:
    """(V,) float64: how often each token comes, one added to every count."""
    counts = torch.ones(vocab, dtype=torch.float64)
    for text in texts:
        counts += torch.as_tensor(text).bincount(minlength=vocab)
    return counts / counts.sum()


@torch.inference_mode()
def smoothness(
    denoiser: Denoiser, batches: Sequence[Batch], frequent: Tensor, levels: Sequence[float], seed: int = 0
) -> list[Level]:
    """frequent (V,): `frequencies` of text like it."""
    return [_at(denoiser, batches, frequent, level, seed + i) for i, level in enumerate(levels)]


def _at(denoiser: Denoiser, batches: Sequence[Batch], frequent: Tensor, level: float, seed: int) -> Level:
    found, known = [], []
    for number, batch in enumerate(batches):
        batch = batch.to(denoiser.banned.device)
        numbers = Whole().numbers(places_of(batch))
        levels = torch.full((len(numbers), 1), level, dtype=torch.float64)
        masked, _ = counted_masks(batch.scored, levels, seeded(seed, number), numbers)
        targets = batch.tokens[masked]
        _, nats = shown(denoiser, batch, masked, Whole()).cross_entropy(targets, torch.ones_like(targets.float()))
        found.append(nats.double().cpu())
        known.append(-frequent[targets.cpu()].log())
    nats, without = torch.cat(found), torch.cat(known)
    return Level(level, float(nats.mean()), float((without - nats).mean()), float(nats.std()))


@torch.inference_mode()
def by_distance(
    denoiser: Denoiser, texts: Sequence[Sequence[int]], prompt: int, frequent: Tensor, top: int = 10, batch: int = 32
) -> list[Distance]:
    """texts: all equally long, given up to `prompt` tokens; top: how many tokens count as the most frequent."""
    common = torch.zeros(len(frequent), dtype=torch.bool).index_fill(0, frequent.topk(top).indices, True)
    tokens = torch.tensor(texts)
    parts = [_predicted(denoiser, part, prompt) for part in tokens.split(batch)]
    best, nats, entropy = torch.cat(parts).unbind(-1)  # (N, L) each
    truth = tokens[:, prompt:]
    figures = (best == truth, nats, entropy, common[best.long()], common[truth])
    means = torch.stack([figure.double().mean(0) for figure in figures], 1)
    return [Distance(i, *row) for i, row in enumerate(means.tolist(), 1)]


def _predicted(denoiser: Denoiser, tokens: Tensor, prompt: int) -> Tensor:
    """(B, L - prompt, 3): the likeliest token behind the prompt, the nats of the true one, the entropy."""
    tokens = tokens.to(denoiser.banned.device)
    positions = torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape)
    masked = positions >= prompt
    targets = tokens[masked]

    def read(mu: Tensor, rows: slice) -> Tensor:
        nats = -mu.gather(-1, targets[rows, None]).squeeze(-1)
        return torch.stack([mu.argmax(-1).to(mu), nats, torch.special.entr(mu.exp()).sum(-1)], -1)

    batch = Batch(tokens, torch.zeros_like(tokens), positions, masked)
    said = shown(denoiser, batch, masked, Whole()).map(read)
    return said.view(len(tokens), -1, 3).double().cpu()

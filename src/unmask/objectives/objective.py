"""What is minimised, in nats: bounds on -log p(text), or exactly it. One small class an objective.

An objective takes the denoiser, a batch and a source of randomness, and returns a sum and the number of tokens it
speaks of; the training loop divides, and never learns which objective it runs. Time is the mask: prompts and padding
are simply not `scored`, keep time 0, are shown as they are, and cost nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from ..data.packing import Batch
from ..denoiser import Denoiser
from ..models.attention import Places
from ..noise.draws import FromGenerator

Per = Literal["token", "answer"]


@dataclass(frozen=True)
class Loss:
    """total: differentiable sum, nats; count: scored tokens (or answers) it is to be divided by."""

    total: Tensor
    count: int


class Objective(Protocol):
    def __call__(self, denoiser: Denoiser, batch: Batch, rng: FromGenerator) -> Loss: ...

    def count(self, batch: Batch) -> int:
        """What the loss of this batch is divided by, known before it is computed: accumulation sums it first."""
        ...


@runtime_checkable
class Adaptive(Protocol):
    """An objective that learns from held-out text, every so many steps, how to draw its noise. Its state is JSON."""

    every: int

    def adapt(self, denoiser: Denoiser, batches: Sequence[Batch], rng: FromGenerator) -> dict[str, float]:
        """Figures to log."""
        ...

    def state_dict(self) -> dict[str, float]: ...
    def load_state_dict(self, state: dict[str, float]) -> None: ...


def places_of(batch: Batch) -> Places:
    """Documents are left out where every row is a single one: attention then needs no mask."""
    return Places(batch.positions, batch.documents if bool((batch.documents != 0).any()) else None)


def cut(batch: Batch, rng: FromGenerator) -> Batch:
    """The first tokens of every row, as many as a uniform draw from 1..L says."""
    length = int(torch.randint(1, batch.tokens.shape[1] + 1, (), generator=rng.generator))
    return Batch(*(part[:, :length] for part in (batch.tokens, batch.documents, batch.positions, batch.scored)))


def counted(batch: Batch, per: Per) -> int:
    """What a sum over the batch is divided by: scored tokens, or documents that have any."""
    return batch.n_scored if per == "token" else int(_answer_sizes(batch).ne(0).sum())


def shared_out(weights: Tensor, batch: Batch, per: Per) -> Tensor:
    """weights (B, L) of scored tokens; with per="answer", every document has the same say however long its scored part
    (LLaDA's fine-tuning loss, arXiv 2502.09992, eq. 5)."""
    if per == "token":
        return weights
    return weights / _answer_sizes(batch).gather(1, batch.documents.clamp(min=0)).clamp(min=1)


def _answer_sizes(batch: Batch) -> Tensor:
    """Scored tokens of each document in each row: (B, most documents)."""
    documents = batch.documents.clamp(min=0)
    sizes = torch.zeros(len(documents), int(documents.max()) + 1, device=documents.device)
    return sizes.scatter_add_(1, documents, batch.scored.float())

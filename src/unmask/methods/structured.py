"""Structured noise (D3PM, arXiv 2107.03006): a token fades to tokens near it before it fades to any."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import UserError
from ..models.checkpoint import load_model, resolve
from ..noise.kernels import KernelNoise
from ..noise.neighbours import Edges, in_order, in_space, jumps
from ..noise.schedule import LogLinear, Schedule
from ..noise.tokens import TokenNoise
from .noisy import Noisy, Per


@dataclass(frozen=True)
class Structured(Noisy):
    """anywhere: share of jumps that go to any token instead of a near one; a token that has made none of these, which
    is as likely as the schedule says, is still near where it was.

    vectors: a saved model whose embeddings say what is near; default the order of ids. groups: large vocabularies move
    in so many groups of tokens, near: how many others are near to each.

    classes, edges: what came of it; worked out when training begins and kept with the model. Give your own to use any
    graph.
    """

    anywhere: float = 0.25
    near: int = 8
    groups: int = 256
    vectors: str | None = None
    classes: tuple[int, ...] = ()
    edges: Edges = ()
    schedule: Schedule = LogLinear()
    per: Per = "answer"

    def __post_init__(self) -> None:
        if not 0 < self.anywhere <= 1:
            raise UserError(f"method.anywhere={self.anywhere} is outside (0, 1]; use 0.25, or 1 for uniform noise")
        for name, least in (("near", 2), ("groups", 2)):
            if getattr(self, name) < least:
                raise UserError(f"method.{name}={getattr(self, name)} is too few; use {least} or more")

    def settled(self) -> Mapping[str, Any]:
        if self.vectors is None or self.classes:
            return {}
        weight = load_model(resolve(self.vectors))[0].embed.weight
        classes, edges = in_space(range(len(weight)), weight, self.groups, self.near)
        return {"classes": classes, "edges": [list(row) for row in edges], "vectors": None}

    def noise(self, vocab: int, mask_id: int, barred: Sequence[int]) -> TokenNoise:
        return _kernel(self, vocab, tuple(barred))


@functools.lru_cache(maxsize=4)  # the scorer asks for it with every batch
def _kernel(method: Structured, vocab: int, barred: tuple[int, ...]) -> KernelNoise:
    gone = [symbol for symbol in barred if symbol >= 0]
    real = torch.ones(vocab, dtype=torch.bool).index_fill(0, torch.tensor(gone, dtype=torch.int64), False)
    classes, edges = list(method.classes), method.edges
    if not classes:
        classes, edges = in_order(real.nonzero()[:, 0].tolist(), vocab, method.groups, method.near)
    if len(classes) != vocab:
        raise UserError(
            f"method.classes: {len(classes)} symbols are in a group, the vocabulary has {vocab}; take vectors of a "
            "model with the same tokenizer"
        )
    index = torch.tensor(classes)
    moves = jumps(index, real, edges, method.anywhere)
    return KernelNoise.over(moves, method.schedule, index, gone, rate=1 / method.anywhere)

"""What the reference implementations computed, entry by entry, and a record of which entries a test has looked at."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from unmask.data.packing import Batch
from unmask.layout import Blocks, Whole
from unmask.models.attention import Places
from unmask.published import LoadedDenoiser, load_denoiser

FIXTURES = Path(os.environ.get("UNMASK_FIXTURES", "/nonexistent"))
ALL = FIXTURES / "objective"
SMALL = Path(__file__).parents[1] / "data_files" / "objective" / "whole"  # those that need no network


class Reference(Mapping[str, Tensor]):
    """The tensors of one file. `unread`: what nobody has asked for yet."""

    def __init__(self, folder: Path, name: str) -> None:
        self.said = json.loads((folder / f"{name}.json").read_text())
        self._entries = load_file(folder / f"{name}.safetensors")
        self.unread = set(self._entries)

    def __getitem__(self, name: str) -> Tensor:
        self.unread.discard(name)
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


@cache
def network(name: str, mask_id: int | None = None, lets_the_mask: bool = False) -> LoadedDenoiser:
    """lets_the_mask: LLaDA's and dllm's losses let the mask have a probability of being text; here it never has one."""
    denoiser = load_denoiser(FIXTURES / "models" / name, mask_id=mask_id)
    if lets_the_mask:
        denoiser.banned = denoiser.banned[:0]
    return denoiser


class Recorded:
    """Uniforms that were drawn elsewhere. There a token is masked where u < p, here where u >= alpha = 1 - p."""

    def __init__(self, u: Tensor) -> None:
        self.u, self.generator = u.double(), torch.Generator()

    def uniform(self, like: Tensor, symbols: int | None = None) -> Tensor:
        return 1 - self.u


@dataclass(frozen=True)
class At(Blocks):
    """Blocks, or by default the whole, at given times (B, L), one a block."""

    size: int = Whole().size
    t: Tensor = field(default_factory=lambda: torch.empty(0))

    def numbers(self, places: Places) -> Tensor:
        return (Whole() if self.size == Whole().size else Blocks(self.size)).numbers(places)

    def levels(self, places: Places, rng: torch.Generator) -> Tensor:
        return self.t[:, :: self.size].double()


def batch_of(tokens: Tensor, scored: Tensor | None = None) -> Batch:
    """Rows that are one document each."""
    scored = torch.ones_like(tokens, dtype=torch.bool) if scored is None else scored
    return Batch(tokens, torch.zeros_like(tokens), torch.arange(tokens.shape[1]).expand(tokens.shape), scored)


def close(found: Tensor, expected: Tensor, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    """1e-5 of the value; atol: where a value passes through 0."""
    torch.testing.assert_close(found.to(expected.dtype), expected, rtol=rtol, atol=atol)


def same(found: Tensor, expected: Tensor) -> None:
    assert torch.equal(found, expected)

"""Where random numbers come from. A process or a rule asks for uniforms, one a position; it never sees a global seed.

Training draws from a `torch.Generator`. Decoding draws from counters: the uniform of (row seed, step, call, position,
symbol) is a hash of exactly these, so that a row gets the same numbers whatever the batch around it.
"""

from __future__ import annotations

import copy
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor


class Draws(Protocol):
    def uniform(self, like: Tensor, symbols: int | None = None) -> Tensor:
        """float64 in (0, 1): (B, L) for `like` (B, L, ...), or (B, L, symbols)."""
        ...


class FromGenerator:
    """Uniforms in the order they are asked for, drawn on the CPU so that every device sees the same ones."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def uniform(self, like: Tensor, symbols: int | None = None) -> Tensor:
        shape = (*like.shape[:2], symbols) if symbols is not None else like.shape[:2]
        u = torch.rand(shape, dtype=torch.float64, generator=self.generator)
        return u.clamp_(min=2.0**-54).to(like.device)


def seeded(*key: int) -> FromGenerator:
    """A generator keyed by integers (seed, step, rank, ...): nothing to save, nothing to restore."""
    mixed = torch.tensor(0x5EED, dtype=torch.int64)
    for part in key:
        mixed = _mix(mixed ^ torch.tensor(part, dtype=torch.int64))
    return FromGenerator(torch.Generator().manual_seed(int(mixed) & (2**63 - 1)))


class FromCounters:
    """Uniforms by hashing: row seed x step x call x position x symbol.

    seeds (B,) int64, positions (B, L) int64: where each column stands in its own row. `begin(step)` opens a step;
    the calls inside it are numbered, so a rule may ask several times. Nothing is hashed before a number is asked for:
    greedy decoding asks for none.
    """

    def __init__(self, seeds: Tensor, positions: Tensor) -> None:
        self.seeds, self.positions = seeds, positions
        self.picks: tuple[Tensor, ...] = ()
        self.begin(0)

    def begin(self, step: int | Tensor) -> None:
        self.step, self.calls = step, 0
        self._now: Tensor | None = None

    @cached_property
    def keys(self) -> Tensor:
        return _mix(_mix(self.seeds)[:, None] ^ self.positions)

    @property
    def now(self) -> Tensor:
        """The keys of this step, where they are picked."""
        if self._now is None:
            steps = torch.as_tensor(self.step, dtype=torch.int64, device=self.keys.device).reshape(-1, 1)
            self._now = _mix(self.keys + _mix(steps ^ 0x57E9))
            for where in self.picks:
                self._now = self._now[where]
        return self._now

    def uniform(self, like: Tensor, symbols: int | None = None) -> Tensor:
        assert like.shape[:2] == self.now.shape, f"drawing for {tuple(like.shape)}, keyed {tuple(self.now.shape)}"
        self.calls += 1
        key = _mix(self.now + self.calls)
        if symbols is not None:
            key = _mix(key[..., None] + _mix(torch.arange(symbols, device=key.device)))
        return _to_unit(key)

    def at(self, where: Tensor) -> FromCounters:
        """The same numbers at `where` only (a mask or an index): `like` is then (N,), draws (N,) or (N, symbols)."""
        part = copy.copy(self)
        part.picks = (*self.picks, where)
        part._now = None if self._now is None else self._now[where]
        return part


_GOLDEN, _MIX1, _MIX2 = -0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15


def _mix(x: Tensor) -> Tensor:
    """splitmix64's finaliser (Steele, Lea, Flood 2014) on int64; torch shifts are arithmetic, so high bits are cut."""
    x = x + _GOLDEN
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * _MIX1
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * _MIX2
    return x ^ ((x >> 31) & 0x1FFFFFFFF)


def _to_unit(bits: Tensor) -> Tensor:
    """The upper 53 bits as a float64 strictly inside (0, 1)."""
    return ((bits >> 11) & ((1 << 53) - 1)).double().add_(0.5).mul_(2.0**-53)


def categorical(probs: Tensor, u: Tensor) -> Tensor:
    """One draw a row by the inverse of the distribution function: probs (..., V) unnormalised, u (...) -> (...) int64.

    In float64, since single precision cuts the tail and so lowers the temperature in secret (arXiv 2409.02908).
    A symbol of probability zero is never drawn.
    """
    cdf = probs.double().cumsum(-1)
    return (cdf < (u * cdf[..., -1])[..., None]).sum(-1).clamp(max=probs.shape[-1] - 1)


def inverse(probs: Tensor, u: Tensor) -> Tensor:
    """`categorical` where all share one law: probs (V,), u (...) -> (...) int64, with no work over (..., V)."""
    cdf = probs.double().cumsum(-1)
    return torch.searchsorted(cdf, u * cdf[-1]).clamp(max=len(probs) - 1)

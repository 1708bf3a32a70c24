"""Texts whose length nobody knows: a canvas that begins short and grows as it is written. Knows no network and no loop.

A policy says what a row begins as, what it listens to beside the rule, for which rows a pass only measured the length,
and where open positions are put in after a pass. `max_tokens` is the most that a text may come to be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from ..denoiser import Denoiser
from ..errors import UserError
from ..models.attention import block_size
from .canvas import Canvas, Row
from .constrain.constraint import Constraint
from .insertion import Insertion
from .length import ends
from .select import spread
from .steppers import Commit, InOrder, Stepper

MOST = 1 << 20  # positions that come at a time


@dataclass(frozen=True)
class Heard:
    """What a pass said. canvas: as it was shown; text (B, W): what it reads as; where (B, W) bool, values (N, V):
    unnormalised log-probabilities there, in row order; eos_id: the end of text, if there is one."""

    canvas: Canvas
    text: Tensor
    where: Tensor
    values: Tensor
    eos_id: int | None

    @cached_property
    def best(self) -> tuple[Tensor, Tensor]:
        """The best token's probability and id, (N,) each."""
        logp, token = self.values.log_softmax(-1).max(-1)
        return logp.exp(), token


class Growth(Protocol):
    """Inherit from it. inside: whether positions are put in between others, which then move."""

    inside: ClassVar[bool]

    def begin(self, row: Row) -> Row:
        """A text after a prompt as it begins."""
        ...

    def listens(self, canvas: Canvas) -> Tensor:
        """(B, W) bool: where it wants to know what the network says, whatever the rule asks for."""
        return torch.zeros_like(canvas.active)

    def waits(self, heard: Heard) -> Tensor:
        """(B,) bool: rows of which nothing is written yet."""
        return torch.zeros_like(heard.canvas.infill)

    def __call__(self, heard: Heard, moved: Canvas, text: Tensor) -> Insertion:
        """What is put into the rows as the pass has left them, which read as text (B, W); never more than has room."""
        ...


@dataclass(frozen=True)
class Blocks(Growth):
    """A model that never looks ahead writes block after block, until the text ends or is as long as it may be. What is
    not begun is not there, so neither work nor memory depends on how long the text could become.

    piece: positions that come at a time, made up to whole blocks; the text is the same whatever it is. block: positions
    that are written together, counted from the start of the text.
    """

    block: int
    piece: int = 256

    inside: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check_counts(self, piece=1)

    def begin(self, row: Row) -> Row:
        given = len(row.tokens) - row.n_open
        return row.beginning(self._whole - given % self.block)

    def __call__(self, heard: Heard, moved: Canvas, text: Tensor) -> Insertion:
        full = ~(moved.pending | ends(moved, text, heard.eos_id)).any(1)
        return Insertion(moved.length, full * moved.room.clamp(max=self._whole))

    @property
    def _whole(self) -> int:
        return -(-self.piece // self.block) * self.block


@dataclass(frozen=True)
class Daedal(Growth):
    """DAEDAL (arXiv 2508.00819), for models that see the whole canvas, without training: how sure such a model is of an
    end of text at the end of its canvas says whether that is long enough.

    A text begins with `initial` masks. Before anything is written, and as long as the end is less than `begins` sure,
    every pass adds `expand` masks behind the last; the pass that finds them enough writes too. From then on, when the
    end is less than `ends` sure, the mask in the current block that the model is least sure of, if that is below
    `unsure`, becomes `expand` masks.

    How sure the end is: the probability of an end of text where that is the best token, 0 where it is not, 1 from a
    settled end of text on; on average over the last `window` positions of the canvas that are no prompt.
    """

    initial: int = 64
    expand: int = 8
    window: int = 32
    begins: float = 0.5
    ends: float = 0.9
    unsure: float = 0.1

    inside: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_counts(self, initial=1, expand=2, window=1)
        for name in ("begins", "ends", "unsure"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"grow.{name}={getattr(self, name)} is no probability; use 0 to 1")

    def begin(self, row: Row) -> Row:
        return row.beginning(self.initial)

    def listens(self, canvas: Canvas) -> Tensor:
        return canvas.pending & (canvas.active | self._tail(canvas))

    def waits(self, heard: Heard) -> Tensor:
        return self._too_short(heard.canvas, self._end(heard))

    def __call__(self, heard: Heard, moved: Canvas, text: Tensor) -> Insertion:
        end = self._end(heard)
        waits = self._too_short(heard.canvas, end)
        sure = spread(heard.best[0], heard.where)
        open = heard.where & heard.canvas.active & moved.pending
        least, where = sure.masked_fill(~open, torch.inf).min(1)
        unsure = ~waits & (least < self.unsure) & (end < self.ends)
        wanted = waits * self.expand + unsure * (self.expand - 1)
        return Insertion(torch.where(waits, moved.length, where + 1), wanted.minimum(moved.room))

    def _too_short(self, canvas: Canvas, end: Tensor) -> Tensor:
        return (canvas.taken == 0) & (canvas.room > 0) & (end < self.begins)

    def _end(self, heard: Heard) -> Tensor:
        """(B,): how sure the model is that the text ends within its canvas."""
        tail, ended = self._tail(heard.canvas), ends(heard.canvas, heard.text, heard.eos_id).cumsum(1) > 0
        assert heard.eos_id is not None, "it listens for the end of text"
        best, token = heard.best
        end = spread(best.masked_fill(token != heard.eos_id, 0.0), heard.where).masked_fill(ended, 1.0)
        return (end * tail).sum(1) / tail.sum(1).clamp(min=1)

    def _tail(self, canvas: Canvas) -> Tensor:
        """(B, W) bool"""
        behind = canvas.length[:, None] - canvas.position
        return (behind > 0) & (behind <= self.window) & ~canvas.given


GROWTHS: dict[str, Callable[..., Growth]] = {"daedal": Daedal, "blocks": Blocks}


def _check_counts(growth: Growth, **least: int) -> None:
    for name, low in least.items():
        if not low <= getattr(growth, name) <= MOST:
            raise UserError(f"grow.{name}={getattr(growth, name)} is no length; use {low} to {MOST}")


def boundless(denoiser: Denoiser) -> bool:
    """Whether a text may be longer than those that the model was trained on: it never looks ahead, and rotates its
    positions instead of having learnt each of them. How well it then writes, the model alone decides."""
    return block_size(denoiser.rule) is not None and denoiser.network.config.positions == "rope"


class How(Protocol):
    """What matters here of `Decoding`."""

    @property
    def steps(self) -> int | None: ...
    @property
    def revise(self) -> Any: ...
    @property
    def suppress_eos(self) -> bool | None: ...
    @property
    def cache(self) -> Any: ...
    @property
    def constraint(self) -> Constraint | None: ...
    @property
    def eos_id(self) -> int | None: ...
    @property
    def kind(self) -> str | None: ...
    def stepper(self, denoiser: Denoiser) -> Stepper: ...


def check_growth(growth: Growth, how: How) -> None:
    """UserError where a text cannot grow and be written as the settings say."""
    if how.steps is not None:
        raise UserError(f"steps={how.steps}: nobody knows how many tokens a text that grows has; use block_steps")
    if how.constraint is not None:
        raise how.constraint.refusal("it must know how long the text becomes; leave grow out")
    if growth.inside:
        for name in ("revise", "suppress_eos"):
            if getattr(how, name):
                raise UserError(f"{name}: a canvas cannot grow inside with it; leave {name} or grow out")
        if how.cache not in (None, "none", "exact"):  # exact: it is for models that do not grow so
            raise UserError("cache: what stands behind new positions moves, so nothing of it can be kept; leave it out")


def check_model(growth: Growth, how: How, denoiser: Denoiser) -> None:
    """UserError where the model's texts cannot grow so; `for_model` must have chosen the rule."""
    ahead = block_size(denoiser.rule) is None
    if ahead != growth.inside:
        reason = "sees its whole canvas; use daedal" if ahead else "never looks ahead, nor hears the end; use blocks"
        raise UserError(f"grow: this model {reason}, or leave grow out")
    if growth.inside and how.eos_id is None:
        raise UserError("grow: it listens for the end of text, and there is no such token; set eos_id too")
    if growth.inside and not isinstance(how.stepper(denoiser), Commit | InOrder):
        raise UserError(f"grow: the {how.kind} rule follows a clock for the whole canvas; use confidence")
    if denoiser.network.time is not None and denoiser.network.config.time_scope == "row":
        raise UserError("grow: this network is told how noisy the whole canvas is, which has no end; leave grow out")


def check_rows(growth: Growth | None, rows: Sequence[Row]) -> None:
    """UserError where a row is not such as grow so."""
    for i, row in enumerate(rows):
        if growth is not None and (row.infill or row.open != sorted(row.open)):
            raise UserError(f"prompt {i}: gaps are as long as they are, only what is behind a prompt grows; no grow")
        if row.room and growth is None:
            raise UserError(f"prompt {i}: has room for {row.room} more tokens but does not grow; set grow too")

"""What a pass feeds to the network, and what it takes from earlier passes: cache policies. Knows no rule of writing.

A cache keeps the keys and values of what was fed. A policy only says, row by row, which positions to feed next; those
that an output is wanted of are always among them. What this costs, for a prompt of P tokens, G new ones in blocks of B
and n passes a block (the whole row is W = P + G, every token of it once through the network is W queries):

    none      W queries every pass. Exact for every model.
    exact     B queries a pass, and B more in the first pass of a block: the block before, now final, is fed once more
              together with it. The prompt comes with the very first pass. P + G + G n queries in all, less the last
              block's second time, and no pass of its own for what is written. Exact, but only for models that never
              look ahead (block-causal, autoregressive: B = 1, n = 1, one query a token).
    prefix    W queries in the first pass of a block, then the block and all behind it. Approximate.
    dual      W queries in the first pass of a block, then the block alone. Approximate.
    delayed   W queries every `every` passes, else what is open and what was written in the pass before. Approximate.
    interval  the prompt every `prompt` passes, what is written or will be every `answer` passes, else what an output
              is wanted of and what was written in the pass before. Approximate.

Approximate: in a model that sees the whole text, every key and value changes when any token does; kept ones are those
of an older text. Rows need not be in step: each is at its own block and pass, and a pass has no padding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from ..denoiser import Denoiser, Prediction
from ..errors import UserError
from .canvas import Canvas


@dataclass(frozen=True)
class Moment:
    """What a policy may look at before a pass of B rows, W columns.

    sought (B, W) bool: outputs that are wanted. changed (B, W): the network would be fed something else there than when
    it last was, or never was. known (B, W): it has been. begins (B,): the row's first pass in its current block.
    """

    canvas: Canvas
    sought: Tensor
    changed: Tensor
    known: Tensor
    begins: Tensor


class Policy(Protocol):
    exact: ClassVar[bool]  # whether every prediction is that of a pass over the whole text
    keeps: ClassVar[bool] = True

    def feed(self, moment: Moment) -> Tensor:
        """(B, W) bool: the positions to feed; those that are sought, and no padding, are seen to elsewhere."""
        ...


@dataclass(frozen=True)
class Recompute(Policy):
    """Everything, always: nothing is kept."""

    exact = True
    keeps = False

    def feed(self, moment: Moment) -> Tensor:
        return torch.ones_like(moment.sought)


@dataclass(frozen=True)
class Exact(Policy):
    """From the first block in which something changed to the last one that a wanted output sees.

    A position's keys and values depend on its own block and those before it. They are final once nothing changes there
    any more, and this asks for no more than that: a block is fed while it is written, and once after, with the next.
    size: of the blocks that the model's rule never looks beyond.
    """

    size: int | None
    exact = True

    def __post_init__(self) -> None:
        if self.size is None:
            raise UserError(
                "cache: exact needs a model that never looks ahead; use none, or dual, which is approximate"
            )

    def feed(self, moment: Moment) -> Tensor:
        position, size = moment.canvas.position, self.size or 1
        behind = position.masked_fill(~moment.changed, position.shape[1]).amin(1) // size * size
        ahead = (position.masked_fill(~moment.sought, -1).amax(1) // size + 1) * size
        # known and behind a change: kept for a text that is no more, whether or not it is looked at now
        return (position >= behind[:, None]) & ((position < ahead[:, None]) | moment.known)


@dataclass(frozen=True)
class Prefix(Policy):
    """Fast-dLLM's prefix cache (arXiv 2505.22618): what stands before the block is kept from its first pass."""

    exact = False

    def feed(self, moment: Moment) -> Tensor:
        canvas = moment.canvas
        started = (canvas.block == canvas.now[:, None]).cumsum(1) > 0
        return started | moment.begins[:, None]


@dataclass(frozen=True)
class Dual(Policy):
    """Fast-dLLM's dual cache: what stands on either side of the block is kept from its first pass."""

    exact = False

    def feed(self, moment: Moment) -> Tensor:
        canvas = moment.canvas
        return (canvas.block == canvas.now[:, None]) | moment.begins[:, None]


@dataclass(frozen=True)
class Delayed(Policy):
    """dKV-Cache (arXiv 2505.15781): a token is kept from the pass after the one that wrote it; all anew now and then.

    every: passes from one refresh to the next.
    """

    every: int = 8
    exact = False

    def feed(self, moment: Moment) -> Tensor:
        return moment.changed | (moment.canvas.t > 0) | _due(moment.canvas.passes, self.every)


@dataclass(frozen=True)
class Interval(Policy):
    """dLLM-Cache (arXiv 2506.06295) without its search for the tokens that moved most: the prompt, which hardly
    changes, is refreshed rarely, the answer often.

    prompt, answer: passes from one refresh to the next of what was given and of what is to be written.
    """

    prompt: int = 50
    answer: int = 7
    exact = False

    def feed(self, moment: Moment) -> Tensor:
        canvas = moment.canvas
        given = (canvas.t == 0) & (canvas.settled_at < 0)
        due = torch.where(given, _due(canvas.passes, self.prompt), _due(canvas.passes, self.answer))
        return moment.changed | due


def _due(passes: Tensor, every: int) -> Tensor:
    """(B, 1) bool: a refresh falls on this pass."""
    return (passes % every == 0)[:, None]


CACHES: dict[str, Callable[..., Policy]] = {
    "none": Recompute,
    "exact": Exact,
    "prefix": Prefix,
    "dual": Dual,
    "delayed": Delayed,
    "interval": Interval,
}


class Context:
    """A denoiser bound to the rows that are being written. What it remembers of earlier passes is its own affair."""

    def __init__(self, denoiser: Denoiser, policy: Policy, canvas: Canvas) -> None:
        if policy.keeps and canvas.x.is_floating_point():
            raise UserError("cache: noisy vectors change everywhere in every pass; leave cache out")
        self.denoiser, self.policy = denoiser, policy
        self.cache = denoiser.network.cache(*canvas.x.shape) if policy.keeps else None
        self.block = torch.full_like(canvas.now, -1)  # (B,): of the last pass
        self.inputs = torch.zeros_like(canvas.x)  # (B, W): what the network was fed where it is known
        self.times = torch.zeros_like(canvas.t)
        self.known = torch.zeros_like(canvas.x, dtype=torch.bool)
        self.told = None if denoiser.echo is None else denoiser.silence(canvas.t)  # (B, W, E): its last word

    def predict(self, canvas: Canvas, asked: Tensor) -> tuple[Prediction, Tensor]:
        """mu at asked (B, W) bool, and how many tokens of each row (B,) were fed for it."""
        places = canvas.places
        if self.cache is None:
            return self._said(canvas, asked), canvas.length
        sought = self.denoiser.sought(asked, places)
        feed = self._feed(canvas, self.denoiser.head.inputs(canvas.x, places), sought)
        return self._said(canvas, asked, cache=self.cache, feed=feed), feed.sum(1)

    def _said(self, canvas: Canvas, asked: Tensor, **kept: Any) -> Prediction:
        """One pass, and what the next one is told of it."""
        if self.told is None:
            return self.denoiser(canvas.x, canvas.t, places=canvas.places, where=asked, **kept)
        told = self.told[:, : canvas.t.shape[1]].masked_fill((canvas.t == 0)[..., None], 0.0)
        said = self.denoiser(canvas.x, canvas.t, places=canvas.places, where=asked, feedback=told, **kept)
        recalled = self.denoiser.recalled(said, canvas.x[asked], canvas.t[asked])
        self.told = told.masked_scatter(asked[..., None], recalled)
        return said

    def combined(self, values: Tensor) -> Tensor:
        """What was read (N, V) of one prediction, as what is said at the N asked positions."""
        return values

    def only(self, index: Tensor) -> None:
        """Keep the rows at index; the others are written."""
        self.block, self.inputs, self.times = self.block[index], self.inputs[index], self.times[index]
        self.known, self.told = self.known[index], None if self.told is None else self.told[index]
        if self.cache is not None:
            self.cache.only(index)

    def _feed(self, canvas: Canvas, inputs: Tensor, sought: Tensor) -> Tensor:
        """What to feed now, (B, W) bool; it is remembered."""
        told = self.denoiser.network.told(canvas.t)
        times = torch.zeros_like(canvas.t) if told is None else told.expand(canvas.t.shape)
        width = inputs.shape[1]  # rows that needed more may have left
        known, fed, then = self.known[:, :width], self.inputs[:, :width], self.times[:, :width]
        changed = ~known | (inputs != fed) | (times != then)
        if self.told is not None:
            changed = changed | self.told[:, :width].ne(0).any(-1)
        moment = Moment(canvas, sought, changed, known, begins=canvas.now != self.block)
        feed = (self.policy.feed(moment) | sought) & ~canvas.padded
        self.known, self.block = known | feed, canvas.now
        self.inputs, self.times = torch.where(feed, inputs, fed), torch.where(feed, times, then)
        return feed

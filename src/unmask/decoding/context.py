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

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from ..denoiser import Denoiser, Prediction
from ..errors import UserError
from ..models.attention import Memory, Places
from ..models.cache import Cache
from ..models.packed import Together, Unkept
from ..models.prefixes import Prefixes
from .beginnings import Beginnings
from .canvas import Canvas, stacked
from .insertion import taken
from .past import Past


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


@dataclass(frozen=True)
class Look:
    """What a pass shows the network of B rows, W columns. x, t: states and times; asked (B, W) bool: where a prediction
    is wanted; feed (B, W) bool: what goes through the network; kept: what it remembers, of so many rows each, in order;
    told (B, W, E): its last word, if it listens to that."""

    x: Tensor
    t: Tensor
    asked: Tensor
    feed: Tensor
    kept: Sequence[tuple[int, Memory]]
    told: Tensor | None = None

    @classmethod
    def above(cls, looks: Sequence[Look]) -> Look:
        """The rows of all of them, those of one above those of the next."""
        x, t, asked, feed = (stacked([getattr(look, name) for look in looks]) for name in ("x", "t", "asked", "feed"))
        told = [look.told for look in looks if look.told is not None]
        kept = _together([one for look in looks for one in look.kept])
        return cls(x, t, asked, feed, kept, stacked(told) if told else None)


def _together(kept: Sequence[tuple[int, Memory]]) -> list[tuple[int, Memory]]:
    """Neighbours that keep nothing are fed as one."""
    found: list[tuple[int, Memory]] = []
    for rows, memory in kept:
        if found and isinstance(memory, Unkept) and found[-1][1] == memory:
            found[-1] = found[-1][0] + rows, memory
        else:
            found.append((rows, memory))
    return found


def predict(denoiser: Denoiser, looks: Sequence[Look]) -> list[Prediction]:
    """One pass over all that is shown -> what is said at the asked positions of each look."""
    shown = looks[0] if len(looks) == 1 else Look.above(looks)
    position = torch.arange(shown.t.shape[1], device=shown.t.device).expand(shown.t.shape)
    more: dict[str, Any] = {} if shown.told is None else {"feedback": shown.told}
    if denoiser.packs:
        memory = shown.kept[0][1] if len(shown.kept) == 1 else Together(shown.kept)
        more |= {"places": Places(position), "cache": memory, "feed": shown.feed}
    else:  # attention needs no mask where there is no padding
        more["places"] = Places(position, None if bool(shown.feed.all()) else shown.feed.long() - 1)
    said = denoiser(shown.x, shown.t, where=shown.asked, **more)
    if len(looks) == 1:
        return [said]
    ends = [0, *accumulate(int(look.asked.sum()) for look in looks)]
    return [said.at(slice(start, end)) for start, end in pairwise(ends)]


class Context:
    """A denoiser bound to rows that are being written. What it remembers of earlier passes is its own affair.

    Rows that join together have a cache of their own: nobody else's is copied when they come, and it goes when they do.
    prefixes: what texts that began before them have left, if that is kept.
    """

    def __init__(self, denoiser: Denoiser, policy: Policy, prefixes: Prefixes | None = None) -> None:
        self.denoiser, self.policy = denoiser, policy
        self._beginnings = Beginnings.of(denoiser, prefixes) if isinstance(policy, Exact) else None
        self._caches: list[Cache] = []
        self._past: Past | None = None
        self._told: Tensor | None = None  # (B, W, E): the network's last word

    def join(self, canvas: Canvas) -> None:
        """Rows that begin."""
        if self.policy.keeps:
            self._caches.append(self.denoiser.network.cache(*canvas.x.shape))
            past = Past.none(canvas)
            if self._beginnings is not None:
                past = past.knowing(self._beginnings.recall(canvas, self._caches[-1]))
            self._past = past if self._past is None else self._past.beside(past)
        if self.denoiser.echo is not None:
            silence = self.denoiser.silence(canvas.t)
            self._told = silence if self._told is None else stacked([self._told, silence])

    def only(self, index: Tensor) -> None:
        """Keep the rows at index, which rises; the others are written."""
        self._past = None if self._past is None else self._past.only(index)
        self._told = None if self._told is None else self._told[index]
        first, caches = 0, []
        for cache in self._caches:
            here = index[(index >= first) & (index < first + cache.rows)] - first
            first += cache.rows
            if len(here):
                caches.append(cache)
                if len(here) < cache.rows:
                    cache.only(here)
        self._caches = caches

    def grow(self, source: Tensor, canvas: Canvas) -> None:
        """Positions were put into rows: source (B, W), the column that each column was, -1 for a new one. What is kept
        of keys and values stays where it is, so that then they were put behind the last."""
        self._told = None if self._told is None else taken(self._told, source)
        if self._past is None:
            return
        self._past = self._past.wide(source.shape[1])
        lengths, most = canvas.length.tolist(), (canvas.length + canvas.room).tolist()
        first = 0
        for cache in self._caches:
            here = slice(first, first + cache.rows)
            cache.reserve(max(lengths[here]), max(most[here]))
            first += cache.rows

    @property
    def slots(self) -> int:
        """Positions that keys and values are kept of, or may be."""
        return sum(cache.rows * cache.slots for cache in self._caches)

    def look(self, canvas: Canvas, asked: Tensor) -> Look:
        """What the next pass shows, for a prediction at asked (B, W) bool. From here on it counts as shown."""
        said = None if self._told is None else self._told[:, : canvas.t.shape[1]]
        told = None if said is None else said.masked_fill((canvas.t == 0)[..., None], 0.0)
        if self._past is None:
            kept = [(len(asked), Unkept(self.denoiser.network.config.layers))] if self.denoiser.packs else []
            return Look(canvas.x, canvas.t, asked, ~canvas.padded, kept, told)
        if self._beginnings is not None:
            self._beginnings.note(canvas, self._past.block < 0)
        feed = self._feed(self._past, canvas, asked, said)
        return Look(canvas.x, canvas.t, asked, feed, [(cache.rows, cache) for cache in self._caches], told)

    def hear(self, look: Look, said: Prediction) -> None:
        """The pass is made. What was said is told to the network in the next one, if it listens."""
        if self._beginnings is not None:
            self._beginnings.keep(self._caches)
        if look.told is not None:
            recalled = self.denoiser.recalled(said, look.x[look.asked], look.t[look.asked])
            self._told = look.told.masked_scatter(look.asked[..., None], recalled)

    def _feed(self, past: Past, canvas: Canvas, asked: Tensor, said: Tensor | None) -> Tensor:
        """What to feed now, (B, W) bool."""
        places = Places(canvas.position)
        sought, inputs = self.denoiser.sought(asked, places), self.denoiser.head.inputs(canvas.x, places)
        level = self.denoiser.network.told(canvas.t)
        times = torch.zeros_like(canvas.t) if level is None else level.expand(canvas.t.shape)
        known, fed, then = (part[:, : inputs.shape[1]] for part in (past.known, past.inputs, past.times))
        changed = ~known | (inputs != fed) | (times != then)  # rows that needed more columns may have left
        if said is not None:
            changed = changed | said.ne(0).any(-1)
        moment = Moment(canvas, sought, changed, known, begins=canvas.now != past.block)
        feed = (self.policy.feed(moment) | sought) & ~canvas.padded
        self._past = Past(canvas.now, known | feed, torch.where(feed, inputs, fed), torch.where(feed, times, then))
        return feed

"""What is to be written where, and how far it has come: rows of tokens with a time a position. Knows no networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UserError
from ..models.attention import Places
from .insertion import Insertion, taken
from .steppers import Memory, Move, Tick

Change = Callable[[str, Tensor], Tensor]
WIDE = {"x", "t", "block", "settled_at", "sure"}  # fields that have a column a position
PADDING = {"block": -1, "settled_at": -1, "sure": 1, "plan": 1}  # what stands behind a shorter row; else 0


def stacked(parts: Sequence[Tensor], fill: float = 0) -> Tensor:
    """Parts (B, W, ...), the rows of one above those of the next, each filled up to the widest."""
    width = max(part.shape[1] for part in parts)
    return torch.cat([part if part.shape[1] == width else _widened(part, width, fill) for part in parts])


def _widened(part: Tensor, width: int, fill: float) -> Tensor:
    return F.pad(part, [0, 0] * (part.dim() - 2) + [0, width - part.shape[1]], value=fill)


def joined(a: Tensor, b: Tensor, fill: float = 0) -> Tensor:
    """The same of two, or of what has one number a row."""
    return stacked([a, b], fill) if a.dim() > 1 else torch.cat([a, b])


@dataclass(frozen=True)
class Row:
    """One text: tokens, and which positions are open, to be written (the tokens there are not read). Open runs may be
    anywhere. infill: they are gaps inside a text, where an end of text would make no sense. room: how many more open
    positions there may come to be, where the text grows as it is written (`growth`)."""

    tokens: list[int]
    open: list[bool]
    seed: int = 0
    infill: bool = True
    room: int = 0

    def __post_init__(self) -> None:
        if len(self.tokens) != len(self.open):
            raise UserError(f"row: {len(self.tokens)} tokens but {len(self.open)} open marks; give one mark a token")
        if not -(2**63) <= self.seed < 2**63:
            raise UserError(f"seed={self.seed} does not fit into 64 bits; use a smaller one")

    @classmethod
    def after(cls, prompt: Sequence[int], length: int, seed: int = 0, room: int = 0) -> Row:
        """`length` new tokens after the prompt, or fewer if the text ends."""
        if length < 0:
            raise UserError(f"length={length} is negative; ask for 0 or more new tokens")
        return cls([*prompt, *[0] * length], [False] * len(prompt) + [True] * length, seed, infill=False, room=room)

    @classmethod
    def gaps(cls, tokens: Sequence[int | None], seed: int = 0) -> Row:
        """Tokens in which every None is to be written."""
        return cls([0 if token is None else token for token in tokens], [token is None for token in tokens], seed)

    @property
    def n_open(self) -> int:
        return sum(self.open)

    @property
    def most(self) -> int:
        """Positions that it may come to have."""
        return len(self.tokens) + self.room

    def beginning(self, length: int) -> Row:
        """A text after a prompt as it begins, with `length` of its open positions; the others come as it grows."""
        given, total = self.tokens[: len(self.tokens) - self.n_open], self.n_open + self.room
        return Row.after(given, min(length, total), self.seed, max(0, total - length))


def shares(sizes: Sequence[int], steps: int) -> list[int]:
    """A row's steps over its blocks, in proportion to their sizes, every block at least one.

    Equal blocks that divide the steps get LLaDA's steps / blocks; steps >= tokens leave every block a step a token.
    """
    total, done, out = sum(sizes), 0, []
    for size in sizes:
        before, done = done, done + size
        out.append(max(1, steps * done // total - steps * before // total))
    return out


@dataclass(frozen=True)
class Canvas:
    """B rows in progress, W columns; shorter rows are padded on the right, so a row's positions are its own.

    x, t (B, W): states and times. block (B, W): which block an open position is written in; -1: given, padding, or no
    longer wanted. plan (B, most blocks): steps of each block. now, left, taken, passes, fed (B,): current block, steps
    left in it, steps behind the row, network passes behind the row, tokens it was fed in them. settled_at (B, W): the
    pass that wrote a position, -1 if none; sure (B, W): the model's probability of what it wrote, 1 where given.
    row (B,): which of the rows that were ever written it is. room (B,): positions it may still grow by; inserted
    (B, 2): how it grew after the last pass, the position before which open ones were put in, and how many. memory: what
    the stepper keeps from one pass to the next, (B, W, ...) a position or (B,) a row; zeros are as good as nothing.

    A position is settled once its time is 0. A token that a reviser may still change keeps a time above it.
    """

    row: Tensor
    seed: Tensor
    length: Tensor
    infill: Tensor
    x: Tensor
    t: Tensor
    block: Tensor
    plan: Tensor
    now: Tensor
    left: Tensor
    taken: Tensor
    passes: Tensor
    fed: Tensor
    settled_at: Tensor
    sure: Tensor
    room: Tensor
    inserted: Tensor
    memory: Memory = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        rows: Sequence[Row],
        block: int | None,
        steps: int | None,
        device: torch.device,
        *,
        aligned: bool = False,
        block_steps: int | None = None,
    ) -> Canvas:
        """Blocks of `block` open positions, default one for all; steps of a row or of each block. aligned: blocks of so
        many positions, open or not, counted from the start of the text, as models with blocks of their own see it; the
        first may begin inside the prompt."""
        width = max((len(row.tokens) for row in rows), default=0)
        x = _padded([row.tokens for row in rows], width, 0)
        open = _padded([[int(o) for o in row.open] for row in rows], width, 0).bool()
        blocks = _blocks(open, block or max(width, 1), aligned)
        plans = [_plan(of_row[of_row >= 0].bincount().tolist(), steps, block_steps) for of_row in blocks]
        zeros = torch.zeros(len(rows), dtype=torch.int64)
        plan = _padded(plans, max(map(len, plans), default=1), 1)
        canvas = cls(
            row=torch.arange(len(rows)),
            seed=torch.tensor([row.seed for row in rows], dtype=torch.int64),
            length=torch.tensor([len(row.tokens) for row in rows], dtype=torch.int64),
            infill=torch.tensor([row.infill for row in rows], dtype=torch.bool),
            x=x,
            t=open.float(),
            block=blocks,
            plan=plan,
            now=zeros,
            left=plan[:, 0],
            taken=zeros,
            passes=zeros,
            fed=zeros,
            settled_at=torch.full_like(x, -1),
            sure=(~open).float(),
            room=torch.tensor([row.room for row in rows], dtype=torch.int64),
            inserted=torch.zeros(len(rows), 2, dtype=torch.int64),
        )
        return canvas if device.type == "cpu" else canvas._each(lambda name, part: part.to(device))

    @cached_property
    def pending(self) -> Tensor:
        """(B, W) bool: still to be written, now or later."""
        return (self.block >= 0) & (self.t > 0)

    @cached_property
    def active(self) -> Tensor:
        """(B, W) bool: still to be written in the row's current block."""
        return self.pending & (self.block == self.now[:, None])

    @cached_property
    def position(self) -> Tensor:
        return torch.arange(self.t.shape[1], device=self.t.device).expand(self.t.shape)

    @cached_property
    def padded(self) -> Tensor:
        return self.position >= self.length[:, None]

    @property
    def given(self) -> Tensor:
        """(B, W) bool: never open, padding included."""
        return (self.t == 0) & (self.settled_at < 0)

    @cached_property
    def places(self) -> Places:
        """With documents only where there is padding: attention needs no mask otherwise."""
        padded = self.padded
        return Places(self.position, -padded.long() if bool(padded.any()) else None)

    @property
    def tick(self) -> Tick:
        steps = self.plan.gather(1, self.now[:, None])[:, 0]
        now = (self.left, steps, self.taken, self.seed, self.memory, self.padded, self.infill, self.given)
        return Tick(self.x, self.t, self.position, self.active, *now)

    def only(self, index: Tensor) -> Canvas:
        """The rows at index, as narrow as they allow."""
        part = self._each(lambda name, tensor: tensor[index])
        width = int(part.length.max()) if len(part.length) else 0
        return part._each(lambda name, tensor: tensor[:, :width] if name in WIDE else tensor)

    def beside(self, other: Canvas) -> Canvas:
        """The rows of both; those of the other have not been through a pass, and the stepper keeps nothing of them."""
        own = {
            part.name: joined(getattr(self, part.name), getattr(other, part.name), PADDING.get(part.name, 0))
            for part in fields(self)
            if part.name != "memory"
        }
        shape = own["t"][-len(other.row) :].shape
        nothing = {name: p.new_zeros((*shape, *p.shape[2:])[: max(p.dim(), 1)]) for name, p in self.memory.items()}
        return Canvas(**own, memory={name: joined(p, nothing[name]) for name, p in self.memory.items()})

    def after(self, move: Move, fed: Tensor) -> Canvas:
        """The canvas once a move is made, on a pass that was fed so many tokens of each row (B,)."""
        first_time = move.settled & (self.settled_at < 0)
        return replace(
            self,
            x=move.x,
            t=move.t,
            settled_at=torch.where(first_time, self.passes[:, None], self.settled_at),
            sure=torch.where(first_time, move.sure.to(self.sure.dtype), self.sure),
            left=self.left - move.used,
            taken=self.taken + move.used,
            passes=self.passes + 1,
            inserted=torch.zeros_like(self.inserted),
            memory=move.memory,
            fed=self.fed + fed,
        )

    def advanced(self) -> Canvas:
        """Rows whose current block has nothing open begin the first block that has."""
        due = ~self.active.any(1) & self.pending.any(1)
        upcoming = self.block.masked_fill(~self.pending, self.plan.shape[1] - 1).amin(1) if due.any() else self.now
        steps = self.plan.gather(1, upcoming[:, None])[:, 0]
        return replace(self, now=torch.where(due, upcoming, self.now), left=torch.where(due, steps, self.left))

    def longer(self, insertion: Insertion, block: int | None, *, aligned: bool, block_steps: int | None) -> Canvas:
        """With what is put in, open. Inside a row it belongs to the block of the position before it, and is as noisy;
        at its end it goes on with the blocks as `of` counts them. A block grows by a step a position, unless they have
        so many steps each."""
        source = insertion.source(self.length)
        new, inside = insertion.fresh(source), (insertion.at < self.length)[:, None]
        wide = self._each(lambda name, part: taken(part, source, PADDING.get(name, 0)) if name in WIDE else part)
        before = (insertion.at[:, None] - 1).clamp(min=0)
        number = torch.where(inside, self.block.gather(1, before), self._numbers(wide.position, block, aligned))
        blocks = torch.where(new, number, wide.block)
        count = max(int(blocks.amax()) + 1, self.plan.shape[1])
        known = torch.arange(count, device=source.device) <= self.block.amax(1)[:, None]
        steps = (~known).long() * (block_steps or 0)
        if block_steps is None:
            steps = steps.scatter_add(1, blocks.clamp(min=0), new.long())
        return replace(
            wide,
            t=torch.where(new, torch.where(inside, self.t.gather(1, before), 1.0), wide.t),
            block=blocks,
            plan=torch.where(known, _widened(self.plan, count, 0) + steps, steps.clamp(min=1)),
            left=self.left + steps.gather(1, self.now[:, None])[:, 0],
            sure=wide.sure.masked_fill(new, 0.0),
            length=self.length + insertion.count,
            room=self.room - insertion.count,
            inserted=torch.stack([insertion.at, insertion.count], 1),
        )

    def _numbers(self, position: Tensor, size: int | None, aligned: bool) -> Tensor:
        """(B, W) int64: the block of positions behind the row's end."""
        last = self.block.amax(1)[:, None]
        if size is None:
            return last.expand(position.shape)
        origin = 0 if aligned else (self.given & ~self.padded).sum(1)[:, None]
        return last + (position - origin) // size - (self.length[:, None] - 1 - origin) // size

    def _each(self, change: Change) -> Canvas:
        own = {part.name: change(part.name, getattr(self, part.name)) for part in fields(self) if part.name != "memory"}
        kept = {name: change("x" if part.dim() > 1 else "row", part) for name, part in self.memory.items()}
        return Canvas(**own, memory=kept)


def _blocks(open: Tensor, size: int, aligned: bool) -> Tensor:
    """(B, W) int64: the block of each open position, the first that has any is 0; -1 where nothing is open."""
    if not aligned:
        return torch.where(open, (open.cumsum(1) - 1) // size, -1)
    number = torch.arange(open.shape[1]).expand(open.shape) // size
    first = number.masked_fill(~open, open.shape[1]).amin(1, keepdim=True) if open.numel() else number
    return torch.where(open, number - first, -1)


def _plan(sizes: Sequence[int], steps: int | None, each: int | None) -> list[int]:
    """Steps of the blocks with so many open positions."""
    if each is not None:
        return [each] * max(1, len(sizes))
    return shares(sizes, steps or sum(sizes)) if sizes else [1]


def _padded(rows: Sequence[Sequence[int]], width: int, fill: int) -> Tensor:
    full = [[*row, *[fill] * (width - len(row))] for row in rows]
    return torch.tensor(full, dtype=torch.int64).view(len(rows), width)

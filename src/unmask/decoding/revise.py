"""Second thoughts: what is written in a block may be changed or taken back until the block is final.

A reviser looks at drafts, tokens of the current block that are written but not final. They keep a small time above 0,
so that nothing takes them for settled: no end of text counts, no cache keeps them for good, the block is not left.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from ..errors import UserError
from ..noise.process import Process
from .propose import Proposal
from .quotas import first
from .steppers import Move, Stepper, Tick

DRAFTED = 1e-3  # the time of a draft: hardly any noise, but not settled


@dataclass(frozen=True)
class Drafts:
    """draft (B, W) bool: written before this pass, not final. x (B, W): what stands there; p (B, W): its probability
    now; best, p_best (B, W): the token proposed in its place, and its own. fresh (B, W) bool: written in this pass;
    open (B, W) bool: still without a token after it. left (B,): steps left with this one; idle (B,): passes over this
    block, before this one, in which nothing was left to write."""

    draft: Tensor
    x: Tensor
    p: Tensor
    best: Tensor
    p_best: Tensor
    fresh: Tensor
    open: Tensor
    left: Tensor
    idle: Tensor


@dataclass(frozen=True)
class Revision:
    """rewrite, reopen (B, W) bool, among the drafts: where the proposed token takes its place, where it is taken back
    and open again. final (B,) bool: rows whose block is final if nothing is left open in it."""

    rewrite: Tensor
    reopen: Tensor
    final: Tensor


class Reviser(Protocol):
    """Inherit from it. A block must become final: what is taken back may not outweigh for ever what is written.

    rewrites: whether it puts other tokens in the place of drafts; shadows: whether drafts are read as if still
    open, each from a shadow of its own (`shadows`).
    """

    rewrites: ClassVar[bool] = True
    shadows: ClassVar[bool] = False

    def __call__(self, drafts: Drafts) -> Revision: ...


@dataclass(frozen=True)
class Edit(Reviser):
    """Where the model now prefers another token by at least `threshold`, it takes its place (LLaDA 2.1's token-to-token
    editing). A full block is read again until a pass changes nothing, at most `passes` times."""

    threshold: float = 0.9
    passes: int = 16

    def __post_init__(self) -> None:
        if not 0 <= self.threshold < 1:
            raise UserError(f"revise.threshold={self.threshold} is outside [0, 1); 0.9 is usual")
        if self.passes < 1:
            raise UserError(f"revise.passes={self.passes}: a full block is read at least once; use 1 or more")

    def __call__(self, drafts: Drafts) -> Revision:
        rewrite = drafts.draft & (drafts.best != drafts.x) & (drafts.p_best > self.threshold)
        was_full = ~drafts.fresh.any(1) & ~drafts.open.any(1)
        final = was_full & (~rewrite.any(1) | (drafts.idle + 1 >= self.passes))
        return Revision(rewrite, torch.zeros_like(rewrite), final)


@dataclass(frozen=True)
class TakeBack(Reviser):
    """A draft that has become less probable than `threshold` is open again, while there are steps left to write it anew
    (dInfer's hierarchical remasking: 0.4). The block is final once it is full."""

    threshold: float = 0.4

    rewrites: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise UserError(f"revise.threshold={self.threshold} is outside (0, 1); 0.4 is usual")

    def __call__(self, drafts: Drafts) -> Revision:
        reopen = drafts.draft & (drafts.p < self.threshold) & (drafts.left > 1)[:, None]
        return Revision(torch.zeros_like(reopen), reopen, torch.ones_like(drafts.left, dtype=torch.bool))


@dataclass(frozen=True)
class Verify(Reviser):
    """WINO's wide-in, narrow-out (arXiv 2507.18578): a draft whose shadow finds it less probable than `threshold` is
    open again, the least probable of them first, and fewer in a pass than it wrote: every pass gets on. The block is
    final once it is full."""

    threshold: float = 0.9

    rewrites: ClassVar[bool] = False
    shadows: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise UserError(f"revise.threshold={self.threshold} is outside (0, 1); 0.9 is usual")

    def __call__(self, drafts: Drafts) -> Revision:
        doubted = drafts.draft & (drafts.p < self.threshold)
        most = torch.where(drafts.left > 1, drafts.fresh.sum(1) - 1, 0)
        reopen = first(-drafts.p, doubted, most)
        return Revision(torch.zeros_like(reopen), reopen, torch.ones_like(drafts.left, dtype=torch.bool))


REVISERS: dict[str, type[Reviser]] = {"edit": Edit, "take_back": TakeBack, "verify": Verify}


@dataclass(frozen=True)
class Revising(Stepper):
    """A stepper that writes, and a reviser that reads what it wrote, in the same passes."""

    writer: Stepper
    reviser: Reviser
    proposal: Proposal

    def ask(self, tick: Tick) -> Tensor:
        return tick.open

    def move(self, process: Process, tick: Tick, asked: Tensor, values: Tensor) -> Move:
        draft = _kept(tick, "draft", tick.open) & tick.open
        blank = asked & ~draft
        to_write = replace(tick, open=blank, left=tick.left.clamp(min=1))
        wrote = self.writer.move(process, to_write, blank, values[blank[asked]])
        seen = self._look(tick, draft, values[draft[asked]], wrote, blank)
        revision = self.reviser(seen)
        return self._revised(process, tick, seen, revision, wrote)

    def _look(self, tick: Tick, draft: Tensor, values: Tensor, wrote: Move, blank: Tensor) -> Drafts:
        """values (N, V) at the drafts, as the network said them: a token that stands there does not bind it."""
        logp = values.log_softmax(-1)
        best = self.proposal.draw(logp, tick.draws(stage=1).at(draft))
        p = logp.gather(-1, torch.stack([tick.x[draft], best], -1)).exp()
        return Drafts(
            draft=draft,
            x=tick.x,
            p=tick.spread(p[:, 0], draft),
            best=tick.spread(best, draft),
            p_best=tick.spread(p[:, 1], draft),
            fresh=wrote.settled,
            open=blank & ~wrote.settled,
            left=tick.left,
            idle=_kept(tick, "idle", tick.left),
        )

    def _revised(self, process: Process, tick: Tick, seen: Drafts, revision: Revision, wrote: Move) -> Move:
        rewrite, reopen = revision.rewrite, revision.reopen
        noise = process.prior(tick.x, tick.draws(stage=2))
        x = torch.where(rewrite, seen.best, torch.where(reopen, noise, wrote.x))
        draft = (seen.draft | seen.fresh) & ~reopen
        blank = seen.open | reopen
        final = (revision.final & ~blank.any(1))[:, None] & tick.open
        t = wrote.t.masked_fill(draft, DRAFTED).masked_fill(reopen, 1.0).masked_fill(final, 0.0)
        sure = torch.where(seen.fresh, wrote.sure, torch.where(rewrite, seen.p_best, _kept(tick, "sure", tick.t)))
        was_full = ~(seen.fresh | seen.open).any(1)
        idle = torch.where(final.any(1), 0, seen.idle + was_full)
        kept = {"draft": draft & ~final, "sure": sure.to(tick.t.dtype), "idle": idle}
        return Move(x, t, final, sure, wrote.used, {**wrote.memory, **kept})


def _kept(tick: Tick, name: str, like: Tensor) -> Tensor:
    return tick.memory.get(name, torch.zeros_like(like))

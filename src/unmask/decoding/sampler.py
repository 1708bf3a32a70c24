"""The loop that writes: ask the network about a canvas, move, let finished rows go. Knows no training and no text.

Every row keeps its own block, steps and random numbers (seed, step, position), so what it becomes does not depend on
the rows around it. A pass is only run for rows that have something to write, and always writes something.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..denoiser import Denoiser
from ..errors import UserError
from ..models.attention import CausalContext, block_size
from ..noise.draws import FromCounters
from ..noise.process import Process
from .by_blocks import ByBlocks
from .canvas import Canvas, Row
from .context import Context
from .guidance import GuidedContext, without
from .length import Finish, closed, cut, without_end
from .settings import FORWARD, SPECULATING, Decoding
from .speculate import Speculated, speculate


@dataclass(frozen=True)
class Counts:
    """forwards: network passes; queries: tokens the network was fed in them, without a cache the padding of a batch
    too; written: tokens given back to the user, so neither the end of text nor what stands behind it."""

    forwards: int = 0
    queries: int = 0
    written: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Decoded:
    """tokens: the new text up to its end, or the whole row where gaps were filled. canvas: every position, the mask
    where nothing was written behind the end. settled_at: the pass of this row, from 0, that wrote a position, -1 if
    none. confidence: the model's probability of what it wrote there, 1 where given, 0 where nothing is written.
    counts: of the passes this row took part in; its seconds are those of these passes. exact: no cache gave the network
    an older text to look at than the one it wrote on. drafts: where it speculated, the guesses of each cycle and
    how many of them stayed."""

    tokens: list[int]
    canvas: list[int]
    settled_at: list[int]
    confidence: list[float]
    finish_reason: Finish
    counts: Counts
    exact: bool = True
    drafts: Sequence[tuple[int, int]] = ()


@dataclass(frozen=True)
class Frame:
    """One row after a pass. row: its index among the prompts; step: the pass, from 0; open: still to be written;
    settled: written in this pass; confidence: as in Decoded."""

    row: int
    step: int
    tokens: list[int]
    open: list[bool]
    settled: list[bool]
    confidence: list[float]


@dataclass(frozen=True)
class Event:
    """After each pass: the rows that took part, as they stand now, and the totals so far."""

    frames: tuple[Frame, ...]
    counts: Counts


Observer = Callable[[Event], None]


@dataclass
class Sampler:
    """A model bound to a way of writing. `counts` adds up over calls."""

    denoiser: Denoiser
    process: Process
    settings: Decoding = field(default_factory=Decoding)
    observe: Observer | None = None
    counts: Counts = field(default_factory=Counts)

    @torch.inference_mode()
    def __call__(self, prompts: Sequence[Row]) -> list[Decoded]:
        if isinstance(self.denoiser.rule, CausalContext) and self.settings.kind not in (None, FORWARD, SPECULATING):
            return self._by_blocks(prompts)
        _check(prompts, self.denoiser)
        settings = self.settings.for_model(self.denoiser, max((row.n_open for row in prompts), default=0))
        was_training = self.denoiser.training
        self.denoiser.eval()
        try:
            if settings.kind == SPECULATING:
                return self._speculated(prompts)
            return _Run(self, settings).write(prompts)
        finally:
            self.denoiser.train(was_training)

    def _by_blocks(self, prompts: Sequence[Row]) -> list[Decoded]:
        """A joint model writes its blocks with the rules of block models."""
        settings = replace(self.settings, cache=self.settings.cache or "none")
        sampler = replace(self, denoiser=ByBlocks(self.denoiser), settings=settings)
        done = sampler(prompts)
        self.counts = sampler.counts
        return done

    def _speculated(self, prompts: Sequence[Row]) -> list[Decoded]:
        """Drafts and checks have a loop of their own: what they open and close is no block of the text."""
        said = speculate(self.denoiser, prompts, self.settings)
        done = [_checked(row, one, self.settings.eos_id, self.denoiser.mask_id) for row, one in zip(prompts, said)]
        totals = [sum(getattr(one.counts, name) for one in done) for name in ("queries", "written")]
        forwards, seconds = (
            max((getattr(d.counts, name) for d in done), default=0) for name in ("forwards", "seconds")
        )
        was = self.counts
        self.counts = Counts(
            was.forwards + forwards, was.queries + totals[0], was.written + totals[1], was.seconds + seconds
        )
        return done


def _checked(row: Row, said: Speculated, eos_id: int | None, mask_id: int) -> Decoded:
    given, rest = len(row.tokens) - row.n_open, row.n_open - len(said.tokens)
    tokens, finish = cut(said.tokens, eos_id)
    return Decoded(
        tokens=tokens,
        canvas=[*row.tokens[:given], *said.tokens, *[mask_id] * rest],
        settled_at=[*[-1] * given, *said.passes, *[-1] * rest],
        confidence=[*[1.0] * given, *said.sure, *[0.0] * rest],
        finish_reason=finish,
        counts=Counts(len(said.drafted), said.queries, len(tokens), said.seconds),
        drafts=list(zip(said.drafted, said.accepted)),
    )


def decode(
    denoiser: Denoiser,
    process: Process,
    prompts: Sequence[Row],
    settings: Decoding | None = None,
    observe: Observer | None = None,
) -> list[Decoded]:
    """Write every prompt's open positions, as one batch."""
    return Sampler(denoiser, process, settings or Decoding(), observe)(prompts)


class _Run:
    """One batch from prompts to texts."""

    def __init__(self, sampler: Sampler, settings: Decoding) -> None:
        self.sampler, self.settings = sampler, settings
        self.stepper = settings.stepper(sampler.denoiser)
        self.policy = settings.policy(sampler.denoiser)

    def write(self, prompts: Sequence[Row]) -> list[Decoded]:
        canvas = self._blank(prompts)
        context = self._context(canvas)
        seconds = 0.0  # of every pass so far: a row takes part in all of them until it is written
        done: dict[int, Decoded] = {}
        while True:
            writing = canvas.pending.any(1)
            if not bool(writing.all()):
                for i in (~writing).nonzero()[:, 0].tolist():
                    row = int(canvas.row[i])
                    done[row] = self._decoded(canvas, i, prompts[row], seconds)
                index = writing.nonzero()[:, 0]
                canvas = canvas.only(index)
                context.only(index)
            if not len(canvas.row):
                break
            began = time.perf_counter()
            canvas = self._step(canvas, context)
            seconds += time.perf_counter() - began
            if self.sampler.observe is not None:  # outside the clock: an onlooker may take its time
                self.sampler.observe(Event(frames(canvas, self.sampler.process.read(canvas.x)), self.sampler.counts))
        self._count(written=sum(text.counts.written for text in done.values()))
        return [done[i] for i in range(len(prompts))]

    def _blank(self, prompts: Sequence[Row]) -> Canvas:
        """Open positions as pure noise."""
        device = self.sampler.denoiser.banned.device
        aligned = block_size(self.sampler.denoiser.rule) is not None
        how = self.settings
        canvas = Canvas.of(prompts, how.block, how.steps, device, aligned=aligned, block_steps=how.block_steps)
        rng = FromCounters(canvas.seed, canvas.position)
        rng.begin(-1)
        noise = self.sampler.process.prior(canvas.x, rng)
        return replace(canvas, x=self.sampler.process.write(noise, canvas.x, canvas.t == 0))

    def _context(self, canvas: Canvas) -> Context:
        denoiser, scale = self.sampler.denoiser, self.settings.guidance
        if canvas.x.is_floating_point() and self.settings.revise is not None:
            raise UserError("revise: it takes back tokens, and this model moves vectors; leave revise out")
        if scale == 0:
            return Context(denoiser, self.policy, canvas)
        vectors, mask = canvas.x.is_floating_point(), torch.tensor(denoiser.mask_id, device=canvas.x.device)
        if vectors or bool(self.sampler.process.certain(mask)):
            raise UserError("guidance: it hides the given text behind masks, which this model's noise has none of")
        return GuidedContext(denoiser, self.policy, canvas, scale)

    def _step(self, canvas: Canvas, context: Context) -> Canvas:
        """One pass and what follows from it."""
        began, tick = time.perf_counter(), canvas.tick
        asked = self.stepper.ask(tick)
        assert bool(asked.any(1).all()), "a pass for a row with nothing to write"
        prediction, fed = context.predict(canvas, asked)
        values = without(context.combined(self.stepper.read(prediction)), self.settings.ban)
        values = without_end(values, self.settings.eos_id, self._endless(canvas, asked))
        moved = canvas.after(self.stepper.move(self.sampler.process, tick, asked, values), fed)
        moved = closed(moved, self.sampler.process.read(moved.x), self.settings.eos_id).advanced()
        queries = int(fed.sum()) if self.policy.keeps else canvas.t.numel()
        self._count(forwards=1, queries=queries, seconds=time.perf_counter() - began)
        return moved

    def _endless(self, canvas: Canvas, asked: Tensor) -> Tensor:
        """(N,) bool: the asked positions that may not hold an end of text."""
        choice = self.settings.suppress_eos
        rows = canvas.infill if choice is None else torch.full_like(canvas.infill, choice)
        return rows[:, None].expand(asked.shape)[asked]

    def _decoded(self, canvas: Canvas, i: int, prompt: Row, seconds: float) -> Decoded:
        length, passes = int(canvas.length[i]), int(canvas.passes[i])
        x = self.sampler.process.read(canvas.x[i, :length]).tolist()
        start = 0 if prompt.infill else length - prompt.n_open
        tokens, finish = cut(x[start:], None if prompt.infill else self.settings.eos_id)
        return Decoded(
            tokens=tokens,
            canvas=x,
            settled_at=canvas.settled_at[i, :length].tolist(),
            confidence=canvas.sure[i, :length].tolist(),
            finish_reason=finish,
            counts=Counts(passes, int(canvas.fed[i]), prompt.n_open if prompt.infill else len(tokens), seconds),
            exact=self.policy.exact,
        )

    def _count(self, forwards: int = 0, queries: int = 0, written: int = 0, seconds: float = 0.0) -> None:
        was = self.sampler.counts
        self.sampler.counts = Counts(
            was.forwards + forwards, was.queries + queries, was.written + written, was.seconds + seconds
        )


def frames(canvas: Canvas, text: Tensor) -> tuple[Frame, ...]:
    """text (B, W): what the states read as."""
    settled = canvas.settled_at == (canvas.passes - 1)[:, None]
    shown = (text, canvas.pending, settled, canvas.sure)
    return tuple(
        Frame(row, passes - 1, *(part[i, :length].tolist() for part in shown))
        for i, (row, passes, length) in enumerate(zip(*map(Tensor.tolist, (canvas.row, canvas.passes, canvas.length))))
    )


def _check(prompts: Sequence[Row], denoiser: Denoiser) -> None:
    size = block_size(denoiser.rule)
    for i, row in enumerate(prompts):
        wrong = [token for token in row.tokens if not 0 <= token < denoiser.vocab]
        if wrong:
            raise UserError(f"prompt {i}: token {wrong[0]} is not in the model's vocabulary of {denoiser.vocab}")
        if size is not None and row.n_open:
            unseen = (row.open.index(True) // size + 1) * size
            if not all(row.open[unseen:]):
                raise UserError(
                    f"prompt {i}: has a gap that this model, which never looks ahead, would fill without seeing the "
                    f"text from position {unseen} on; use a bidirectional model"
                )

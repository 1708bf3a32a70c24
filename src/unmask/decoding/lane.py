"""Rows in progress that are written by the same settings, step by step. Knows no other settings and no loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor

from ..denoiser import Denoiser, Prediction
from ..errors import UserError
from ..models.attention import block_size
from ..models.prefixes import Prefixes
from ..noise.draws import FromCounters
from ..noise.process import Process
from .by_blocks import ByBlocks
from .canvas import Canvas, Row
from .context import Context, Look
from .growth import Growth, Heard
from .guidance import blinded, without
from .insertion import Insertion
from .length import closed, cut, without_end
from .outcome import Counts, Decoded
from .settings import Decoding
from .shadows import Shadowed
from .steppers import Move


class Lane:
    """settings: as `Decoding.for_model` gives them; prefixes: what an exact cache finds of others' prompts. A step is
    `looks`, a pass of the network, and `move`."""

    def __init__(
        self, denoiser: Denoiser, process: Process, settings: Decoding, prefixes: Prefixes | None = None
    ) -> None:
        self.denoiser, self.process, self.settings = denoiser, process, settings
        self.stepper, self.policy = settings.stepper(denoiser), settings.policy(denoiser)
        if self.policy.keeps and isinstance(denoiser, ByBlocks):
            raise UserError("cache: a joint model reads a block anew once it is written; leave cache out")
        if self.policy.keeps and isinstance(denoiser, Shadowed):
            raise UserError("cache: shadows are cast anew in every pass; leave cache out")
        if self.policy.keeps and not denoiser.packs:
            raise UserError("cache: this network keeps nothing from one pass to the next; leave cache out")
        views = 1 if settings.guiding.scale == 0 else 2
        self.contexts = [Context(denoiser, self.policy, prefixes) for _ in range(views)]
        self.canvas = _nobody(denoiser.banned.device)
        self._check_states()

    def __len__(self) -> int:
        return len(self.canvas.row)

    @property
    def slots(self) -> int:
        """Positions that keys and values are kept of, or will be."""
        promised = int((self.canvas.length + self.canvas.room).sum()) if self.policy.keeps else 0
        return max(sum(context.slots for context in self.contexts), len(self.contexts) * promised)

    def slots_for(self, rows: Sequence[Row]) -> int:
        """How many more if these rows join."""
        widest = max((row.most for row in rows), default=0)
        return len(self.contexts) * len(rows) * widest if self.policy.keeps else 0

    def check(self, rows: Sequence[Row]) -> None:
        """UserError where a row cannot be written as the settings say."""
        self.settings.check_rows(self.denoiser, rows)

    def join(self, rows: Sequence[Row], tickets: Sequence[int]) -> None:
        """Open positions begin as pure noise."""
        growth = self.settings.growth
        blank = self._blank(rows if growth is None else [growth.begin(row) for row in rows], tickets)
        self.canvas = self.canvas.beside(blank) if len(self) else blank
        for context, view in zip(self.contexts, self._views(blank)):
            context.join(view)

    def leave(self, tickets: Sequence[int]) -> None:
        """Their memory is given back."""
        stays = ~torch.isin(self.canvas.row, torch.tensor(tickets, device=self.canvas.row.device))
        if bool(stays.all()):
            return
        index = stays.nonzero()[:, 0]
        self.canvas = self.canvas.only(index)
        for context in self.contexts:
            context.only(index)

    def looks(self) -> list[Look]:
        """What the next pass shows: every row once, or twice where it is guided."""
        self._tick = self.canvas.tick
        self._asked = self._heard = self.stepper.ask(self._tick)
        assert bool(self._asked.any(1).all()), "a pass for a row with nothing to write"
        if self.settings.growth is not None:
            self._heard = self._asked | self.settings.growth.listens(self.canvas)
        views = self._views(self.canvas)
        return [context.look(view, self._heard) for context, view in zip(self.contexts, views)]

    def move(self, looks: Sequence[Look], said: Sequence[Prediction]) -> int:
        """What follows from what was said of each look -> tokens that were fed."""
        for context, look, one in zip(self.contexts, looks, said):
            context.hear(look, one)
        fed = sum((look.feed.sum(1) for look in looks), torch.zeros_like(self.canvas.fed))
        values = self._values(said)
        if self.settings.growth is None:
            self.canvas = self._after(self._moved(values), fed).advanced()
        else:
            self._grow(self.settings.growth, values, fed)
        return int(fed.sum())

    def _moved(self, values: Tensor) -> Move:
        """values (N, V) of the asked positions."""
        return self.stepper.move(self.process, self._tick, self._asked, values)

    def _after(self, move: Move, fed: Tensor) -> Canvas:
        moved = self.canvas.after(move, fed)
        if self.settings.eos_id is None:
            return moved
        return closed(moved, self.process.read(moved.x), self.settings.eos_id)

    def _grow(self, growth: Growth, values: Tensor, fed: Tensor) -> None:
        """values (N, V) of the positions that were heard: the rule may have asked for some of them only."""
        before, read = self.canvas, self.process.read
        heard = Heard(before, read(before.x), self._heard, values, self.settings.eos_id)
        move = self._moved(values[self._asked[self._heard]]).without(growth.waits(heard), self._tick)
        moved = self._after(move, fed)
        insertion = growth(heard, moved, read(moved.x))
        self.canvas = (self._longer(moved, insertion) if insertion else moved).advanced()

    def _longer(self, canvas: Canvas, insertion: Insertion) -> Canvas:
        how = self.settings
        longer = canvas.longer(insertion, how.block, aligned=self._aligned, block_steps=how.block_steps)
        source = insertion.source(canvas.length)
        for context in self.contexts:
            context.grow(source, longer)
        return replace(longer, x=torch.where(insertion.fresh(source), self._noise(longer), longer.x))

    def written(self) -> list[int]:
        """Where in the canvas rows stand that have nothing left to write."""
        found: list[int] = (~self.canvas.pending.any(1)).nonzero()[:, 0].tolist()
        return found

    def decoded(self, i: int, prompt: Row, seconds: float) -> Decoded:
        """Row i of the canvas, which began as the prompt."""
        canvas, length = self.canvas, int(self.canvas.length[i])
        x = self.process.read(canvas.x[i, :length]).tolist()
        start = 0 if prompt.infill else len(prompt.tokens) - prompt.n_open
        tokens, finish = cut(x[start:], None if prompt.infill else self.settings.eos_id)
        new = prompt.n_open if prompt.infill else len(tokens)
        return Decoded(
            tokens=tokens,
            canvas=x,
            settled_at=canvas.settled_at[i, :length].tolist(),
            confidence=canvas.sure[i, :length].tolist(),
            finish_reason=finish,
            counts=Counts(int(canvas.passes[i]), int(canvas.fed[i]), new, seconds),
            exact=self.policy.exact,
        )

    def _blank(self, rows: Sequence[Row], tickets: Sequence[int]) -> Canvas:
        device, how = self.denoiser.banned.device, self.settings
        canvas = Canvas.of(rows, how.block, how.steps, device, aligned=self._aligned, block_steps=how.block_steps)
        x = self.process.write(self._noise(canvas), canvas.x, canvas.t == 0)
        return replace(canvas, x=x, row=torch.tensor(tickets, dtype=torch.int64, device=device))

    def _noise(self, canvas: Canvas) -> Tensor:
        """What every position would begin as."""
        rng = FromCounters(canvas.seed, canvas.position)
        rng.begin(-1)
        return self.process.prior(canvas.x, rng)

    @property
    def _aligned(self) -> bool:
        """Whether blocks are the model's own, counted from the start of the text."""
        return block_size(self.denoiser.rule) is not None

    def _check_states(self) -> None:
        """UserError where the settings do not suit what the noise makes of a text."""
        vectors = self._noise(self.canvas).is_floating_point()
        if vectors and self.settings.revise is not None:
            raise UserError("revise: it takes back tokens, and this model moves vectors; leave revise out")
        if vectors and self.policy.keeps:
            raise UserError("cache: noisy vectors change everywhere in every pass; leave cache out")
        if len(self.contexts) == 2 and (vectors or not self._tells_noise()):
            raise UserError("guidance: it hides the given text behind noise, which this network cannot tell from text")

    def _tells_noise(self) -> bool:
        """Whether the network knows which positions are noise: by the mask there, or because it is told of each."""
        if bool(self.process.certain(torch.tensor(self.denoiser.mask_id, device=self.canvas.x.device))):
            level = self.denoiser.network.told(torch.ones(1, 2))
            return level is not None and level.shape[1] == 2
        return True

    def _views(self, canvas: Canvas) -> list[Canvas]:
        """How each context sees the rows."""
        return [canvas] if len(self.contexts) == 1 else [canvas, blinded(canvas, self._noise(canvas))]

    def _values(self, said: Sequence[Prediction]) -> Tensor:
        """(N, V), or (N, 2, V), at the positions heard of, -inf at tokens that may not be written there."""
        how, endless = self.settings, self._endless()
        views = [without_end(without(self.stepper.read(one), how.ban), how.eos_id, endless) for one in said]
        return views[0] if len(views) == 1 else how.guiding.mixed(*views)

    def _endless(self) -> Tensor:
        """(N,) bool: the positions heard of that may not hold an end of text."""
        choice, infill = self.settings.suppress_eos, self.canvas.infill
        rows = infill if choice is None else torch.full_like(infill, choice)
        return rows[:, None].expand(self._heard.shape)[self._heard]


@lru_cache(maxsize=8)
def _nobody(device: torch.device) -> Canvas:
    """Where no row is yet: two dozen tensors, which every request would wait for, twice."""
    return Canvas.of([], None, None, device)

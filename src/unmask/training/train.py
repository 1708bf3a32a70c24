"""The training loop: data -> noise -> network -> loss -> step, for every method, on one process or many.

It never names an algorithm and draws no text. What it promises: a run killed at any instant and started again ends
with the very same weights (CPU; the same number of processes); a non-finite step is skipped and counted, and too many
in a row bring the last checkpoint back.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ..data.packing import Batch
from ..denoiser import Denoiser
from ..errors import UserError
from ..noise.draws import FromGenerator, seeded
from ..objectives.objective import Adaptive, Objective
from . import state
from .memory import keep_freed_memory
from .optim import COURSES, Average, Plan, set_pace
from .options import TrainOptions
from .report import Report
from .signals import heard
from .work import Work

MOST_ROLLBACKS = 3


class Batches(Protocol):
    """An endless, resumable stream of batches (`data.packing.Loader`)."""

    def __next__(self) -> Batch: ...
    def state_dict(self) -> dict[str, int]: ...
    def load_state_dict(self, state: dict[str, int]) -> None: ...


class Lesson(nn.Module):
    """Denoiser and objective as one module, so that whatever wraps modules (DDP, autocast) sees all the work."""

    def __init__(self, denoiser: Denoiser, objective: Objective) -> None:
        super().__init__()
        self.denoiser, self.objective = denoiser, objective

    def forward(self, batch: Batch, rng: FromGenerator) -> Tensor:
        return self.objective(self.denoiser, batch, rng).total


@dataclass
class Progress:
    """Where a run stands: everything that is not a tensor and not the data's position."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    skipped: int = 0
    rollbacks: int = 0
    bad: int = 0  # non-finite steps in a row


@dataclass
class Summary:
    steps: int
    tokens: int
    seconds: float
    tokens_per_second: float
    skipped: int
    rollbacks: int
    interrupted: bool
    last_loss: float = field(default=math.nan)


class Trainer:
    """One run, resumed from `folder`/checkpoints where there is something; `validate` gives figures to tell,
    `held_out` text for an objective that adapts."""

    def __init__(
        self,
        denoiser: Denoiser,
        objective: Objective,
        batches: Batches,
        plan: Plan,
        options: TrainOptions,
        folder: Path,
        *,
        accelerator: Accelerator,
        seed: int = 0,
        bytes_per_token: float = 1.0,
        validate: Callable[[], dict[str, float]] | None = None,
        held_out: Callable[[], Sequence[Batch]] | None = None,
        title: str = "train",
        quiet: bool = False,
    ) -> None:
        self.accelerator, self.options, self.folder = accelerator, options, folder
        self.objective, self.batches, self.seed = objective, batches, seed
        self.bytes_per_token, self.validate, self.held_out = bytes_per_token, validate, held_out
        self.title, self.quiet = title, quiet
        self.work = Work(denoiser.network, accelerator.device, self._dtype())
        self.denoiser = denoiser.to(accelerator.device)
        denoiser.network.recompute = options.recompute
        if options.compile:
            denoiser.network.compile()
        raw = plan.build(denoiser)
        self.lesson, *self.optimizers = accelerator.prepare(Lesson(denoiser, objective), *raw)
        self.average = Average(denoiser, options.ema) if options.ema else None
        self.at = Progress()
        self.stopping = False
        self.loss = math.nan

    # -- the loop

    def run(self) -> Summary:
        quiet, silent = self.quiet, not self.accelerator.is_main_process
        with Report(self.folder, self.work, self.bytes_per_token, title=self.title, quiet=quiet, silent=silent) as told:
            self.report = told
            if self.accelerator.device.type == "cpu":
                keep_freed_memory()
            self.resume()
            if self.at.step:
                told.say(f"going on from step {self.at.step}")
            told.begin(self.at.step, self.at.tokens, self.options.log_to)
            started, before = time.perf_counter(), self.at.seconds
            with heard(self._stop):
                while self.progress < 1 and not self.stopping:
                    self._step()
                    self.at.seconds = before + time.perf_counter() - started
                    self._agree()
                    self._now_and_then()
            if self.at.step % self.options.save_every or self.stopping:
                self.save()
            if self.at.skipped:
                told.say(f"{self.at.skipped} of {self.at.step} steps were skipped, their loss or gradient not finite")
        return self._summary()

    def _agree(self) -> None:
        """Clocks and signals differ between processes; all must end at the same step."""
        if self.accelerator.num_processes > 1:
            mine = torch.tensor([self.at.seconds, float(self.stopping)], device=self.accelerator.device)
            theirs = self.accelerator.gather(mine).reshape(-1, 2).amax(0).tolist()
            self.at.seconds, self.stopping = theirs[0], bool(theirs[1])

    @property
    def progress(self) -> float:
        """Share of the budget that is used up, in [0, 1]."""
        kind, size = self.options.budget
        if kind == "minutes":
            return min(1.0, self.at.seconds / (60 * size))
        return min(1.0, self.at.step / self._steps_in_all)

    def _step(self) -> None:
        """One optimiser step over all micro-batches of all processes, its loss divided by the true count of both."""
        world = self.accelerator.num_processes
        parts = [next(self.batches).to(self.accelerator.device) for _ in range(self._micro_steps())]
        local = torch.tensor([self.objective.count(b) for b in parts] + [sum(b.tokens.numel() for b in parts)])
        counts = self.accelerator.reduce(local.to(self.accelerator.device), "sum").tolist()
        total, tokens = max(1, sum(counts[:-1])), counts[-1]
        set_pace(self._plain_optimizers(), COURSES[self.options.course](*self._course()))
        self.lesson.train()
        loss = torch.zeros((), device=self.accelerator.device)
        for i, batch in enumerate(parts):
            last = i == len(parts) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.lesson):
                rng = seeded(self.seed, self.at.rollbacks, self.at.step, i, self.accelerator.process_index)
                torch.manual_seed(rng.generator.initial_seed())  # dropout draws from the global generator
                part = self.lesson(batch, rng) / total
                self.accelerator.backward(part * world)  # DDP averages over processes, the count already sums
                loss += part.detach()
        norm = torch.nn.utils.clip_grad_norm_(self.denoiser.parameters(), self.options.clip)
        self.loss = float(self.accelerator.reduce(loss, "sum"))
        self.at.step += 1
        self.at.tokens += tokens
        self._apply(bool(norm.isfinite()) and math.isfinite(self.loss))

    def _apply(self, finite: bool) -> None:
        if finite:
            for optimizer in self.optimizers:
                optimizer.step()
            if self.average is not None:
                self.average.update(self.denoiser)
            self.at.bad = 0
        else:
            self.at.bad += 1
            self.at.skipped += 1
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        if self.at.bad >= self.options.bad_steps:
            self._roll_back()

    def _roll_back(self) -> None:
        """Weights and moments of the last checkpoint, but new data and new noise: the old ones led here."""
        bad, skipped, rollbacks = self.at.bad, self.at.skipped, self.at.rollbacks + 1
        found = state.newest(self.folder / "checkpoints", self.report.say)
        if found is None or rollbacks > MOST_ROLLBACKS:
            raise UserError(
                f"train: the loss was not finite for {bad} steps in a row and {rollbacks - 1} rollbacks did not help; "
                "lower train.optimizer.lr"
            )
        position = self.batches.state_dict()
        self._restore(found)
        self.batches.load_state_dict(position)
        self.at.skipped, self.at.rollbacks, self.at.bad = skipped, rollbacks, 0
        self.report.say(f"{bad} non-finite steps in a row: rolled back to step {self.at.step}, going on with new data")

    def _course(self) -> tuple[float, float, float]:
        one = 0.0 if self.options.minutes is not None else 1 / self._steps_in_all
        return min(1.0, self.progress + one), self.options.warmup, self.options.floor  # the first step already moves

    @property
    def _steps_in_all(self) -> int:
        kind, size = self.options.budget
        return math.ceil(size / (self.options.batch * self._length)) if kind == "tokens" else int(size)

    def _micro_steps(self) -> int:
        share = self.options.batch // self.accelerator.num_processes
        return share // (self.options.micro_batch or share)

    # -- now and then

    def _now_and_then(self) -> None:
        o, step = self.options, self.at.step
        done = self.progress >= 1 or self.stopping
        record: dict[str, Any] = {}
        if step % o.log_every == 0 or done:
            record = self.report.pace(self.loss, self.at.tokens, self._length) | {"skipped": self.at.skipped}
        if self.validate is not None and ((o.eval_every and step % o.eval_every == 0) or done):
            record |= self._validated()
        if isinstance(self.objective, Adaptive) and self.held_out is not None and step % self.objective.every == 0:
            record |= self._adapted(self.objective, self.held_out())
        if record:
            head = {"step": step, "tokens": self.at.tokens, "seconds": round(self.at.seconds, 2)}
            self.report.write(head | record, self.progress)
        if step % o.save_every == 0:
            self.save()
            self.work.measure_peak()

    def _adapted(self, objective: Adaptive, batches: Sequence[Batch]) -> dict[str, float]:
        self.denoiser.eval()
        here = [batch.to(self.accelerator.device) for batch in batches]
        return objective.adapt(self.denoiser, here, seeded(self.seed, self.at.rollbacks, self.at.step))

    def _validated(self) -> dict[str, float]:
        assert self.validate is not None
        self.denoiser.eval()
        if self.average is not None:
            self.average.swap(self.denoiser)
        found = self.validate()
        if self.average is not None:
            self.average.swap(self.denoiser)
        return found

    # -- checkpoints

    def save(self) -> None:
        """Weights, moments, averages, position in the data, counters: all or nothing."""
        if self.accelerator.is_main_process:
            tensors, optimizers = state.pack_optimizers(self._plain_optimizers())
            tensors |= {f"model.{n}": p.detach().cpu() for n, p in self.denoiser.named_parameters()}
            if self.average is not None:
                tensors |= {f"average.{n}": p.cpu() for n, p in self.average.shadow.items()}
            facts = {
                "progress": vars(self.at),
                "optimizers": optimizers,
                "data": self.batches.state_dict(),
                "average_steps": self.average.steps if self.average else 0,
                "objective": self.objective.state_dict() if isinstance(self.objective, Adaptive) else {},
            }
            state.save(self.folder / "checkpoints", self.at.step, state.State(tensors, facts), self.options.keep)
        self.accelerator.wait_for_everyone()

    def resume(self) -> None:
        """Go to the newest whole checkpoint; a run that has none makes one, to have something to roll back to."""
        found = state.newest(self.folder / "checkpoints", self.report.say)
        if found is None:
            self.save()
        else:
            self._restore(found)

    @torch.no_grad()
    def _restore(self, found: state.State) -> None:
        for name, p in self.denoiser.named_parameters():
            p.copy_(found.tensors[f"model.{name}"])
        state.unpack_optimizers(self._plain_optimizers(), found)
        if self.average is not None:
            self.average.steps = found.facts["average_steps"]
            for name, shadow in self.average.shadow.items():
                shadow.copy_(found.tensors[f"average.{name}"])
        if isinstance(self.objective, Adaptive):
            self.objective.load_state_dict(found.facts["objective"])
        self.batches.load_state_dict(found.facts["data"])
        self.at = Progress(**found.facts["progress"])

    # -- small things

    def _plain_optimizers(self) -> list[torch.optim.Optimizer]:
        return [getattr(optimizer, "optimizer", optimizer) for optimizer in self.optimizers]

    @property
    def _length(self) -> int:
        return self.options.length or self.denoiser.network.config.context

    def _dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.accelerator.mixed_precision == "bf16" else torch.float32

    def _stop(self) -> None:
        """The current step ends, a checkpoint is saved, the run leaves."""
        self.stopping = True
        self.report.say("stopping after this step; once more to stop at once")

    def _summary(self) -> Summary:
        at = self.at
        speed = at.tokens / max(at.seconds, 1e-9)
        return Summary(at.step, at.tokens, at.seconds, speed, at.skipped, at.rollbacks, self.stopping, self.loss)

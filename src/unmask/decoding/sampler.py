"""The loop that writes a set of texts: they join a batch, which takes steps until all are written. Knows no training
and no text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..denoiser import Denoiser
from ..noise.process import Process
from .batch import Batch, check
from .canvas import Row
from .outcome import Counts, Decoded, Event, Frame, Observer
from .settings import Decoding

__all__ = ["Counts", "Decoded", "Event", "Frame", "Observer", "Sampler", "check", "decode"]


@dataclass
class Sampler:
    """A model bound to a way of writing. `counts` adds up over calls."""

    denoiser: Denoiser
    process: Process
    settings: Decoding = field(default_factory=Decoding)
    observe: Observer | None = None
    counts: Counts = field(default_factory=Counts)

    def __call__(self, prompts: Sequence[Row]) -> list[Decoded]:
        was_training = self.denoiser.training
        self.denoiser.eval()
        try:
            return self._write(prompts)
        finally:
            self.denoiser.train(was_training)

    def _write(self, prompts: Sequence[Row]) -> list[Decoded]:
        batch = Batch(self.denoiser, self.process)
        done: dict[int, Decoded] = {}
        tickets = batch.join_all(prompts, self.settings)
        while len(batch):
            step = batch.step()
            self.counts += step.counts
            done |= step.done
            if self.observe is not None and step.frames:  # outside the clock: an onlooker may take its time
                self.observe(Event(step.frames, self.counts))
        return [done[ticket] for ticket in tickets]


def decode(
    denoiser: Denoiser,
    process: Process,
    prompts: Sequence[Row],
    settings: Decoding | None = None,
    observe: Observer | None = None,
) -> list[Decoded]:
    """Write every prompt's open positions, as one batch."""
    return Sampler(denoiser, process, settings or Decoding(), observe)(prompts)

"""`sample`: tokens in, tokens out, for any denoiser. Texts, chats and gaps are in `lm`."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from .decoding.canvas import Row
from .decoding.sampler import Counts, Event, Sampler
from .decoding.settings import Decoding, default_settings
from .denoiser import Denoiser
from .errors import UserError
from .loaded import LoadedDenoiser
from .models.attention import BlockCausal
from .noise.draws import FromCounters
from .noise.process import Process
from .noise.tokens import Masking


@dataclass(frozen=True)
class Sample:
    """tokens (B, P + G) int64: the prompts as given, padding included, and what was written. canvases
    (T + 1, B, P + G), if traced: before the first network pass and after each; a row that is written stays as it is.
    stats: passes, tokens fed to the network, tokens written, seconds. exact: no cache gave the network an older text
    than the one it wrote on.
    """

    tokens: Tensor
    canvases: Tensor | None
    stats: Counts
    exact: bool


def sample(
    denoiser: Denoiser,
    prompt: Tensor | Sequence[Sequence[int]],
    *,
    attention_mask: Tensor | None = None,
    length: int,
    preset: str | None = None,
    block: int | None = None,
    steps: int | None = None,
    threshold: float | None = None,
    factor: float | None = None,
    cache: str | Mapping[str, Any] | None = None,
    guidance: float | Mapping[str, Any] = 0.0,
    temperature: float | None = None,
    seed: int | Sequence[int] = 0,
    trace: bool = False,
    **options: Any,
) -> Sample:
    """Write `length` tokens after each prompt (B, P); masks inside a prompt are written too.

    attention_mask (B, P): 0 where a prompt is padding, which nothing sees and no position counts. preset: a published
    way of writing; what else is given changes it. options: any other field of `Decoding`. temperature: default that of
    the preset or model, 0 for the most. seed: one for all rows or one a row; a row gets what it gets alone.
    """
    tokens = torch.as_tensor(prompt, dtype=torch.int64).cpu()
    if tokens.dim() != 2:
        raise UserError(f"prompt: has {tokens.dim()} dimensions; give rows of token ids, (B, P)")
    real = torch.ones_like(tokens, dtype=torch.bool) if attention_mask is None else attention_mask.cpu() != 0
    if real.shape != tokens.shape:
        raise UserError(f"attention_mask: has shape {tuple(real.shape)}, the prompt {tuple(tokens.shape)}")
    denoiser = _in_blocks(denoiser, block)
    given = {
        "block": block, "steps": steps, "threshold": threshold, "factor": factor, "cache": cache,
        "temperature": temperature, "guidance": guidance or None, **options,
    }  # fmt: skip
    said = {name: value for name, value in given.items() if value is not None}
    settings = _usual(denoiser).saying(said | {"preset": preset})
    sampler = Sampler(denoiser, process_of(denoiser), settings)
    seeds = [seed] * len(tokens) if isinstance(seed, int) else list(seed)
    rows = [_row(denoiser, line[kept].tolist(), length, s) for line, kept, s in zip(tokens, real, seeds, strict=True)]
    recorder = _Recorder(sampler.process, rows, settings) if trace else None
    sampler.observe = recorder
    done = sampler(rows)
    whole = torch.cat([tokens, tokens.new_zeros(len(tokens), length)], 1)
    kept = torch.cat([real, real.new_ones(len(tokens), length)], 1)
    place = _Placing(whole, kept, denoiser.mask_id)
    canvases = None if recorder is None else torch.stack([place(texts) for texts in recorder.texts])
    final = place([one.canvas for one in done])
    return Sample(final, canvases, sampler.counts, all(one.exact for one in done))


def process_of(denoiser: Denoiser) -> Process:
    """The noise that a denoiser undoes: its own, or masks."""
    if isinstance(denoiser, LoadedDenoiser):
        return denoiser.process
    return Masking.over(denoiser.vocab, denoiser.mask_id)


def _usual(denoiser: Denoiser) -> Decoding:
    if isinstance(denoiser, LoadedDenoiser):
        return denoiser.decoding
    return default_settings(denoiser)


def _in_blocks(denoiser: Denoiser, block: int | None) -> Denoiser:
    """A published block-causal network sees its text in blocks of any size, as their own generate does."""
    published = isinstance(denoiser, LoadedDenoiser) and denoiser.family != "unmask"
    if block is None or not published or not isinstance(denoiser.rule, BlockCausal):
        return denoiser
    found = copy.copy(denoiser)  # the weights are shared
    found.rule = BlockCausal(block)
    return found


def _row(denoiser: Denoiser, prompt: list[int], length: int, seed: int) -> Row:
    banned = set(denoiser.banned.tolist())
    row = Row.after(prompt, length, seed)
    masked = [token == denoiser.mask_id and token in banned for token in prompt]
    return replace(row, open=[*masked, *row.open[len(prompt) :]])


@dataclass(frozen=True)
class _Placing:
    """Rows (B, P + G) with texts put where kept (B, P + G) says that there is no padding, and masks behind those that
    are not as long as they might have been."""

    whole: Tensor
    kept: Tensor
    mask_id: int

    def __call__(self, texts: Sequence[Sequence[int]]) -> Tensor:
        sizes = self.kept.sum(1).tolist()
        full = [[*text, *[self.mask_id] * (size - len(text))] for text, size in zip(texts, sizes)]
        return self.whole.masked_scatter(self.kept, torch.tensor([token for text in full for token in text]).long())


@dataclass
class _Recorder:
    """The text of every row, padding left out, before the first pass and after each."""

    process: Process
    rows: Sequence[Row]
    settings: Decoding
    texts: list[list[list[int]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.texts.append([self._blank(row) for row in self.rows])

    def __call__(self, event: Event) -> None:
        now = list(self.texts[-1])
        for frame in event.frames:
            now[frame.row] = frame.tokens
        self.texts.append(now)

    def _blank(self, row: Row) -> list[int]:
        """What the sampler begins with."""
        x, open = torch.tensor([row.tokens]), torch.tensor([row.open])
        rng = FromCounters(torch.tensor([row.seed]), torch.arange(x.shape[1])[None])
        rng.begin(-1)
        noise = self.process.prior(x, rng)
        text: list[int] = self.process.read(self.process.write(noise, x, ~open))[0].tolist()
        return text

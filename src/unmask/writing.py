"""What the verbs generate, fill, score and info do: checked options in, plain dictionaries out."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from . import __version__
from .data.sources import read
from .decoding.sampler import Event, Observer
from .device import has_bfloat16, pick_device
from .errors import UserError
from .evaluation.likelihood import Score
from .lm import DEFAULT, LanguageModel, Text, load
from .recipe import packaged, read_tree, sentence
from .show.replay import Page, Recorder, write_replay
from .show.watch import Watcher
from .training.progress import Display

WATCHED = 0.04  # seconds a pass stays on the terminal
Self = TypeVar("Self", bound="Options")


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str | None = Field(default=None, description="folder or hub id; default the packaged model")
    seed: int = Field(default=0, ge=0)
    device: str = "auto"
    dtype: str = "auto"
    trust: bool = Field(default=False, description="import the method that the model names as package.module:Class")

    @classmethod
    def load(cls: type[Self], recipe: str | None, overrides: list[str], **fixed: Any) -> Self:
        tree = read_tree(recipe, overrides) | {k: v for k, v in fixed.items() if v is not None}
        try:
            return cls(**tree)
        except ValidationError as error:
            raise UserError(sentence(error, cls)) from error

    def open(self) -> LanguageModel:
        return load(self.model, device=self.device, dtype=self.dtype, trust=self.trust)


class WriteOptions(Options):
    max_tokens: int | None = Field(default=None, gt=0)
    gap_tokens: int = Field(default=16, gt=0, description="of a <gap> that does not say")
    steps: int | None = Field(default=None, gt=0, description="default one a token")
    block: int | None = Field(default=None, gt=0, description="tokens written together; default all")
    rule: str | dict[str, Any] | None = Field(default=None, description="a name, or {kind: name, option: value}")
    threshold: float | None = None
    temperature: float = Field(default=0.0, ge=0)
    top_p: float = 1.0
    top_k: int | None = Field(default=None, gt=0)
    suppress_eos: bool | None = None

    def decoding(self) -> dict[str, Any]:
        """What the user has said, and no more: the model's own way of writing fills in the rest."""
        own = set(Options.model_fields) | {"max_tokens", "gap_tokens"}
        return {"seed": self.seed} | {k: v for k, v in self.model_dump(exclude_unset=True).items() if k not in own}


class ScoreOptions(Options):
    draws: int = Field(default=16, gt=0, description="network passes a window")
    field: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class Written:
    text: str
    result: Text
    shown: bool  # the watcher has left it on the screen

    def as_dict(self) -> dict[str, Any]:
        r = self.result
        return {
            "text": r.text,
            "tokens": r.tokens,
            "gaps": list(r.gaps),
            "finish_reason": r.finish_reason,
            "counts": asdict(r.counts),
        }


def write(options: WriteOptions, verb: str, prompt: str, *, watch: bool, html: Path | None) -> Written:
    """verb: generate, chat or fill. The replay is drawn from the same events that the terminal shows."""
    lm = options.open()
    recorder = Recorder()
    watcher = Watcher(lm.tokenizer.pieces, lm.tokenizer.mask_id, WATCHED, special_ids=lm.tokenizer.special_ids)
    observers: list[Observer] = [*([recorder] if html else []), *([watcher] if watch else [])]

    def observe(event: Event) -> None:
        for observer in observers:
            observer(event)

    fields = options.decoding() | {"observe": observe if observers else None}
    with watcher:
        result = VERBS[verb](lm, prompt, options, fields)
    if html is not None:
        save_replay(html, lm, [(recorder, result)])
    return Written(result.text, result, shown=watch and watcher.live)


def _generate(lm: LanguageModel, prompt: str, options: WriteOptions, fields: dict[str, Any]) -> Text:
    return lm.generate(prompt, max_tokens=options.max_tokens, **fields)


def _chat(lm: LanguageModel, prompt: str, options: WriteOptions, fields: dict[str, Any]) -> Text:
    return lm.chat([{"role": "user", "content": prompt}], max_tokens=options.max_tokens, **fields)


def _fill(lm: LanguageModel, text: str, options: WriteOptions, fields: dict[str, Any]) -> Text:
    return lm.fill(text, tokens=options.gap_tokens, **fields)


VERBS = {"generate": _generate, "chat": _chat, "fill": _fill}


def save_replay(path: Path, lm: LanguageModel, texts: list[tuple[Recorder, Text]]) -> None:
    """One page with all the texts, each as the recorder saw it appear."""
    pages = [
        Page.of(
            lm.tokenizer.pieces,
            recorder.frames(),
            text.decoded,
            lm.tokenizer.mask_id,
            title=f"Text {i}" if len(texts) > 1 else "",
            model=lm.name,
            special_ids=lm.tokenizer.special_ids,
        )
        for i, (recorder, text) in enumerate(texts, 1)
    ]
    try:
        write_replay(path, pages)
    except OSError as error:
        raise UserError(f"html: {path} cannot be written ({error.strerror}); name another file") from error


def score_text(options: ScoreOptions, source: str, prompt: str, *, literal: bool, quiet: bool) -> dict[str, Any]:
    texts = [source] if literal else list(read(source, field=options.field, split=options.split))
    lm = options.open()
    display, scores = Display("score", quiet), []
    for i, text in enumerate(texts, 1):
        tell = _teller(display, i, texts)
        scores.append(lm.score(text, prompt, draws=options.draws, seed=options.seed + i, progress=tell))
    display.close()
    total = sum(scores[1:], scores[0])
    names = ("bits_per_byte", "bits_per_byte_stderr", "bits_per_token", "perplexity")
    return asdict(total) | {name: getattr(total, name) for name in names}


def _teller(display: Display, number: int, texts: list[str]) -> Callable[[Score], None]:
    before, size = sum(map(len, texts[: number - 1])), sum(map(len, texts))
    line = f"text {number} of {len(texts)}"

    def tell(score: Score) -> None:
        share = min(1.0, (before + score.tokens) / max(size, 1))  # characters, roughly
        display.show(share, f"{line}, {score.bits_per_token:.3f} bits/token so far")

    return tell


def describe(what: str | None) -> dict[str, Any]:
    if what == "recipes":
        return {
            name: path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ") for name, path in packaged().items()
        }
    if what is not None:
        lm = load(what)
        found = {"model": lm.name, "parameters": lm.parameters, "context": lm.context, "vocabulary": len(lm.tokenizer)}
        return (
            found | {k: v for k, v in lm.config.items() if k in ("method", "training")} | {"shape": lm.config["model"]}
        )
    device = pick_device()
    return {
        "unmask": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": str(device),
        "bfloat16 in hardware": has_bfloat16(device),
        "threads": torch.get_num_threads(),
        "packaged model": "yes" if (DEFAULT / "config.json").is_file() else "no",
        "recipes": ", ".join(packaged()) or "none",
    }

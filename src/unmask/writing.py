"""What the verbs generate, fill, score and info do: checked options in, plain dictionaries out."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from . import __version__
from .data.sources import read
from .data.tokenizer import whole
from .decoding.sampler import Event, Frame, Observer
from .device import has_bfloat16, pick_device, pick_dtype
from .draft import draft_for
from .errors import UserError
from .evaluation.likelihood import Score
from .lm import DEFAULT, LanguageModel, Text, load
from .recipe import Recipe, keys_of, packaged, sentence
from .request import Fill, Generate, gaps
from .show.replay import Page, Recorder, write_replay

if TYPE_CHECKING:  # rich takes a while to import, and most texts are written unwatched
    from .show.watch import Watcher
    from .training.progress import Display

WATCHED = 0.04  # seconds a pass stays on the terminal
Self = TypeVar("Self", bound="Place")


class Place(BaseModel):
    """Which model, and where it runs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str | None = Field(default=None, description="folder or hub id; default the packaged model")
    device: str = "auto"
    dtype: str = "auto"
    trust: bool = Field(default=False, description="import the method that the model names as package.module:Class")

    @classmethod
    def of(cls: type[Self], options: Mapping[str, Any]) -> Self:
        try:
            return cls(**options)
        except ValidationError as error:
            raise UserError(sentence(error, cls)) from error

    def open(self) -> LanguageModel:
        return load(self.model, device=self.device, dtype=self.dtype, trust=self.trust)


class Drafter(Place):
    """Which model, and for which other one it drafts."""

    draft_for: str | None = Field(
        default=None,
        description="a causal model in `transformers`: it writes, what it would alone, and the model drafts",
    )


class ScoreOptions(Place):
    seed: int = Field(default=0, ge=0, lt=2**63)
    draws: int = Field(default=16, gt=0, description="network passes a window")
    field: str | None = Field(default=None, description="the JSONL or dataset field that holds the text")
    split: str | None = None


@dataclass(frozen=True)
class Verb:
    """A way of writing: what may be asked, what is checked before a model is loaded, and what is done then."""

    request: type[Generate] | type[Fill]
    check: Callable[[str, Any], object]
    run: Callable[[LanguageModel, str, dict[str, Any]], Text | list[Text]]


VERBS = {
    "generate": Verb(Generate, lambda text, _: whole(text), lambda lm, text, options: lm.generate(text, **options)),
    "chat": Verb(
        Generate,
        lambda text, _: whole(text),
        lambda lm, text, options: lm.chat([{"role": "user", "content": text}], **options),
    ),
    "fill": Verb(
        Fill,
        lambda text, request: gaps([whole(text)], request.gap_tokens),
        lambda lm, text, options: lm.fill(text, **options),
    ),
}


@dataclass(frozen=True)
class Written:
    """texts: one, or as many as samples asks for. shown: the watcher has left them on the screen."""

    texts: list[Text]
    seeds: range
    many: bool
    shown: bool

    def as_dict(self) -> dict[str, Any]:
        found = [_as_dict(text) for text in self.texts]
        return {"samples": found} if self.many else found[0]

    def lines(self, before: str) -> str:
        """What is left to print; `before` stands before every text."""
        if self.shown:
            return ""
        heads = [f"--- seed {seed}\n" if self.many else "" for seed in self.seeds]
        return "\n".join(f"{head}{before}{text.text}" for head, text in zip(heads, self.texts))


def _as_dict(text: Text) -> dict[str, Any]:
    return {
        "text": text.text,
        "tokens": text.tokens,
        "gaps": list(text.gaps),
        "finish_reason": text.finish_reason,
        "exact": text.decoded.exact,
        "counts": asdict(text.counts),
    }


def write(
    verb: str, options: Mapping[str, Any], prompt: str, *, watch: bool = False, html: Path | None = None
) -> Written:
    """options: of `Drafter` and of the verb's request. The replay is drawn from the events that the terminal shows.

    All that can be checked without the model is checked before it is loaded."""
    here = {name: value for name, value in options.items() if name in Drafter.model_fields}
    asked = {name: value for name, value in options.items() if name not in here}
    place, request = Drafter.of(here), VERBS[verb].request.of(asked)
    VERBS[verb].check(prompt, request)
    if html is not None:
        _check_page(html)
    if place.draft_for is not None and (verb != "generate" or watch or html is not None):
        raise UserError("draft_for: it writes after a prompt, and is not watched; use generate without watch and html")
    lm, recorder = place.open(), Recorder()
    if place.draft_for is not None:
        drafted = draft_for(place.draft_for, lm).generate(prompt, **asked)
        return Written(
            drafted if isinstance(drafted, list) else [drafted], request.seeds, request.samples is not None, False
        )
    watcher = _watcher(lm) if watch else None
    observers: list[Observer] = [*([recorder] if html else []), *([watcher] if watcher else [])]

    def observe(event: Event) -> None:
        for observer in observers:
            observer(event)

    with watcher or nullcontext():
        found = VERBS[verb].run(lm, prompt, asked | {"observe": observe if observers else None})
    texts = found if isinstance(found, list) else [found]
    if html is not None:
        save_replay(html, lm, [(recorder.frames(row), text) for row, text in enumerate(texts)])
    return Written(texts, request.seeds, request.samples is not None, shown=watcher is not None and watcher.live)


def _watcher(lm: LanguageModel) -> Watcher:
    from .show.watch import Watcher

    return Watcher(lm.tokenizer.pieces, lm.tokenizer.mask_id, WATCHED, special_ids=lm.tokenizer.special_ids)


def _check_page(path: Path) -> None:
    if path.is_dir():
        raise UserError(f"html: {path} is a folder; name a file in it")
    if not path.parent.is_dir():
        raise UserError(f"html: there is no folder {str(path.parent)!r}; make it, or name another file")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UserError(f"html: {path} cannot be written (no permission); name another file")


def save_replay(path: Path, lm: LanguageModel, texts: list[tuple[list[Frame], Text]]) -> None:
    """One page with all the texts, each as it was seen to appear."""
    pages = [
        Page.of(
            lm.tokenizer.pieces,
            frames,
            text.decoded,
            lm.tokenizer.mask_id,
            title=f"Text {i}" if len(texts) > 1 else "",
            model=lm.name,
            special_ids=lm.tokenizer.special_ids,
        )
        for i, (frames, text) in enumerate(texts, 1)
    ]
    try:
        write_replay(path, pages)
    except OSError as error:
        raise UserError(f"html: {path} cannot be written ({error.strerror}); name another file") from error


def score_text(options: ScoreOptions, source: str, prompt: str, *, literal: bool, quiet: bool) -> dict[str, Any]:
    from .training.progress import Display

    texts = [source] if literal else list(read(source, field=options.field, split=options.split))
    for text in (prompt, *texts):
        whole(text)
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


def describe(what: str | None, place: Place) -> dict[str, Any]:
    """The machine, the packaged recipes, the keys of every verb, or a saved model."""
    if what in LISTS:
        return LISTS[what]()
    if what is not None:
        lm = place.model_copy(update={"model": what}).open()
        found = {"model": lm.name, "parameters": lm.parameters, "context": lm.context, "writes beyond it": lm.boundless}
        found |= {"vocabulary": len(lm.tokenizer)}
        return (
            found | {k: v for k, v in lm.config.items() if k in ("method", "training")} | {"shape": lm.config["model"]}
        )
    device = pick_device(place.device)
    return {
        "unmask": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": str(device),
        "dtype": str(pick_dtype(place.dtype, device)).removeprefix("torch."),
        "bfloat16 in hardware": has_bfloat16(device),
        "threads": torch.get_num_threads(),
        "packaged model": "yes" if (DEFAULT / "config.json").is_file() else "no",
        "recipes": ", ".join(packaged()) or "none",
    }


def _recipes() -> dict[str, Any]:
    return {name: path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ") for name, path in packaged().items()}


def _keys() -> dict[str, Any]:
    """Every key=value of every verb, with its default and what it is."""
    own = Place.model_fields.keys()
    told: list[tuple[str, type[BaseModel]]] = [
        ("generate", Generate),
        ("generate", Drafter),
        ("fill", Fill),
        ("score", ScoreOptions),
        ("train, tune, demo", Recipe),
    ]
    return {f"{verb}: {key}": text for verb, model in told for key, text in keys_of(model).items() if key not in own}


LISTS = {"recipes": _recipes, "keys": _keys}

"""Which models a comparison trains, with what budget, and where each is kept: a grid of methods and seeds.

A method is written as its kind with options behind colons, `block:size=4`; an option with a dot is one of the recipe's,
for this method alone: `masked:train.ema=0.999`. All share data, tokenizer, transformer and budget.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .base import symbols_of
from .corpus import Corpus
from .decoding.settings import Decoding
from .errors import UserError, nearest
from .folder import read_json
from .recipe import METHODS, Recipe, Spec, load_recipe, method_of, sentence
from .run import accelerate_for, fresh
from .training.train import Trainer

BUDGETS = ("steps", "tokens", "minutes")
OWN = "own"  # as a rule: the method's
PROBE = 6.0  # seconds that a method's speed is measured for
Facts = dict[str, Any]


class CompareOptions(BaseModel):
    """minutes: training time a method and seed. equal="tokens" measures every method's speed first and gives all of
    them the number of tokens that takes this long on average, so slow methods take longer and quick ones less; the
    grid as a whole takes what was asked for. equal="time" gives each the minutes, whatever it gets done in them.
    tokens: the number of tokens itself, instead of minutes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    methods: str = Field(default=",".join(METHODS), description="kinds with options, block:size=4, divided by commas")
    minutes: float | None = Field(default=None, gt=0, description="default 10, without tokens")
    tokens: int | None = Field(default=None, gt=0)
    equal: Literal["tokens", "time"] = "tokens"
    seeds: int = Field(default=1, gt=0)
    judge: str | None = Field(default=None, description="autoregressive model; default the grid's own")
    samples: int = Field(default=32, ge=0, description="texts written in each way; 0: none")
    prompt: int = Field(default=32, ge=0, description="tokens of held-out text before each")
    write: int = Field(default=64, gt=0, description="tokens of a text")
    passes: list[int] = Field(default=[1, 2, 4, 8, 16], description="tokens a network pass")
    rules: list[str] = Field(default=["ancestral", "own"], description="rules of `generate`; own: the method's")
    temperature: float = Field(default=1.0, ge=0)
    gaps: int = Field(default=64, ge=0, description="gaps cut from held-out text; 0: none")
    gap_tokens: int = Field(default=4, gt=0)
    facts: int = Field(default=20, ge=0, description="made-up facts of the reversal test; 0: none")
    facts_tokens: int | None = Field(default=None, gt=0, description="read in it; default a tenth of training's")
    eval_batches: int = Field(default=8, gt=1, description="batches that the loss variance is measured on")

    @classmethod
    def of(cls, overrides: Sequence[str], **fixed: Any) -> tuple[CompareOptions, list[str]]:
        """Its own keys checked, and the overrides that are the recipe's."""
        own, rest = {}, []
        for override in overrides:
            key, _, value = override.partition("=")
            known = {*cls.model_fields, *Recipe.model_fields}
            if key.split(".")[0] not in known:
                raise UserError(f"{key}: there is no such option; {nearest(key, known)}")
            if key in cls.model_fields:
                own[key] = yaml.safe_load(value)
            else:
                rest.append(override)
        try:
            return cls(**own | {k: v for k, v in fixed.items() if v is not None})._checked(), rest
        except ValidationError as error:
            raise UserError(sentence(error, cls)) from error

    def _checked(self) -> CompareOptions:
        """Its rules exist, which is better known now than after an hour's training; it has one budget."""
        for rule in self.rules:
            Decoding(rule=None if rule == OWN else rule)
        if self.minutes and self.tokens:
            raise UserError(f"minutes={self.minutes:g}, tokens={self.tokens}: both are set; keep one budget")
        return self if self.minutes or self.tokens else self.model_copy(update={"minutes": 10.0})


@dataclass(frozen=True)
class Entrant:
    """A method as the user writes it: its label, its options, and what it changes in the recipe."""

    label: str
    spec: Spec
    overrides: tuple[str, ...]

    @classmethod
    def read(cls, text: str) -> Entrant:
        kind, options = _split(text.strip())
        spec: Spec = {"kind": kind}
        overrides = []
        for option in options:
            key, _, value = option.partition("=")
            if "." not in key:
                spec[key] = yaml.safe_load(value)
            elif key.startswith(("model.", "train.")):
                overrides.append(option)
            else:
                raise UserError(f"methods: {text!r} sets {key}; a single method may change model. and train. keys only")
        method_of(spec)
        return cls(text.strip(), spec, tuple(overrides))

    @property
    def exact(self) -> bool:
        """Whether its likelihood is exact, so that it can judge."""
        return method_of(self.spec).estimator(1).exact

    @property
    def slug(self) -> str:
        return re.sub(r"[^A-Za-z0-9.]+", "-", self.label).strip("-")


def _split(text: str) -> tuple[str, list[str]]:
    """kind and options; colons may also stand in `package.module:Class`, as a kind or as an option's value."""
    kind, options = [], []
    for part in text.split(":"):
        if "=" in part:
            options.append(part)
        elif options:
            options[-1] += ":" + part
        else:
            kind.append(part)
    return ":".join(kind), options


def entrants(methods: str, judge: str | None) -> list[Entrant]:
    """All that take part. Without a judge from elsewhere and without a method that can judge, autoregression joins."""
    found = [Entrant.read(text) for text in methods.split(",") if text.strip()]
    twice = [e.label for i, e in enumerate(found) if e.label in {other.label for other in found[:i]}]
    if twice or not found:
        raise UserError(f"methods: {twice[0]!r} is named twice; name it once" if twice else "methods: none is named")
    if judge is None and not any(e.exact for e in found):
        found.append(Entrant.read("autoregressive"))
    return found


@dataclass(frozen=True)
class Cell:
    """One model of the grid. recipe: complete but for its budget; folder: all that is known of it."""

    entrant: Entrant
    recipe: Recipe

    @property
    def folder(self) -> Path:
        return Path(self.recipe.out)

    @property
    def name(self) -> str:
        return f"{self.entrant.label}, seed {self.recipe.seed}"

    def keep(self, part: str, asked: Any, make: Callable[[], Facts]) -> Facts:
        """What is known of this part if the same was asked before, else found out now and kept."""
        path, asked = self.folder / f"{part}.json", json.loads(json.dumps(asked))
        if path.is_file() and (known := read_json(path)).get("asked") == asked:
            return dict(known["found"])
        began = time.perf_counter()
        found = make()
        known = {"asked": asked, "found": found, "seconds": round(time.perf_counter() - began, 1)}
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(known, indent=1), encoding="utf-8")
        os.replace(fresh, path)
        return found

    @property
    def seconds(self) -> float:
        """What everything that is known of it has taken."""
        return sum(float(read_json(path)["seconds"]) for path in self.folder.glob("*.json"))


def cells(
    who: Sequence[Entrant], options: CompareOptions, path: str | None, overrides: Sequence[str], out: Path, **fixed: Any
) -> list[Cell]:
    """The judge's row first, since the others need its word; then seed by seed, so that every method soon has one."""
    budget = next((o for o in overrides if o.partition("=")[0] in {f"train.{b}" for b in BUDGETS}), None)
    if budget:
        raise UserError(f"{budget}: the budget of a comparison is --minutes or tokens=; leave it out")
    none = [f"train.{b}=null" for b in BUDGETS]
    ordered = sorted(who, key=lambda e: not e.exact)
    seed = int(fixed.pop("seed", None) or 0)
    return [
        Cell(
            entrant,
            load_recipe(
                path,
                [*overrides, *none, *entrant.overrides],
                method=entrant.spec,
                out=str(out / "cells" / f"{entrant.slug}-seed{n}"),
                seed=n,
                **fixed,
            ),
        )
        for n in range(seed, seed + options.seeds)
        for entrant in ordered
    ]


# -- budgets


def budget(
    options: CompareOptions, all_cells: Sequence[Cell], corpus: Corpus, out: Path, tell: Callable[[str], None]
) -> Facts:
    """{"tokens": n} or {"minutes": m} for every cell: decided once for the folder, kept in plan.json."""
    path = out / "plan.json"
    asked = {"minutes": options.minutes, "tokens": options.tokens, "equal": options.equal}
    if path.is_file():
        plan = read_json(path)
        if plan["asked"] != asked:
            was = ", ".join(f"{k}={v}" for k, v in plan["asked"].items() if v is not None)
            raise UserError(f"out: {out} holds a comparison with {was}; ask for the same, or choose another --out")
        return dict(plan["budget"])
    chosen: Facts = {"tokens": options.tokens} if options.tokens else {"minutes": options.minutes}
    if options.minutes and options.equal == "tokens":
        firsts = {cell.entrant.label: cell for cell in reversed(all_cells)}.values()
        tell(f"measuring the speed of {len(firsts)} methods")
        seconds = [1 / speed(cell.recipe, corpus, min(PROBE, 6 * options.minutes)) for cell in firsts]
        step = all_cells[0].recipe.train.batch * all_cells[0].recipe.length
        tokens = 60 * options.minutes * len(seconds) / sum(seconds)
        chosen = {"tokens": max(1, round(tokens / step)) * step}
    path.write_text(json.dumps({"asked": asked, "budget": chosen}), encoding="utf-8")
    return chosen


def speed(recipe: Recipe, corpus: Corpus, seconds: float) -> float:
    """Tokens a second in training, measured by training a model that is thrown away."""
    network = fresh(recipe, len(corpus.tokenizer))
    method, symbols = recipe.build_method(), symbols_of(corpus.tokenizer, network.config.vocab)
    changes = {"minutes": seconds / 60, "save_every": 1 << 30, "log_every": 1 << 30, "log_to": []}
    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(
            method.denoiser(network, symbols),
            method.objective(symbols),
            corpus.loader(recipe, rank=0, world=1, whole=recipe.data.whole),
            recipe.build_plan(),
            recipe.train.model_copy(update=changes),
            Path(scratch),
            accelerator=accelerate_for(recipe),
            seed=recipe.seed,
            quiet=True,
        )
        return trainer.run().tokens_per_second

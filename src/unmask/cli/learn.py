"""Verbs that train: train, tune, compare, demo."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from .app import app, say
from .options import Device, Dtype, Json, Quiet, Seed
from .words import recipe_and_overrides


@app.command()
def train(
    words: Annotated[list[str] | None, typer.Argument(metavar="[RECIPE] [KEY=VALUE]...", show_default=False)] = None,
    out: Annotated[str | None, typer.Option(help="Folder of the run.")] = None,
    seed: Seed = None,
    device: Device = None,
    dtype: Dtype = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a model from nothing (or from base=MODEL on plain text).

    RECIPE is a YAML file or the name of a packaged recipe (`unmask info recipes`); without one the defaults train a
    small masked model on the Python standard library. Keys: data.source, model.width, method.kind, train.minutes, ...
    Type the same command again to go on with a run that was stopped.
    """
    from ..run import train as run

    _train(run, words, as_json, quiet, out=out, seed=seed, device=device, dtype=dtype)


@app.command()
def tune(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[RECIPE] base=MODEL data.source=CHATS [KEY=VALUE]...")
    ] = None,
    out: Annotated[str | None, typer.Option(help="Folder of the run.")] = None,
    seed: Seed = None,
    device: Device = None,
    dtype: Dtype = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fine-tune a saved model on conversations (JSON lines of {"messages": [...]}).

    Every assistant turn is learnt; prompts are shown as they are and cost nothing. End of text: each assistant turn
    ends with its end-of-turn token, which is learnt, and after the last one up to tune.pad_answers end-of-text tokens
    are learnt too, so that a canvas longer than the answer learns to end. Generation stops at the first end that has
    everything before it written. tune.lora.rank=16 trains low-rank adapters and merges them at the end.
    """
    from ..run import tune as run

    _train(run, words, as_json, quiet, out=out, seed=seed, device=device, dtype=dtype)


def _train(run: Any, words: list[str] | None, as_json: bool, quiet: bool, **fixed: Any) -> None:
    from ..recipe import load_recipe

    named, overrides = recipe_and_overrides(words)
    recipe = load_recipe(named, overrides, **fixed)
    result = run(recipe, quiet=quiet or as_json)
    found = result.as_dict()
    if result.summary.interrupted:
        say(found, as_json, lambda: f"stopped at step {found['steps']}; the same command goes on from there")
        raise typer.Exit(130)
    say(found, as_json, lambda: _trained(found))


def _trained(found: dict[str, Any]) -> str:
    kind = "exact" if found["exact"] else f"bound, +- {found['stderr']:.3f}"
    return (
        f"{found['model']}: {found['parameters'] / 1e6:.2f}M parameters, {found['tokens']:,} tokens in "
        f"{found['seconds']:.0f} s, validation {found['bits_per_byte']:.3f} bits/byte ({kind})"
    )


@app.command()
def compare(
    words: Annotated[list[str] | None, typer.Argument(metavar="[RECIPE] [KEY=VALUE]...", show_default=False)] = None,
    data: Annotated[str | None, typer.Option(help="Text to learn: a file, folder, glob, JSON lines, hf:NAME.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Training time a method and seed, on average. [10]")] = None,
    methods: Annotated[str | None, typer.Option(help="Like autoregressive,masked,block:size=4. [all]")] = None,
    seeds: Annotated[int | None, typer.Option(help="Models of each method. [1]")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the report and of all models.")] = Path("comparison"),
    seed: Seed = None,
    device: Device = None,
    dtype: Dtype = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train every method on your text with one transformer and one budget, and write a report that sets them side by
    side: bits per byte, quality against network passes, speed, filled gaps, reversal.

    All methods get the same number of tokens: as many as take --minutes on average over the methods, whose speeds are
    measured first (equal=time gives each the minutes instead, tokens=N says the number). A method's options stand
    behind colons: block:size=4, masked:train.ema=0.999, my_package.my_module:MyMethod. Keys: tokens, equal, judge,
    samples, prompt, write, passes, rules, temperature, gaps, gap_tokens, facts, facts_tokens, and all of `unmask
    train`. Type the same command again to go on with a comparison that was stopped.
    """
    from ..comparing import run
    from ..grid import CompareOptions

    named, overrides = recipe_and_overrides(words)
    if data is not None:
        overrides.append(f"data.source={data}")
    options, rest = CompareOptions.of(overrides, minutes=minutes, methods=methods, seeds=seeds)
    report = run(options, named, rest, out, quiet=quiet or as_json, seed=seed, device=device, dtype=dtype)
    say({"rows": report.as_dict()["rows"]}, as_json, report.markdown)


@app.command()
def demo(
    words: Annotated[list[str] | None, typer.Argument(metavar="[RECIPE] [KEY=VALUE]...", show_default=False)] = None,
    minutes: Annotated[float | None, typer.Option(help="Training time of each of the two models. [2]")] = None,
    out: Annotated[Path, typer.Option(help="Folder of everything the demo makes.")] = Path("demo"),
    seed: Seed = None,
    device: Device = None,
    dtype: Dtype = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a masked and an autoregressive model of one size; compare them, fill a gap, write, leave a replay.

    On the Python standard library, or on a text of yours: data.source=FILE. RECIPE and keys as for `unmask train`.
    """
    from ..demo import run

    named, overrides = recipe_and_overrides(words)
    budget = [] if minutes is None else [f"train.minutes={minutes}"]
    fixed = {"seed": seed, "device": device, "dtype": dtype}
    found = run(out, named or "demo", [*overrides, *budget], quiet=quiet or as_json, **fixed)
    if as_json:
        print(json.dumps(found))

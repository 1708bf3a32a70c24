"""Verbs about a model: info, convert, bench."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .app import app, say
from .options import Device, Dtype, File, Json, Seed
from .words import recipe_and_overrides


@app.command()
def info(
    what: Annotated[str | None, typer.Argument(metavar="[MODEL | recipes | keys]")] = None,
    device: Device = None,
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """What this machine offers; what a saved model is; which recipes come along; which keys every command takes."""
    from ..writing import Place, describe

    found = describe(what, Place.of({"device": device or "auto", "dtype": dtype or "auto"}))
    say(found, as_json, lambda: "\n".join(f"{key}: {value}" for key, value in found.items()))


@app.command()
def convert(
    model: Annotated[str, typer.Argument(metavar="SRC", help="A folder, or owner/name on the Hugging Face hub.")],
    out: Annotated[Path, typer.Argument(metavar="DST", help="The folder to write.")],
    to: Annotated[str | None, typer.Option(help="A family's own layout: llama, qwen3, gpt2, llada, dream, ...")] = None,
    as_json: Json = False,
) -> None:
    """Bring a published checkpoint into a folder of ours, or with --to write a model under a family's own names.

    An autoregressive model (Llama, Qwen, GPT-2) gets room for a mask, so that `unmask tune base=DST method.kind=masked`
    makes a diffusion model of it. A model that came from a family goes back to it bit for bit.
    """
    from ..convert import convert as run

    found = run(model, out, to)
    tail = "" if found["tokenizer"] else "; there was no tokenizer to take along"
    say(found, as_json, lambda: f"{out}: {found['from']} as {found['to']}, {found['parameters']:,} parameters{tail}")


@app.command()
def bench(
    words: Annotated[list[str] | None, typer.Argument(metavar="[MODEL] [KEY=VALUE]...", show_default=False)] = None,
    recipe: File = None,
    seed: Seed = None,
    device: Device = None,
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Time how fast a model writes, beside the autoregressive model of the same shape in `transformers`.

    MODEL is small or large (random weights), or a saved model. Keys: ways (presets and rules), caches, batches, dtypes,
    each a list like none,dual; prompt, tokens, text (a file of prompts), rounds, peer, block_causal, and those of
    `generate`: block, steps, threshold, ... Tokens/s count what is written up to the end of text, none behind it; the
    speedup is against `transformers`; a pass: tokens of one text that a network pass writes, on average.
    """
    from rich.console import Console

    from ..bench import BenchOptions, run, tables
    from ..recipe import read_tree

    model, overrides = recipe_and_overrides(words, "model")
    options = read_tree(recipe, overrides, model=model, seed=seed, device=device, dtypes=dtype)
    cases = run(BenchOptions.of(options))
    if as_json:
        print(json.dumps({"cases": [case.as_dict() for case in cases]}))
    else:
        Console(highlight=False).print(*tables(cases))

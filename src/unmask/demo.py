"""The main job in a few minutes: two models of one size on real text, a number for each, a filled gap, a replay."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from .corpus import prepare
from .data.sources import load_documents
from .errors import UserError
from .lm import LanguageModel, Text, load
from .recipe import load_recipe
from .run import Result, train
from .show.replay import Recorder
from .training.progress import plot_losses, read_metrics
from .writing import save_replay

METHODS = ("masked", "autoregressive")


def run(out: Path, minutes: float, seed: int, *, quiet: bool) -> dict[str, Any]:
    """Train both, compare, fill, write; leaves replay.html and loss.png in `out`."""
    console = Console(quiet=quiet, highlight=False)
    console.print("[bold]Reading and tokenising the Python standard library ...[/]")
    recipes = {
        m: load_recipe("demo", [f"train.minutes={minutes}"], method={"kind": m}, out=str(out / m), seed=seed)
        for m in METHODS
    }
    corpus = prepare(recipes["masked"])
    console.print(f"Training each model for {minutes:g} minutes.")
    results: dict[str, Result] = {}
    for method, recipe in recipes.items():
        results[method] = train(recipe, corpus=corpus, quiet=quiet, title=method)
        if results[method].summary.interrupted:
            raise KeyboardInterrupt  # the training is saved: the same command goes on from there
    curves = {m: read_metrics(out / m / "metrics.jsonl") for m in METHODS}
    plotted = plot_losses(curves, out / "loss.png")
    console.print(_table(results))

    lm = load(out / "masked")
    recorders = Recorder(), Recorder()
    filled, truth = _fill(lm, recorders[0], seed)
    written = lm.generate(
        "import os\n\ndef ", max_tokens=64, block=32, temperature=0.7, seed=seed, observe=recorders[1]
    )
    save_replay(out / "replay.html", lm, [(recorders[0], filled), (recorders[1], written)])
    console.print(f"[bold]A gap in a real function, filled by the masked model[/] (it was: {truth!r})")
    console.print(filled.text, markup=False)
    console.print("[bold]A few lines of its own[/]")
    console.print("import os\n\ndef " + written.text, markup=False)
    console.print(
        f"Watch both appear: {out / 'replay.html'}" + (f"; loss curves: {out / 'loss.png'}" if plotted else "")
    )
    return {
        "models": {m: r.as_dict() for m, r in results.items()},
        "fill": {"text": filled.text, "gaps": filled.gaps, "truth": truth},
        "generate": written.text,
        "replay": str(out / "replay.html"),
    }


def _fill(lm: LanguageModel, recorder: Recorder, seed: int) -> tuple[Text, str]:
    """A function the model has not seen, with what it returns cut out; the gap is as long as what was there."""
    head, truth = held_out_function(load_documents("stdlib", part="valid"))
    tokens = len(lm.tokenizer.encode(truth))
    return lm.fill(head, "\n", tokens=tokens, seed=seed, observe=recorder), truth


def held_out_function(texts: Iterable[str]) -> tuple[str, str]:
    """The first short function that ends in `return <expression>`: everything before the expression, and it."""
    for text in texts:
        for node in ast.walk(ast.parse(text)):
            last = node.body[-1] if isinstance(node, ast.FunctionDef) and node.col_offset == 0 else None
            if isinstance(last, ast.Return) and last.value is not None:
                source = ast.get_source_segment(text, node) or ""
                truth = ast.get_source_segment(text, last.value) or ""
                if 120 < len(source) < 400 and 6 < len(truth) < 40 and source.endswith(truth) and ">>>" not in source:
                    return source.removesuffix(truth), truth
    raise UserError("data: no short function in the validation files of this Python; try another Python version")


def _table(results: dict[str, Result]) -> Table:
    table = Table(title="The same network, data and time; bits per byte on files it has not seen")
    for column in ("method", "parameters", "tokens seen", "tokens/s", "bits/byte"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for method, result in results.items():
        assert result.score is not None
        bits = f"{result.score.bits_per_byte:.3f}"
        if not result.score.exact:
            bits = f"<= {bits} +- {result.score.bits_per_byte_stderr:.3f}"
        s = result.summary
        row = (method, f"{result.parameters / 1e6:.2f}M", f"{s.tokens:,}", f"{s.tokens_per_second:,.0f}", bits)
        table.add_row(*row)
    return table

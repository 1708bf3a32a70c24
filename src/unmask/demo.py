"""The main job in a few minutes: two models of one size on real text, a number for each, a filled gap, a replay."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from .corpus import prepare
from .lm import load
from .recipe import load_recipe
from .run import Result, train
from .show.replay import Recorder
from .training.progress import plot_losses, read_metrics
from .writing import save_replay

METHODS = ("masked", "autoregressive")
PROMPT = "import os\n\ndef "  # on the standard library


def run(out: Path, path: str, overrides: Sequence[str], *, quiet: bool, **fixed: Any) -> dict[str, Any]:
    """Train both, compare, fill, write; leaves replay.html and loss.png in `out`."""
    console = Console(quiet=quiet, highlight=False)
    recipes = {m: load_recipe(path, overrides, method={"kind": m}, out=str(out / m), **fixed) for m in METHODS}
    recipe = recipes["masked"]
    source = recipe.data.source
    console.print(
        f"[bold]Reading and tokenising {'the Python standard library' if source == 'stdlib' else source} ...[/]"
    )
    corpus = prepare(recipe)
    kind, size = recipe.train.budget
    console.print(f"Training each model for {size:g} {kind}.")
    results: dict[str, Result] = {}
    for method, each in recipes.items():
        results[method] = train(each, corpus=corpus, quiet=quiet, title=method)
        if results[method].summary.interrupted:
            raise KeyboardInterrupt  # the training is saved: the same command goes on from there
    curves = {m: read_metrics(out / m / "metrics.jsonl") for m in METHODS}
    plotted = plot_losses(curves, out / "loss.png")
    console.print(_table(results))

    lm = load(out / "masked", device=recipe.device, dtype=recipe.dtype)
    recorders = Recorder(), Recorder()
    spell, encode = lm.tokenizer.decode, lm.tokenizer.encode_plain
    head, truth, tail = gap_in([spell(corpus.valid.document(i)) for i in range(corpus.valid.n_documents)])
    tokens = len(encode(truth))
    head = spell(encode(head)[-(lm.context - tokens - len(encode(tail))) :])
    filled = lm.fill(head, tail, tokens=tokens, seed=recipe.seed, observe=recorders[0])
    prompt = PROMPT if source == "stdlib" else head[:40]
    most = min(64, lm.context - len(encode(prompt)))
    # the process itself, backwards: the surest first would be a page of line ends from a model this young
    options = {"max_tokens": most, "rule": "ancestral", "temperature": 0.8, "seed": recipe.seed}
    written = lm.generate(prompt, **options, observe=recorders[1])
    save_replay(out / "replay.html", lm, [(recorders[0].frames(), filled), (recorders[1].frames(), written)])
    console.print(f"[bold]A gap in a text it has not seen, filled by the masked model[/] (it was: {truth!r})")
    console.print(filled.text, markup=False)
    console.print("[bold]A few lines of its own[/]")
    console.print(prompt + written.text, markup=False)
    console.print(
        f"Watch both appear: {out / 'replay.html'}" + (f"; loss curves: {out / 'loss.png'}" if plotted else "")
    )
    return {
        "models": {m: r.as_dict() for m, r in results.items()},
        "fill": {"text": filled.text, "gaps": filled.gaps, "truth": truth},
        "generate": written.text,
        "replay": str(out / "replay.html"),
    }


def gap_in(texts: Sequence[str]) -> tuple[str, str, str]:
    """What stands before a gap, in it and behind it: what a function returns, or, in other texts, a few words."""
    found = held_out_function(texts)
    if found is not None:
        return (*found, "\n")
    words = re.findall(r"\s*\S+", max(texts, key=len)[:300])
    middle = len(words) // 2
    parts = words[:middle], words[middle : middle + 3], words[middle + 3 :]
    return "".join(parts[0]), "".join(parts[1]) or " ", "".join(parts[2])


def held_out_function(texts: Iterable[str]) -> tuple[str, str] | None:
    """The first short function that ends in `return <expression>`: everything before the expression, and it."""
    for text in texts:
        for node in _functions(text):
            last = node.body[-1]
            if isinstance(last, ast.Return) and last.value is not None:
                source = ast.get_source_segment(text, node) or ""
                truth = ast.get_source_segment(text, last.value) or ""
                if 120 < len(source) < 400 and 6 < len(truth) < 40 and source.endswith(truth) and ">>>" not in source:
                    return source.removesuffix(truth), truth
    return None


def _functions(text: str) -> list[ast.FunctionDef]:
    """At the left margin; none where the text is no Python."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return []
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.col_offset == 0]


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

"""Reversal on Tang couplets: read line after line, asked for the line after, and for the line before.

    python studies/poems.py DATA_FOLDER --couplets 1000 --tokens 2000000

DATA_FOLDER holds poems_train.jsonl.gz (first, second, train_direction: forward or both). A couplet is told as its first
line and then its second, half of them the other way round too, behind another sign, so that both models know what is
meant by asking for the line before. Couplets told forward only are then asked in both directions, and the masked model
for the first line as a gap in the text it has read. LLaDA (arXiv 2502.09992, section 3.3) asks a large model the same.
Writes OUT/poems.md, .png and .json; --tokens is the budget of each model. A stopped study goes on where it was.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from pages import COLOURS, panels, table, write

import unmask
from unmask.data import files
from unmask.evaluation.reversal import Answer, Question, ask, exact_match
from unmask.recipe import load_recipe
from unmask.run import train

AFTER, BEFORE = "後", "前"  # what a text begins with: its lines in order, or the other way round
MODEL = ("model.width=192", "model.layers=2", "model.heads=4", "model.hidden=512", "model.context=32")
METHODS = ("autoregressive", "masked")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--couplets", type=int, default=1000, help="that are read, half of them told forward only")
    parser.add_argument("--asked", type=int, default=200, help="of those told forward only")
    parser.add_argument("--tokens", type=int, default=2_000_000, help="training of each model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run", type=Path, default=Path("runs/poems"), help="the models' folder")
    parser.add_argument("--out", type=Path, default=Path("docs/studies"))
    a = parser.parse_args()
    couplets = read(a.data / "poems_train.jsonl.gz", a.couplets)
    a.run.mkdir(parents=True, exist_ok=True)
    corpus = a.run / "couplets.jsonl"
    told = [text for row in couplets for text in tellings(row)]
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in told), encoding="utf-8")
    forward = [row for row in couplets if row["train_direction"] == "forward"][: a.asked]
    both = [row for row in couplets if row["train_direction"] == "both"][: a.asked]
    answers = {method: answered(method, corpus, forward, both, a) for method in METHODS}
    found = {method: shares(some) for method, some in answers.items()}
    write(a.out, "poems", page(found, a), picture(found), found)


def read(path: Path, n: int) -> list[dict[str, str]]:
    """The first couplets of either kind, n / 2 each."""
    rows = [row for _, row in files.read_rows(path)]
    return [row for kind in ("forward", "both") for row in [r for r in rows if r["train_direction"] == kind][: n // 2]]


def tellings(row: dict[str, str]) -> list[str]:
    forward, backward = f"{AFTER}{row['first']}，{row['second']}", f"{BEFORE}{row['second']}，{row['first']}"
    return [forward, backward] if row["train_direction"] == "both" else [forward]


def questions(row: dict[str, str], number: int, gap: bool) -> list[Question]:
    """The line after, the line before, and the line before as a gap in what was read."""
    both = row["train_direction"] == "both"
    after, before = f"{AFTER}{row['first']}，{row['second']}", f"{BEFORE}{row['second']}，{row['first']}"
    found = [
        Question(number, "after", True, "prompt", after, after.index("，") + 1, len(after)),
        Question(number, "before", both, "prompt", before, before.index("，") + 1, len(before)),
    ]
    return found + [Question(number, "before", both, "gap", after, 1, after.index("，"))] * gap


def answered(
    method: str, corpus: Path, forward: list[dict[str, str]], both: list[dict[str, str]], a: argparse.Namespace
) -> list[Answer]:
    overrides = [
        *(f"data.source={corpus}", f"data.valid={corpus}", "data.whole=true", f"train.tokens={a.tokens}"),
        *("tokenizer.kind=bpe", "tokenizer.vocab_size=8192", *MODEL, "train.batch=32", "train.save_every=1000"),
        *("train.optimizer.kind=muon", "train.optimizer.weight_decay=0.1"),
    ]
    recipe = load_recipe(None, overrides, method={"kind": method}, out=str(a.run / method), seed=a.seed)
    result = train(recipe, title=method)
    if result.summary.interrupted:
        raise SystemExit(f"{method}: stopped at step {result.summary.steps}; the same command goes on from there")
    rows = [*forward, *both]
    gap = method != "autoregressive"  # it sees nothing behind a gap
    return ask(unmask.load(result.folder).subject, [q for i, row in enumerate(rows) for q in questions(row, i, gap)])


KINDS: dict[str, dict[str, Any]] = {
    "the line after, told": {"task": "after", "told": True},
    "the line before, told": {"task": "before", "told": True, "way": "prompt"},
    "the line before, never told": {"task": "before", "told": False, "way": "prompt"},
    "the line before, as a gap": {"task": "before", "told": False, "way": "gap"},
}


def shares(answers: list[Answer]) -> dict[str, dict[str, int]]:
    counted = {name: exact_match(answers, **kind) for name, kind in KINDS.items()}
    return {name: {"right": share.right, "n": share.n} for name, share in counted.items()}


def picture(found: dict[str, dict[str, dict[str, int]]]) -> Any:
    figure, axes = panels(1)
    for i, (method, by_kind) in enumerate(found.items()):
        known = [(j, share["right"] / share["n"]) for j, share in enumerate(by_kind.values()) if share["n"]]
        axes[0].bar([j + 0.4 * i for j, _ in known], [100 * s for _, s in known], 0.38, color=COLOURS[i], label=method)
    axes[0].set_xticks([j + 0.2 for j in range(len(KINDS))], list(KINDS), fontsize=8)
    axes[0].set(ylabel="right, %", ylim=(0, 100))
    axes[0].legend(frameon=False)
    return figure


def page(found: dict[str, dict[str, dict[str, int]]], a: argparse.Namespace) -> str:
    lines = [(kind, *(_share(found[method][kind]) for method in found)) for kind in KINDS]
    return f"""
# Reversal on Tang couplets

{a.couplets} couplets read, half of them in both directions, by two models of one size for {a.tokens:,} tokens each;
greedy, one token a step, exact match of the whole line.

![exact match by kind of question](poems.png)

{table(("exact match", *found), lines)}

```
python studies/poems.py DATA_FOLDER --couplets {a.couplets} --asked {a.asked} --tokens {a.tokens}
```
"""


def _share(share: dict[str, int]) -> str:
    return f"{share['right'] / share['n']:.3f} of {share['n']}" if share["n"] else "-"


if __name__ == "__main__":
    main()

"""Fewer network passes at equal quality: how many a rule can leave out before the text gets worse.

    unmask compare --data TEXT --methods autoregressive,masked --out FOLDER "rules=[ancestral,own,entropy]"
    python studies/fewer_passes.py FOLDER

Quality is the judge's score AND the entropy of the text: fewer passes count only where the judge's nats are within 5 %
of the same model's at a token a pass, and the entropy is no more than 2 % lower. Reads what the comparison left, so its
budget is the comparison's (--minutes). Writes OUT/fewer_passes.md, .png, .json.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pages import COLOURS, panels, report, table, what, write

Row = dict[str, Any]
WORSE, DULLER = 1.05, 0.98  # how much of the judge's nats, and of the entropy, is still equal quality
STYLES = ("-", "--", ":", "-.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", type=Path, help="the folder of `unmask compare`")
    parser.add_argument("--out", type=Path, default=Path("docs/studies"))
    a = parser.parse_args()
    found = report(a.comparison)
    rows = [row for row in found["rows"] if len(judged(row)) > 1]
    if not rows:
        parser.exit(
            2, f"{a.comparison}: no method wrote at more than one pace with a judge; compare with passes=[1,2,4,8]\n"
        )
    lines = [saved(row, rule) for row in rows for rule in rules(row)]
    write(a.out, "fewer_passes", page(lines, found["facts"]), picture(rows, found["real_text"]), lines)


def judged(row: Row) -> list[Row]:
    return [point for point in row["quality"] if point["judge_nats"] is not None]


def rules(row: Row) -> list[str]:
    return list(dict.fromkeys(point["rule"] for point in judged(row)))


def saved(row: Row, rule: str) -> Row:
    """The fewest passes by this rule that are as good as the model's slowest way, the first that it was asked for, and
    how many times fewer they are."""
    slowest, points = judged(row)[0], [p for p in judged(row) if p["rule"] == rule]
    equal = [
        p
        for p in points
        if p["judge_nats"] <= WORSE * slowest["judge_nats"] and p["entropy"] >= DULLER * slowest["entropy"]
    ]
    fewest = min(equal, key=lambda p: p["passes"], default=None)
    times = slowest["passes"] / fewest["passes"] if fewest else None
    return {"method": row["method"], "rule": rule, "slowest": slowest, "fewest": fewest, "times": times}


def picture(rows: list[Row], real: dict[str, float] | None) -> Any:
    figure, axes = panels(2)
    names = list(dict.fromkeys(rule for row in rows for rule in rules(row)))
    for i, row in enumerate(rows):
        for rule in rules(row):
            points = [p for p in judged(row) if p["rule"] == rule]
            for ax, figure_of in zip(axes, ("judge_nats", "entropy")):
                style: Any = {"color": COLOURS[i % len(COLOURS)], "linestyle": STYLES[names.index(rule) % len(STYLES)]}
                ax.plot([p["passes"] for p in points], [p[figure_of] for p in points], marker="o", markersize=3,
                        label=f"{row['method']}, {rule}", **style)  # fmt: skip
    if real:
        axes[1].axhline(real["entropy"], color="#1f2428", alpha=0.5, linestyle=":", label="real text")
    for ax, label in zip(axes, ("judge's nats a token, lower is likelier", "entropy of a text's tokens, nats")):
        ax.set(xlabel="network passes a text", ylabel=label, xscale="log")
    axes[1].legend(frameon=False, fontsize=7)
    return figure


def page(lines: list[Row], facts: dict[str, str]) -> str:
    best = max((line for line in lines if line["times"]), key=lambda line: line["times"], default=None)
    verdict = (
        f"The most is {best['times']:.1f} times fewer: {best['method']} by {best['rule']}." if best else "None is."
    )
    heads = (
        "method",
        "rule",
        "passes",
        "judge, nats",
        "entropy",
        "fewest as good",
        "judge, nats",
        "entropy",
        "times fewer",
    )
    return f"""
# Fewer passes at equal quality

Each model writes after the same prompts, from a token a pass to many. As good means: the judge's nats a token within
5 % of the same model's slowest way, at an entropy no more than 2 % lower. Neither is worth anything alone: text that
repeats itself is cheap for a judge.

![judge and entropy against passes](fewer_passes.png)

{table(heads, map(_line, lines))}

{verdict}

{what(facts)}

```
unmask compare --data TEXT --methods {",".join(dict.fromkeys(line["method"] for line in lines))} --out FOLDER
python studies/fewer_passes.py FOLDER
```
"""


def _line(line: Row) -> tuple[str, ...]:
    points = (line["slowest"], line["fewest"])
    cells = [
        ("", "", "") if p is None else (f"{p['passes']:.1f}", f"{p['judge_nats']:.3f}", f"{p['entropy']:.3f}")
        for p in points
    ]
    return (line["method"], line["rule"], *cells[0], *cells[1], f"{line['times']:.1f}" if line["times"] else "none")


if __name__ == "__main__":
    main()

"""Score entropy against continuous diffusion: SEDD reports 25 to 75 % lower perplexity (arXiv 2310.16834, table 1).

    unmask compare --data TEXT --methods autoregressive,masked,sedd,continuous --out FOLDER
    python studies/score_entropy.py FOLDER

Reads what the comparison left, so its budget is the comparison's (--minutes). Writes OUT/score_entropy.md, .png, .json.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pages import COLOURS, panels, report, table, what, write

Row = dict[str, Any]
PUBLISHED = 0.25  # the least that SEDD's perplexity lies below continuous models'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", type=Path, help="the folder of `unmask compare`")
    parser.add_argument("--out", type=Path, default=Path("docs/studies"))
    a = parser.parse_args()
    found = report(a.comparison)
    rows = sorted(found["rows"], key=lambda row: row["bits_per_byte"])
    kinds = {row["method"].split(":")[0] for row in rows}
    if not {"sedd", "continuous"} <= kinds:
        parser.exit(2, f"{a.comparison}: compare sedd and continuous, and what else you like\n")
    write(a.out, "score_entropy", page(rows, found["facts"]), picture(rows), [row | {"texts": []} for row in rows])


def picture(rows: list[Row]) -> Any:
    figure, axes = panels(1, height=0.9 + 0.42 * len(rows))
    for i, row in enumerate(reversed(rows)):
        axes[0].barh(i, row["perplexity"], color=COLOURS[i % len(COLOURS)])
        axes[0].annotate(
            f"{row['perplexity']:.1f}", (row["perplexity"], i), (4, 0), textcoords="offset points", va="center"
        )
    axes[0].set_yticks(range(len(rows)), [row["method"] for row in reversed(rows)])
    axes[0].set(xlabel="perplexity a token of held-out text, or its bound; lower is better", xscale="log")
    return figure


def page(rows: list[Row], facts: dict[str, str]) -> str:
    lines = [
        (row["method"], ("" if row["exact"] else "≤ ") + f"{row['perplexity']:.1f}", f"{row['bits_per_byte']:.4f}",
         f"{row['stderr']:.4f}")
        for row in rows
    ]  # fmt: skip
    score, vector = (next(row for row in rows if row["method"].startswith(kind)) for kind in ("sedd", "continuous"))
    below = 1 - score["perplexity"] / vector["perplexity"]
    return f"""
# Score entropy against continuous diffusion

Noise on tokens, learnt by score entropy, against noise on their embeddings, on the same text with the same
transformer. Published: SEDD's perplexity lies 25 to 75 % below that of continuous models.

![perplexity of each method](score_entropy.png)

{table(("method", "perplexity", "bits/byte", "s.e."), lines)}

Here {score["method"]} lies {below:.0%} below {vector["method"]}: {"as" if below >= PUBLISHED else "not as"} published.

{what(facts)}

```
unmask compare --data TEXT --methods {",".join(row["method"] for row in rows)} --out FOLDER
python studies/score_entropy.py FOLDER
```
"""


if __name__ == "__main__":
    main()

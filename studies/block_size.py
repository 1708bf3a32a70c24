"""Block size interpolates between autoregressive and masked models (BD3-LM, arXiv 2503.09573, tables 3 and 4).

    unmask compare --data TEXT --methods autoregressive,block:size=4,block:size=16,masked --out FOLDER
    python studies/block_size.py FOLDER

Reads what the comparison left, so its budget is the comparison's (--minutes). Writes OUT/block_size.md, .png, .json.
"""

from __future__ import annotations

import argparse
import math
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

from pages import COLOURS, panels, report, table, what, write

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", type=Path, help="the folder of `unmask compare`")
    parser.add_argument("--out", type=Path, default=Path("docs/studies"))
    a = parser.parse_args()
    found = report(a.comparison)
    told = re.search(r"rows of (\d+) tokens", found["facts"]["model"])
    length = int(told[1]) if told else 256  # where masked models stand
    rows = sorted(
        ((size, row) for row in found["rows"] if (size := size_of(row["method"], length))), key=lambda x: x[0]
    )
    if len(rows) < 3:
        parser.exit(2, f"{a.comparison}: compare autoregressive, masked and at least one block:size=N\n")
    write(a.out, "block_size", page(rows, found["facts"]), picture(rows), [row | {"texts": []} for _, row in rows])


def size_of(method: str, length: int) -> int | None:
    """Tokens written together; None for what is not on this line."""
    kind, *options = method.split(":")
    if kind == "block" and len(options) == 1 and options[0].startswith("size="):
        return int(options[0].removeprefix("size="))
    return {"autoregressive": 1, "masked": length}.get(method)


def picture(rows: list[tuple[int, Row]]) -> Any:
    figure, axes = panels(1)
    sizes, bits = [size for size, _ in rows], [row["bits_per_byte"] for _, row in rows]
    axes[0].errorbar(sizes, bits, yerr=[2 * row["stderr"] for _, row in rows], marker="o", capsize=4, color=COLOURS[0])
    axes[0].set(xscale="log", xlabel="tokens of a block", ylabel="bits per byte, held-out (bars: two standard errors)")
    axes[0].set_xticks(sizes, [f"{size}\n{row['method'].split(':')[0]}" for size, row in rows])
    axes[0].minorticks_off()
    return figure


def page(rows: list[tuple[int, Row]], facts: dict[str, str]) -> str:
    lines = [
        (row["method"], f"{size}", f"{row['bits_per_byte']:.4f}", f"{row['stderr']:.4f}", _perplexity(row),
         f"{row['tokens_per_second']:,.0f}")
        for size, row in rows
    ]  # fmt: skip
    steps = [_step(one, other) for (_, one), (_, other) in pairwise(rows)]
    return f"""
# Block size: from autoregressive to masked

A block of one token is an autoregressive model, a block as long as the text a masked one; the bound should loosen in
between (BD3-LM: perplexity 22.8, 28.2, 30.6 and 31.8 on LM1B for autoregressive, blocks of 4 and 16, and masked).

![bits per byte against block size](block_size.png)

{table(("method", "block", "bits/byte", "s.e.", "perplexity", "train tokens/s"), lines)}

{chr(10).join(steps)}

Measured once, with one transformer and one budget:

{what(facts)}

```
unmask compare --data TEXT --methods {",".join(row["method"] for _, row in rows)} --out FOLDER
python studies/block_size.py FOLDER
```
"""


def _perplexity(row: Row) -> str:
    return f"{row['perplexity']:.1f}" if row.get("perplexity") else ""


def _step(one: Row, other: Row) -> str:
    gap, error = other["bits_per_byte"] - one["bits_per_byte"], math.hypot(one["stderr"], other["stderr"])
    holds = "as published" if gap > error else "not told apart" if gap > -error else "the other way round"
    return f"- {one['method']} to {other['method']}: {gap:+.4f} bits/byte, standard error {error:.4f}: {holds}"


if __name__ == "__main__":
    main()

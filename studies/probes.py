"""Information smoothness and frequency collapse ("On the Role of Discreteness in Diffusion LLMs", arXiv 2512.22630).

    python studies/probes.py MODEL TEXT --texts 64

MODEL is a masked model of `unmask train` (without one, the small model that comes with the package), TEXT anything
that `unmask train` reads, best what the model has not read. How many nats of the true tokens can be known as more and
more of a text is masked, and how unevenly; then what is predicted at each distance behind a prompt when all that
follows is masked: far away, is it only the most frequent tokens? Writes OUT/probes.md, .png and .json. Nothing is
trained; --texts is the budget.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from pages import COLOURS, panels, table, write

import unmask
from unmask.data.packing import windows
from unmask.data.sources import read
from unmask.data.store import TokenStore
from unmask.evaluation.infilling import stretches
from unmask.evaluation.probes import Distance, Level, by_distance, frequencies, smoothness

LEVELS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
BANDS = ((1, 1), (2, 2), (3, 4), (5, 8), (9, 16), (17, 32), (33, 64), (65, 128))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="[MODEL] TEXT", help="default: the packaged model, stdlib")
    parser.add_argument("--texts", type=int, default=64, help="texts that are looked at")
    parser.add_argument("--documents", type=int, default=200, help="of TEXT that are read")
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--prompt", type=int, default=32)
    parser.add_argument("--top", type=int, default=10, help="how many tokens count as the most frequent")
    parser.add_argument("--out", type=Path, default=Path("docs/studies"))
    a = parser.parse_args()
    *model, source = a.words or ["stdlib"]
    lm = unmask.load(model[0] if model else None)
    store = TokenStore.from_documents(lm.tokenizer.documents(islice(read(source), a.documents)))
    frequent = frequencies([store.tokens.tolist()], lm.denoiser.vocab)
    rows = windows(store, min(a.length, lm.context), batch=16, pad_id=lm.tokenizer.pad_id)
    levels = smoothness(lm.denoiser, list(islice(rows, -(-a.texts // 16))), frequent, LEVELS)
    texts = stretches(store, min(a.length, lm.context), a.texts, seed=0)
    distances = banded(by_distance(lm.denoiser, texts, a.prompt, frequent, a.top))
    found = {"model": lm.name, "source": source, "levels": [asdict(x) for x in levels], "distances": distances}
    write(a.out, "probes", page(levels, distances, lm.name, a), picture(levels, distances, a.top), found)


def banded(each: list[Distance]) -> list[dict[str, Any]]:
    """Means over distances that are alike."""
    out = []
    for low, high in BANDS:
        some = [asdict(d) for d in each if low <= d.distance <= high]
        if some:
            means = {name: sum(d[name] for d in some) / len(some) for name in some[0] if name != "distance"}
            out.append({"from": low, "to": some[-1]["distance"], **means})
    return out


def picture(levels: list[Level], distances: list[dict[str, Any]], top: int) -> Any:
    figure, axes = panels(2)
    shares = [level.level for level in levels]
    axes[0].plot(shares, [x.recovered for x in levels], marker="o", color=COLOURS[0], label="recovered")
    axes[0].plot(shares, [x.spread for x in levels], marker="s", color=COLOURS[1], label="spread over tokens")
    axes[0].set(xlabel="share of tokens masked", ylabel="nats a masked token", ylim=(0, None))
    at = [(d["from"] + d["to"]) / 2 for d in distances]
    lines = {"frequent": f"prediction among the {top} most frequent", "truly": "truth among them", "right": "right"}
    for (name, label), colour in zip(lines.items(), COLOURS):
        axes[1].plot(at, [100 * d[name] for d in distances], marker="o", color=colour, label=label)
    axes[1].set(xlabel="tokens behind the prompt", ylabel="% of texts", xscale="log", ylim=(0, 100))
    for ax in axes:
        ax.legend(frameon=False, fontsize=8)
    return figure


def page(levels: list[Level], distances: list[dict[str, Any]], name: str, a: argparse.Namespace) -> str:
    known = [(f"{x.level:g}", f"{x.nats:.3f}", f"{x.recovered:.3f}", f"{x.spread:.3f}") for x in levels]
    far = [
        (
            f"{d['from']}" if d["from"] == d["to"] else f"{d['from']}-{d['to']}",
            *(f"{d[k]:.1%}" for k in ("right", "frequent", "truly")),
            *(f"{d[k]:.2f}" for k in ("nats", "entropy")),
        )
        for d in distances
    ]
    source = Path(a.words[-1]).name if a.words else "the standard library, of which it has read most"
    return f"""
# Information smoothness and frequency collapse

What `{name}` knows of {a.texts} texts of {a.length} tokens of {source}.
Left: nats of a masked token that the visible ones recover, against what its frequency alone says, and how much that
differs from token to token at the same noise level. Right: with {a.prompt} tokens given and all others masked, the
likeliest token at each distance behind them.

![probes](probes.png)

{table(("masked", "nats of the true token", "recovered", "spread over tokens"), known)}

{table(("behind the prompt", "right", f"among the {a.top} most frequent", "truth among them", "nats", "entropy"), far)}

Where the spread over tokens is larger than what is recovered, a nominal level of noise says little of what a single
token has lost. Where many more predictions are among the most frequent tokens than true tokens are, predictions have
collapsed to frequency.

```
{" ".join(["python studies/probes.py", *["MODEL", "TEXT"][2 - len(a.words) :], f"--texts {a.texts}"])}
```
"""


if __name__ == "__main__":
    main()

"""Plug-in control: a small classifier of noisy vectors makes a continuous model write what is asked for.

    python studies/control.py DATA_FOLDER --minutes 10

DATA_FOLDER holds e2e_train.jsonl.gz (fields, text). A continuous model and, to judge it, an autoregressive one learn
the texts; a classifier learns to tell the value of one field from texts whose embeddings are noisy at every level. Then
texts are written for each value, pulled by the classifier's gradient with several strengths, 0 being none. Success: the
text names the value, as Diffusion-LM counts it (arXiv 2205.14217, section 6: 0.70 to 0.90 for most controls); beside it
how often true texts of that value do, the judge's nats a token and the texts' own entropy, never one without the
others. Writes OUT/control.md, .png, .json. A stopped study goes on where it was.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pages import COLOURS, panels, table, write
from torch import Tensor, nn

import unmask
from unmask.decoding.canvas import Row
from unmask.decoding.guide import Guide
from unmask.evaluation.judge import Judge, Verdict
from unmask.evaluation.samples import Variety
from unmask.lm import LanguageModel
from unmask.noise.draws import FromGenerator
from unmask.recipe import load_recipe
from unmask.run import train

MODEL = ("model.width=192", "model.layers=4", "model.heads=4", "model.context=96")
LONGEST = 64  # tokens of a text that is written


@dataclass(frozen=True)
class Told:
    """A text and the value of the field it tells of."""

    text: str
    value: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--field", default="food")
    parser.add_argument("--minutes", type=float, default=10, help="for each of the two models")
    parser.add_argument("--strengths", type=float, nargs="+", default=[0.0, 0.5, 1.0, 2.0])
    parser.add_argument("--texts", type=int, default=32, help="for each value and strength")
    parser.add_argument("--steps", type=int, default=100, help="of a text")
    parser.add_argument("--lessons", type=int, default=1500, help="batches that the classifier sees")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/control"))
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="overrides, as for `unmask train`")
    a = parser.parse_args()

    a.out.mkdir(parents=True, exist_ok=True)
    texts, told = read(a.data / "e2e_train.jsonl.gz", a.field)
    corpus = a.out / "texts.jsonl"
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    writer, judge = (learnt(a, corpus, kind) for kind in ("continuous", "autoregressive"))
    values = sorted({one.value for one in told})
    classifier, right = classify(writer, told, values, a.lessons, a.seed)
    found = [measured(writer, judge, classifier, values, told, strength, a) for strength in a.strengths]
    facts = {
        "field": a.field,
        "minutes": a.minutes,
        "values": values,
        "classifier": right,
        "true": named([(t.text, t.value) for t in told]),
    }
    write(a.out, "control", page(found, facts), picture(found, facts), {"facts": facts, "rows": found})


def read(path: Path, field: str) -> tuple[list[str], list[Told]]:
    """All texts, and those that tell of the field."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    told = [Told(row["text"], row["fields"][field]) for row in rows if field in row["fields"]]
    return [row["text"] for row in rows], told


def learnt(a: argparse.Namespace, corpus: Path, kind: str) -> LanguageModel:
    overrides = [
        *(f"data.source={corpus}", "tokenizer.kind=bpe", "tokenizer.vocab_size=1024", "train.batch=32"),
        *(*MODEL, f"train.minutes={a.minutes}", "train.save_every=500", *a.set),
    ]
    result = train(load_recipe(None, overrides, method={"kind": kind}, out=str(a.out / kind), seed=a.seed), title=kind)
    return unmask.load(result.folder)


class Classifier(nn.Module):
    """Which value a text of noisy vectors tells of: a hidden layer a position, their mean, the values."""

    def __init__(self, width: int, values: int, hidden: int = 256) -> None:
        super().__init__()
        self.each = nn.Sequential(nn.Linear(width + 1, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU())
        self.last = nn.Linear(hidden, values)

    def forward(self, x: Tensor, t: Tensor, real: Tensor) -> Tensor:
        """x (B, W, D), t and real (B, W) -> log-probabilities (B, values)."""
        hidden = self.each(torch.cat([x, t[..., None]], -1)) * real[..., None]
        return self.last(hidden.sum(1) / real.sum(1, keepdim=True).clamp(min=1)).log_softmax(-1)


def classify(
    lm: LanguageModel, told: list[Told], values: list[str], lessons: int, seed: int
) -> tuple[Classifier, dict[str, float]]:
    """The classifier, and its share of right answers on texts kept back, by noise level."""
    process, rng = lm.method.process(lm.symbols, lm.denoiser.network), random.Random(seed)
    draws = FromGenerator(torch.Generator().manual_seed(seed))
    torch.manual_seed(seed)
    classifier = Classifier(process.width, len(values))
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=1e-3)
    kept, taught = told[: len(told) // 20], told[len(told) // 20 :]

    def loss(some: list[Told], level: float | None) -> tuple[Tensor, Tensor]:
        ids = [lm.tokenizer.encode_plain(one.text)[:LONGEST] for one in some]
        width = max(map(len, ids))
        tokens = torch.tensor([[*row, *[0] * (width - len(row))] for row in ids])
        real = torch.arange(width) < torch.tensor([len(row) for row in ids])[:, None]
        t = torch.rand(len(ids), 1, generator=draws.generator) if level is None else torch.full((len(ids), 1), level)
        t = t.expand(tokens.shape) * real
        said = classifier(process.corrupt(tokens, t, draws), t, real)
        wanted = torch.tensor([values.index(one.value) for one in some])
        return nn.functional.nll_loss(said, wanted), (said.argmax(-1) == wanted).float().mean()

    for _ in range(lessons):
        optimizer.zero_grad()
        loss(rng.sample(taught, 64), None)[0].backward()
        optimizer.step()
    with torch.no_grad():
        right = {f"{level:g}": round(float(loss(kept[:500], level)[1]), 3) for level in (0.01, 0.1, 0.3, 0.6, 0.9)}
    return classifier.eval(), right


def measured(
    writer: LanguageModel,
    judge: LanguageModel,
    classifier: Classifier,
    values: list[str],
    told: list[Told],
    strength: float,
    a: argparse.Namespace,
) -> dict[str, Any]:
    """Texts for every value with one strength, as long as true ones are, and what is to be said of them."""
    rng = random.Random(a.seed)
    lengths = [min(len(writer.tokenizer.encode_plain(one.text)), LONGEST) for one in rng.sample(told, a.texts)]
    written: list[tuple[str, str]] = []
    tokens: list[list[int]] = []
    for number, value in enumerate(values):

        def wanted(x: Tensor, t: Tensor, real: Tensor, number: int = number) -> Tensor:
            return classifier(x, t, real)[:, number]

        rows = [Row.after([], length, a.seed + i) for i, length in enumerate(lengths)]
        guide = Guide(wanted, strength) if strength else None
        done = writer.subject.write(rows, rule="ddpm", steps=a.steps, guide=guide)
        tokens += [text.tokens for text in done]
        written += [(writer.tokenizer.decode(text.tokens), value) for text in done]
    reader = Judge("judge", judge.denoiser, judge.tokenizer, judge.method.estimator(1))
    verdict = Verdict.over(reader([([], text) for text in tokens], writer.tokenizer))
    return {
        "strength": strength,
        "success": named(written),
        "judge_nats": round(verdict.nats, 4),
        "judge_stderr": round(verdict.stderr, 4),
        "entropy": round(Variety.of(tokens).entropy, 4),
        "texts": [{"value": value, "text": text} for text, value in written],
    }


def named(texts: list[tuple[str, str]]) -> dict[str, float]:
    """The share of the texts for each value that name it, and of all."""
    hits: dict[str, list[bool]] = {}
    for text, value in texts:
        for key in (value, "all"):
            hits.setdefault(key, []).append(value.casefold() in text.casefold())
    return {key: round(sum(some) / len(some), 3) for key, some in sorted(hits.items())}


def picture(found: list[dict[str, Any]], facts: dict[str, Any]) -> Any:
    figure, axes = panels(2)
    strengths = [row["strength"] for row in found]
    for colour, value in zip(COLOURS, facts["values"]):
        axes[0].plot(strengths, [row["success"].get(value) for row in found], marker="o", color=colour, label=value)
    axes[0].set(xlabel="strength of the guide", ylabel="share of texts that name the value", ylim=(0, 1))
    axes[0].legend(fontsize=7)
    axes[1].plot(strengths, [row["judge_nats"] for row in found], marker="o", label="judge, nats a token")
    axes[1].plot(strengths, [row["entropy"] for row in found], marker="s", label="entropy of a text, nats")
    axes[1].set(xlabel="strength of the guide")
    axes[1].legend(fontsize=7)
    return figure


def page(found: list[dict[str, Any]], facts: dict[str, Any]) -> str:
    heads = ["strength", "names the value", "judge, nats a token", "entropy of a text"]
    rows = [
        (f"{row['strength']:g}", f"{row['success']['all']:.3f}", f"{row['judge_nats']:.3f} ± {row['judge_stderr']:.3f}",
         f"{row['entropy']:.3f}")
        for row in found
    ]  # fmt: skip
    best = max(found, key=lambda row: row["success"]["all"])
    examples = "\n".join(
        f"- **{text['value']}**: {text['text'].strip()}" for text in best["texts"][:: len(best["texts"]) // 6]
    )
    right = ", ".join(f"{t}: {share:.2f}" for t, share in facts["classifier"].items())
    return f"""
# A classifier steers what is written

A continuous model writes restaurant descriptions; a classifier of noisy vectors, trained apart from it, pulls them
towards one value of `{facts["field"]}`. True texts of a value name it in {facts["true"]["all"]:.3f} of the cases.

![success and quality against strength](control.png)

{table(heads, rows)}

The classifier is right about texts it has not seen, by time t of the noise: {right}.

Written with strength {best["strength"]:g}:

{examples}

```
python studies/control.py DATA_FOLDER --field {facts["field"]} --minutes {facts["minutes"]:g}
```
"""


if __name__ == "__main__":
    main()

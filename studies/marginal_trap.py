"""The marginal trap: what is written in one step is drawn as if its parts had nothing to do with each other.

    python studies/marginal_trap.py --steps 600

In a language of couples (`couples.py`) any pair that is no couple is impossible, and can be counted. Every rule of
`unmask.decoding` writes texts at one to six tokens a step: exactly, by enumeration, for a denoiser that knows the
language; by the decoding loop with the same denoiser, as a check; and by two small masked models trained on it for
--steps, one of them with soft masks. Then what might help: blocks, quotas that look, revisers, correctors,
self-speculation. Liu et al. (arXiv 2410.01949) describe the trap. Writes OUT/marginal_trap.md, .png and .json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from couples import Couples, Knows, Law, blind, chained, law_of, looking, speculated
from pages import COLOURS, panels, table, write

from unmask.components import build
from unmask.decoding.ancestral import Ancestral
from unmask.decoding.canvas import Row
from unmask.decoding.propose import Proposal
from unmask.decoding.quotas import QUOTAS, Evenly
from unmask.decoding.sampler import Decoded, decode
from unmask.decoding.select import BLIND, RANKS
from unmask.decoding.settings import RULES, Decoding
from unmask.evaluation.subject import Subject
from unmask.lm import load
from unmask.recipe import load_recipe
from unmask.run import train

OTHERS = {"euler", "analytic", "ddpm", "ddim"}  # for models that speak of scores, or of vectors
STEPS = (6, 3, 2, 1)  # of six tokens
LONGER = (24, 12, *STEPS)  # rules of the noise may take more steps than there are tokens
DRAW = Decoding(temperature=1.0)
REMEDIES: dict[str, tuple[Decoding, tuple[int, ...]]] = {
    "blocks of 2": (replace(DRAW, rule="random", block=2), (6, 3)),
    "blocks of 3": (replace(DRAW, rule="random", block=3), (6, 2)),
    "threshold 0.9": (replace(DRAW, rule="confidence", threshold=0.9), (6,)),
    "factor 1": (replace(DRAW, rule="confidence", factor=1.0), (6,)),
    "entropy bound 0.1": (replace(DRAW, rule="entropy", quota={"kind": "entropy_bound", "bound": 0.1}), (6,)),
    "entropy bound 2": (replace(DRAW, rule="entropy", quota={"kind": "entropy_bound", "bound": 2.0}), (6,)),
    "certain below 0.5 nats": (replace(DRAW, rule="entropy", quota={"kind": "certain", "entropy": 0.5}), (6,)),
    "edit": (replace(DRAW, rule="random", revise={"kind": "edit", "threshold": 0.5}), STEPS),
    "take back": (replace(DRAW, rule="random", revise={"kind": "take_back", "threshold": 0.4}), STEPS),
}
CORRECTORS: dict[str, dict[str, Any]] = {
    "psi": {"kind": "psi", "early": 0.0, "middle": 0.3, "late": 0.3, "ends": 0.0},
    "remdm_cap": {"kind": "remdm_cap", "eta": 0.2},
    "remdm_rescale": {"kind": "remdm_rescale", "eta": 0.5},
    "remdm_conf": {"kind": "remdm_conf", "eta": 1.0},
    "remdm_loop": {"kind": "remdm_loop", "eta": 0.3},
}


@dataclass(frozen=True)
class Found:
    """One way of writing. exact: by enumeration or in closed form, where there is one; drawn: by the decoding loop with
    the same denoiser; learnt, soft: by a trained model, and by one with soft masks."""

    way: str
    steps: int
    exact: Law | None
    drawn: Law | None = None
    learnt: Law | None = None
    soft: Law | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600, help="training of each model; 0: none")
    parser.add_argument("--texts", type=int, default=2000, help="written in every way")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run", type=Path, default=Path("runs/marginal_trap"), help="the model's folder")
    parser.add_argument("--out", type=Path, default=Path("docs/studies"))
    a = parser.parse_args()
    language = Couples()
    models = {kind: learnt(language, kind, a) for kind in ("none", "soft")} if a.steps else {}
    found = [measured(language, models, way, a.texts) for way in ways(language)]
    found += [Found("self-speculation", draft, speculated(language, draft)) for draft in (2, 3, 6)]
    apart = Couples(near=False)
    far = [Found("blocks of 3, partners 3 apart", 2, blind(apart, 2, ordered=False, block=3))]
    write(a.out, "marginal_trap", page(language, found, far[0], a), picture(found), [asdict(f) for f in found + far])


Way = tuple[str, int, Decoding, Law | None]


def ways(language: Couples) -> list[Way]:
    """Every rule at every pace, then what might help."""
    out: list[Way] = []
    for name in RULES:
        if name in OTHERS:
            continue
        spec = CORRECTORS.get(name, name)
        paces = LONGER if name == "ancestral" or name in CORRECTORS else STEPS
        out += [(name, n, replace(DRAW, rule=spec, steps=n), exact(language, name, n)) for n in paces]
    for name, (settings, paces) in REMEDIES.items():
        out += [(name, n, replace(settings, steps=n), helped(language, settings, n)) for n in paces]
    return out


def exact(language: Couples, rule: str, steps: int) -> Law | None:
    if rule in BLIND:
        return blind(language, steps, ordered=rule == "left_to_right")
    if rule in RANKS:
        return looking(language, build(RANKS, {"kind": rule}, "rule", given={}), Evenly(), steps)
    spec = CORRECTORS.get(rule, {"kind": rule})
    made = build(RULES, spec, "rule", given={"proposal": Proposal(1.0), "quota": Evenly(), "timeless": True})
    alone = isinstance(made, Ancestral) and rule not in ("remdm_conf", "remdm_loop")  # these look at the whole row
    return chained(language, made, steps) if alone else None


def helped(language: Couples, settings: Decoding, steps: int) -> Law | None:
    if settings.block:
        return blind(language, steps, ordered=False, block=settings.block)
    short = {"threshold": ("above", settings.threshold), "factor": ("factor", settings.factor)}
    said = [{"kind": kind, name: value} for name, (kind, value) in short.items() if value is not None]
    spec = settings.quota or next(iter(said), None)
    if spec is None or settings.revise:
        return None
    rank = build(RANKS, {"kind": settings.kind}, "rule", given={})
    return looking(language, rank, build(QUOTAS, spec, "quota"), steps)


def measured(language: Couples, models: Mapping[str, Subject], way: Way, texts: int) -> Found:
    name, steps, settings, law = way
    rows = [Row.after([], language.length, seed) for seed in range(texts)]
    done = decode(Knows(language), language.process, rows, settings)
    drawn = counted(language, [d.tokens for d in done], done)
    return Found(name, steps, law, drawn, *(said(language, model, rows, settings) for model in models.values()))


def said(language: Couples, model: Subject, rows: Sequence[Row], settings: Decoding) -> Law:
    """What a trained model writes in this way."""
    changes = {k: v for k, v in vars(settings).items() if v != getattr(Decoding(), k)}
    done = model.write(rows, suppress_eos=True, **changes)
    return counted(language, [language.read(model.tokenizer.decode(d.tokens)) for d in done], done)


def _passes(done: Sequence[Decoded]) -> float:
    return sum(d.counts.forwards for d in done) / len(done)


def counted(language: Couples, texts: Sequence[list[int]], done: Sequence[Decoded]) -> Law:
    """texts: as tokens of the language, all as long."""
    cut = torch.tensor([[*text, *[language.mask_id] * language.length][: language.length] for text in texts])
    return law_of(language, cut, torch.full((len(cut),), 1 / len(cut), dtype=torch.float64), _passes(done))


def learnt(language: Couples, feedback: str, a: argparse.Namespace) -> Subject:
    """A masked model of the language, read as bytes. The same command goes on with a run that was stopped."""
    a.run.mkdir(parents=True, exist_ok=True)
    source = a.run / "texts.jsonl"
    source.write_text("".join(json.dumps({"text": t}) + "\n" for t in language.texts(20_000)), encoding="utf-8")
    overrides = [
        *(f"data.source={source}", "data.whole=true", "tokenizer.kind=bytes", f"train.steps={a.steps}"),
        *("model.width=64", "model.layers=2", "model.heads=4", f"model.context={language.length + 1}"),
        *("train.batch=64", "train.ema=0.98", f"method.feedback={feedback}", "method.kind=masked"),
    ]
    result = train(load_recipe(None, overrides, out=str(a.run / feedback), seed=a.seed), title=f"couples, {feedback}")
    return replace(load(result.folder).subject, batch=2000)


# -- the page


def picture(found: Sequence[Found]) -> Any:
    figure, axes = panels(2, height=4.2)
    rules = [name for name in RULES if name not in OTHERS | set(CORRECTORS)]
    for ax, names in zip(axes, (rules, [*REMEDIES, *CORRECTORS, "self-speculation"])):
        for i, name in enumerate(names):
            some = [f for f in found if f.way == name]
            colour = COLOURS[i % len(COLOURS)]
            style: Any = {"color": colour, "linestyle": "-" if i < len(COLOURS) else "--", "linewidth": 1.5}
            known = [(law.passes, 100 * law.impossible) for f in some if (law := f.exact or f.drawn)]
            ax.plot(*zip(*known), label=name, marker="o", markersize=3, **style)
            real = [(f.learnt.passes, 100 * f.learnt.impossible) for f in some if f.learnt]
            if real:
                ax.plot(*zip(*real), "x", color=colour, markersize=6)
        ax.set(xlabel="network passes a text of 6 tokens", xscale="log", xticks=[1, 2, 3, 6, 12, 24])
        ax.xaxis.set_major_formatter("{x:g}")
        ax.minorticks_off()
        ax.legend(frameon=False, fontsize=7)
    axes[0].set(ylabel="impossible pairs, %", title="rules")
    axes[1].set(title="what might help")
    return figure


def page(language: Couples, found: Sequence[Found], far: Found, a: argparse.Namespace) -> str:
    heads = ("way of writing", "steps", "passes", "exact", "loop", "distance", "trained", "distance", "soft")
    share = far.exact.impossible if far.exact else 0.0
    return f"""
# The marginal trap

A network that fills several positions in one pass says what each may be, not what they may be together. In a language
of couples (three couples a text, drawn with chances {", ".join(f"{w:.3f}" for w in language.weights)}; token and
partner are neighbours; any other pair is impossible) this can be counted: two tokens drawn on their own are no couple
with chance {language.apart:.3f}, however well the network knows the language.

![impossible pairs against passes](marginal_trap.png)

Lines: a denoiser that knows the language (exact where the table says so). Crosses: a masked model trained on it.

```
python studies/marginal_trap.py --steps {a.steps} --texts {a.texts}
```

*exact*: the share of impossible pairs by enumeration of every proposal (rules that look), of every order (random, left
to right), or of a couple's Markov chain (rules of the noise). *loop*: the decoding loop with the same denoiser,
{a.texts} texts. *distance*: of the law of couples from the true one (total variation), which also sees couples that are
written too seldom. *trained*: a masked model, 2 layers of width 64, {a.steps} steps of 64 texts; *soft*: the same with
soft masks (`method.feedback=soft`). Temperature 1 throughout.

{table(heads, map(_line, found))}

{READING}

With partners three apart instead of neighbours, blocks of 3 at one step a block write
{share:.1%} impossible pairs: what a block separates is no trap.
"""


READING = """
## Reading it

- Every rule that keeps a fixed pace falls into the trap as soon as partners are open together; which tokens go first
  only moves the point. At six at once all are alike.
- Neighbours make left to right the worst order at two tokens a step and random the better one.
- Rules that prefer what looks sure are not exact even one token a step: nothing impossible is written, but the likely
  couples are written too often (distance above 0). Random order and left to right are exact there.
- Quotas that look (threshold, factor, a small entropy bound) wait where tokens are unsure, and pay with passes.
- Edit can exchange both halves of a wrong couple in the same pass, and so chase its own tail; taking back opens both.
- Self-speculation keeps the law of the causal pass whatever the draft; what a wrong couple costs there is a round.
"""


def _line(f: Found) -> tuple[str, ...]:
    known = f.exact or f.drawn
    laws = (f.exact, f.drawn, f.learnt)
    shares = tuple("" if law is None else f"{100 * law.impossible:.1f} %" for law in laws)
    assert known is not None
    passes = f"{(f.drawn or known).passes:.1f}"
    return (
        f.way,
        f"{f.steps}",
        passes,
        *shares,
        f"{known.distance:.3f}",
        f"{f.learnt.distance:.3f}" if f.learnt else "",
    )


if __name__ == "__main__":
    main()

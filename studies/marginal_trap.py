"""The marginal trap: what is written in one step is drawn as if its parts had nothing to do with each other.

    python studies/marginal_trap.py --steps 800

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

OTHERS = {"euler", "analytic", "ddpm", "ddim", "entropy_renoise"}  # for scores, for vectors, for a canvas without masks
START = "^"  # stands before every text, or nothing would tell a network one mask from another
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

    @property
    def known(self) -> Law:
        """Of the denoiser that knows the language, as exactly as can be; with the passes that were really made."""
        law = self.exact or self.drawn
        assert law is not None
        return replace(law, passes=self.drawn.passes) if self.drawn else law


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=800, help="training of each model; 0: none")
    parser.add_argument("--texts", type=int, default=500, help="written in every way")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run", type=Path, default=Path("runs/marginal_trap"), help="the model's folder")
    parser.add_argument("--out", type=Path, default=Path("docs/studies"))
    a = parser.parse_args()
    language = Couples()
    models = {kind: learnt(language, kind, a) for kind in ("none", "soft")} if a.steps else {}
    found = [measured(language, models, way, a.texts) for way in ways(language)]
    found += [Found("self-speculation", draft, speculated(language, draft)) for draft in (2, 3, 6)]
    apart = Couples(near=False)
    far = [Found("random blocks of 3", 2, blind(apart, 2, ordered=False, block=3))]
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
    """What a trained model writes in this way, after the start."""
    start = model.tokenizer.encode_plain(START)
    rows = [Row.after(start, row.n_open, row.seed) for row in rows]
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
    source.write_text("".join(json.dumps({"text": START + t}) + "\n" for t in language.texts(20_000)), encoding="utf-8")
    overrides = [
        *(f"data.source={source}", "data.whole=true", "tokenizer.kind=bytes", f"train.steps={a.steps}"),
        *(
            "model.width=64",
            "model.layers=2",
            "model.heads=4",
            f"model.context={language.length + 1}",
            "data.eos=false",
        ),
        *("train.batch=64", "train.ema=0.98", f"method.feedback={feedback}", "method.kind=masked"),
    ]
    result = train(load_recipe(None, overrides, out=str(a.run / feedback), seed=a.seed), title=f"couples, {feedback}")
    return replace(load(result.folder).subject, batch=2000)


# -- the page


def picture(found: Sequence[Found]) -> Any:
    figure, axes = panels(2, height=5.2)
    rules = [name for name in RULES if name not in OTHERS | set(CORRECTORS)]
    for ax, names in zip(axes, (rules, [*REMEDIES, *CORRECTORS, "self-speculation"])):
        for i, name in enumerate(names):
            some = [f for f in found if f.way == name]
            style: Any = {"color": COLOURS[i % len(COLOURS)], "linestyle": "-" if i < len(COLOURS) else "--"}
            ax.plot(*zip(*(_point(f.known) for f in some)), label=name, marker="o", markersize=3, **style)
            real = [_point(f.learnt) for f in some if f.learnt]
            if real:
                ax.plot(*zip(*real), "x", color=style["color"], markersize=6)
        ax.set(xlabel="network passes a text of 6 tokens", xscale="log", xticks=[1, 2, 3, 6, 12, 24])
        ax.xaxis.set_major_formatter("{x:g}")
        ax.minorticks_off()
        ax.legend(frameon=False, fontsize=7, ncol=4, loc="upper center", bbox_to_anchor=(0.5, -0.14))
    axes[0].set(ylabel="impossible pairs, %", title="rules")
    axes[1].set(title="what might help")
    return figure


def _point(law: Law) -> tuple[float, float]:
    return law.passes, 100 * law.impossible


def page(language: Couples, found: Sequence[Found], far: Found, a: argparse.Namespace) -> str:
    off = max(abs(f.exact.impossible - f.drawn.impossible) for f in found if f.exact and f.drawn)
    paced = [name for name in [*RULES, "edit", "take back"] if name not in OTHERS]
    rest = [f for f in found if f.way not in paced]
    return f"""
# The marginal trap

A network that fills several positions in one pass says what each may be, not what they may be together. In a language
of couples (three couples a text, drawn with chances 1/2, 1/3 and 1/6; token and partner are neighbours; any other pair
is impossible) this can be counted: two tokens drawn on their own are no couple with chance {language.apart:.1%},
however well the network knows the language.

![impossible pairs against passes](marginal_trap.png)

Lines: a denoiser that knows the language. Crosses: a masked model trained on it. Temperature 1 throughout.

```
python studies/marginal_trap.py --steps {a.steps} --texts {a.texts}
```

Share of impossible pairs in %, three figures a cell: a denoiser that knows the language / a masked model (2 layers of
width 64, {a.steps} steps of 64 texts, each after a start sign) / the same with soft masks (`method.feedback=soft`). The
first is exact: every proposal enumerated and put through the stepper (rules that look), every order counted (random,
left to right), a couple's Markov chain (rules of the noise); with ~ it is counted in {a.texts} texts, as the other two
are. Where both are known the decoding loop and the exact figure differ by at most {100 * off:.1f} points. *Distance*:
of the law of couples from the true one, in total variation, for the first of the three; it also sees couples that are
written too seldom.

{table(("steps", *map(str, LONGER), "distance at 6"), (_paced(name, found) for name in paced))}

{table(("what chooses its own pace", "steps", "passes", "impossible", "distance"), map(_free, rest))}

With partners three apart instead of neighbours, {far.way} in {far.steps} steps write {far.known.impossible:.1%}
impossible pairs: what a block separates is no trap.

{READING}
"""


READING = """
## Reading it, for the denoiser that knows the language

- Rules with a fixed pace fall into the trap as soon as partners are open together; which tokens go first only moves the
  point. Neighbours make left to right the worst order at two tokens a step, and random a better one.
- Preferring what looks sure is not exact even one token a step: the proposal that is drawn decides whether it is kept,
  so likely couples are written too often (confidence: distance above 0). Order by entropy or margin, which look at the
  whole law, random order and left to right are exact there.
- A small entropy bound writes what is certain along with what is not and stays exact, in fewer passes than tokens. A
  threshold behind confidence writes nothing impossible either, but keeps the bias of confidence.
- Correctors write anew in the way they write: with nothing wrong to mend they cost passes and win nothing on the
  ancestral rule at equal passes. Edit exchanges both halves of a wrong couple in the same pass and so chases its own
  tail, to its last pass. Taking back what has become improbable also takes back what is merely rare.
- What a block separates is no trap; inside a block it is as before.
- Self-speculation keeps the law of the causal pass whatever the draft; what a wrong couple costs there is a round.
- Where many positions look alike to it, entropy and margin go from left to right. A trained model's small differences
  break such ties in an order of its own (entropy and margin at three steps). Edit and take back ask what a network
  says of tokens it can see, which these were never trained to say. Elsewhere what is learnt does as what is known does,
  and soft masks do not lift the trap within a pass.
- First hitting writes one token at a time, at the times at which noise would have: exact at any number of steps.
"""


def _paced(name: str, found: Sequence[Found]) -> tuple[str, ...]:
    """One rule at every number of steps."""
    by_steps = {f.steps: f for f in found if f.way == name}
    cells = [_shares(by_steps[n]) if n in by_steps else "" for n in LONGER]
    return (name, *cells, f"{by_steps[6].known.distance:.3f}")


def _free(f: Found) -> tuple[str, ...]:
    return (f.way, f"{f.steps}", f"{f.known.passes:.1f}", _shares(f), f"{f.known.distance:.3f}")


def _shares(f: Found) -> str:
    laws = [law for law in (f.known, f.learnt, f.soft) if law]
    return ("" if f.exact else "~") + " / ".join(f"{100 * law.impossible:.1f}" for law in laws)


if __name__ == "__main__":
    main()

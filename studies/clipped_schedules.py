"""Clipped schedules and gradient variance (BD3-LM, arXiv 2503.09573, section 5): which mask rates to train at.

    python studies/clipped_schedules.py MODEL TEXT --draws 8

MODEL is a masked or block model of `unmask train`; without one, the packaged masked model. For each interval of mask
rates: the variance of one batch's loss and of its gradient when only the noise is drawn anew, with masks drawn one by
one and counted. The gradient's variance is put in proportion to its squared length, since an interval also changes the
length. Writes OUT/clipped_schedules.md, .png and .json. Nothing is trained; --draws is the budget.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from pages import COLOURS, panels, table, write

import unmask
from unmask.data.packing import Batch, windows
from unmask.data.sources import read
from unmask.data.store import TokenStore
from unmask.denoiser import Denoiser
from unmask.errors import UserError
from unmask.evaluation.variance import gradient_noise, loss_spread
from unmask.objectives.clipping import Clipped
from unmask.objectives.masked import MaskedBound

CLIPS = ((0.0, 1.0), (0.0, 0.5), (0.3, 0.8), (0.45, 0.95), (0.5, 1.0))
Masks = Literal["independent", "counted"]


@dataclass(frozen=True)
class Noise:
    """Of one batch. loss: variance over draws, (nats/token)^2; gradient: variance over squared length of the mean."""

    masks: Masks
    clip: tuple[float, float]
    loss: float
    gradient: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="[MODEL] TEXT", help="default: the packaged model, stdlib")
    parser.add_argument("--draws", type=int, default=8, help="of the noise of each batch")
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--rows", type=int, default=4, help="of a batch")
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--out", type=Path, default=Path("docs/studies"))
    a = parser.parse_args()
    *model, source = a.words or ["stdlib"]
    lm = unmask.load(model[0] if model else None)
    objective = lm.method.objective(lm.symbols)
    bound = objective.bound if isinstance(objective, Clipped) else objective
    if not isinstance(bound, MaskedBound):
        raise UserError(f"model: {lm.name} is not trained by masking; name a masked or a block model")
    store = TokenStore.from_documents(lm.tokenizer.documents(islice(read(source), 100)))
    rows = windows(store, min(a.length, lm.context), batch=a.rows, pad_id=lm.tokenizer.pad_id)
    batches = list(islice(rows, a.batches))
    kinds: tuple[Masks, ...] = ("independent", "counted")
    found = [measured(lm.denoiser, bound, batches, masks, clip, a.draws) for masks in kinds for clip in CLIPS]
    write(a.out, "clipped_schedules", page(found, lm.name, a), picture(found), [asdict(f) for f in found])


def measured(
    denoiser: Denoiser, bound: MaskedBound, batches: list[Batch], masks: Masks, clip: tuple[float, float], draws: int
) -> Noise:
    objective = replace(bound, masks=masks, clip=clip)
    losses = loss_spread(denoiser, objective, batches, draws=draws)
    square, variance = gradient_noise(denoiser, objective, batches[0], draws=draws)
    return Noise(masks, clip, losses.noise, variance / max(square, 1e-12))


def picture(found: list[Noise]) -> Any:
    figure, axes = panels(2)
    for ax, name in zip(axes, ("loss", "gradient")):
        for i, masks in enumerate(dict.fromkeys(f.masks for f in found)):
            some = [f for f in found if f.masks == masks]
            at = [j + 0.4 * i for j in range(len(some))]
            ax.bar(at, [getattr(f, name) for f in some], width=0.38, color=COLOURS[i], label=masks)
        ax.set_xticks([j + 0.2 for j in range(len(CLIPS))], [_interval(clip) for clip in CLIPS], fontsize=8)
        ax.set(xlabel="mask rates")
        ax.legend(frameon=False)
    axes[0].set(ylabel="variance of a batch's loss, (nats/token)²")
    axes[1].set(ylabel="variance of its gradient / squared length")
    return figure


def page(found: list[Noise], name: str, a: argparse.Namespace) -> str:
    lines = [(f"{f.masks}, {_interval(f.clip)}", f"{f.loss:.3g}", f"{f.gradient:.3g}") for f in found]
    quiet = min(CLIPS, key=lambda clip: sum(f.gradient for f in found if f.clip == clip))
    return f"""
# Clipped schedules and gradient variance

How noisy is a training step of `{name}` when only the masks are drawn anew: {a.batches} batches of {a.rows} rows of
{a.length} tokens, {a.draws} draws each. A clipped interval gives no bound, only a gradient; what a model is worth is
always measured over all rates.

![variance of loss and gradient for each interval](clipped_schedules.png)

{table(("masks, rates", "variance of the loss", "variance of the gradient / its squared length"), lines)}

The least noisy gradient is at rates {_interval(quiet)}. It is measured on one batch alone, so only large differences
count: those between intervals, not those between the two kinds of masks, which differ in the loss.

```
{" ".join(["python studies/clipped_schedules.py", *["MODEL", "TEXT"][2 - len(a.words) :], f"--draws {a.draws}"])}
```
"""


def _interval(clip: tuple[float, float]) -> str:
    return f"{clip[0]:g}-{clip[1]:g}"


if __name__ == "__main__":
    main()

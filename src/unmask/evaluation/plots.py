"""The pictures of a comparison: each drawn once, saved as PNG and given as SVG that takes its ink from the page."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .compare import Point, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curve = list[tuple[int, float, float]]  # tokens seen, seconds, training loss in nats a token
INK = "#1f2428"  # of text and axes; in SVG it becomes currentColor, so that a dark page shows it light
COLOURS = ("#4c6ef5", "#e8590c", "#2f9e44", "#ae3ec9", "#e03131", "#1098ad", "#f08c00", "#7048e8", "#c2255c", "#66a80f")
STYLES = ("-", "--", ":", "-.")
MARKS = ("o", "s", "^", "D", "v", "P")


def draw(rows: Sequence[Row], curves: dict[str, Curve], real: dict[str, float] | None, folder: Path) -> dict[str, str]:
    """Every picture that there is something to show in: name -> SVG; PNGs in folder. None where matplotlib is missing.

    curves: a training run a method; real: the judge's word on the true continuations.
    """
    try:
        import matplotlib
    except ImportError:
        return {}
    matplotlib.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    look: Any = {
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
    }
    with matplotlib.rc_context(look | {"font.size": 10, "svg.fonttype": "none", "axes.grid": True, "grid.alpha": 0.2}):
        return {
            name: _saved(figure, folder / f"{name}.png")
            for name, make in _pictures(rows, curves, real).items()
            if (figure := make()) is not None
        }


def _pictures(
    rows: Sequence[Row], curves: dict[str, Curve], real: dict[str, float] | None
) -> dict[str, Callable[[], Figure | None]]:
    colour = {row.method: COLOURS[i % len(COLOURS)] for i, row in enumerate(rows)}
    return {
        "bound": lambda: _bound(rows, colour),
        "learning": lambda: _learning(curves, colour),
        "quality": lambda: _quality(rows, colour, real),
        "trade": lambda: _trade(rows, colour, real),
    }


def _bound(rows: Sequence[Row], colour: dict[str, str]) -> Figure | None:
    """Bits per byte with error bars: a dot a method, the best at the top."""
    if not rows:
        return None
    ordered = sorted(rows, key=lambda row: -row.bits_per_byte)
    figure, axes = _figure(1, height=0.8 + 0.42 * len(rows))
    for i, row in enumerate(ordered):
        axes[0].errorbar(row.bits_per_byte, i, xerr=2 * row.stderr, fmt="o", color=colour[row.method], capsize=4)
        axes[0].annotate(
            f"{row.bits_per_byte:.3f}", (row.bits_per_byte, i), (0, 6), textcoords="offset points", ha="center"
        )
    axes[0].set_yticks(range(len(rows)), [row.method for row in ordered])
    axes[0].set(xlabel="bits per byte of held-out text, lower is better (bars: two standard errors)")
    axes[0].set_ylim(-0.6, len(rows) - 0.3)
    axes[0].margins(x=0.12)
    return figure


def _learning(curves: dict[str, Curve], colour: dict[str, str]) -> Figure | None:
    if not any(curves.values()):
        return None
    figure, axes = _figure(2)
    for method, curve in curves.items():
        tokens, seconds, loss = zip(*curve) if curve else ((), (), ())
        for ax, x in zip(axes, ([n / 1e6 for n in tokens], [s / 60 for s in seconds])):
            ax.plot(x, loss, label=method, color=colour.get(method), linewidth=1.5)
    axes[0].set(xlabel="million tokens", ylabel="training loss, nats a token")
    axes[1].set(xlabel="minutes")
    axes[0].legend(frameon=False)
    return figure


def _quality(rows: Sequence[Row], colour: dict[str, str], real: dict[str, float] | None) -> Figure | None:
    """Judge and entropy over passes, side by side: one is worth nothing without the other."""
    if not any(row.quality for row in rows):
        return None
    figure, axes = _figure(2)
    rules = _rules(rows)
    for row in rows:
        for rule in dict.fromkeys(p.rule for p in row.quality):
            points = [p for p in row.quality if p.rule == rule]
            style = {
                "color": colour[row.method],
                "linestyle": STYLES[rules.index(rule) % 4],
                "marker": "o",
                "markersize": 4,
            }
            label = row.method if len(rules) == 1 else f"{row.method}, {rule}"
            _line(axes[0], points, [p.judge_perplexity for p in points], label=label, **style)
            _line(axes[1], points, [p.entropy for p in points], label=label, **style)
    if real:
        axes[0].axhline(real["judge_perplexity"], color=INK, alpha=0.5, linestyle=":", label="real text")
        axes[1].axhline(real["entropy"], color=INK, alpha=0.5, linestyle=":", label="real text")
    for ax in axes:
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_formatter("{x:g}")
        ax.set_xlabel("network passes a text")
    axes[0].set_yscale("log")
    axes[0].set_ylabel("judge's perplexity, lower is likelier")
    axes[1].set_ylabel("entropy of a text's tokens, nats")
    axes[1].legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0)
    return figure


def _line(ax: Axes, points: Sequence[Point], values: Sequence[float | None], **style: Any) -> None:
    known = [(p.passes, v) for p, v in zip(points, values) if v is not None]
    if known:
        ax.plot(*zip(*known), **style)


def _trade(rows: Sequence[Row], colour: dict[str, str], real: dict[str, float] | None) -> Figure | None:
    """Judge against entropy: what lies lower at the same entropy is better, what lies lower and to the left is not."""
    if not any(p.judge_nats is not None for row in rows for p in row.quality):
        return None
    figure, axes = _figure(1)
    rules = _rules(rows)
    for row in rows:
        for rule in dict.fromkeys(p.rule for p in row.quality):
            points = [
                (p.entropy, p.judge_perplexity) for p in row.quality if p.rule == rule and p.judge_nats is not None
            ]
            label = row.method if len(rules) == 1 else f"{row.method}, {rule}"
            style: dict[str, Any] = {"color": colour[row.method], "marker": MARKS[rules.index(rule) % len(MARKS)]}
            if points:
                axes[0].plot(*zip(*points), label=label, markersize=4, linewidth=0.8, **style)
    if real:
        axes[0].plot(real["entropy"], real["judge_perplexity"], "*", color=INK, markersize=12, label="real text")
    axes[0].set(xlabel="entropy of a text's tokens, nats", ylabel="judge's perplexity", yscale="log")
    axes[0].legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0)
    return figure


def _rules(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(p.rule for row in rows for p in row.quality))


def _figure(panels: int, height: float = 3.6) -> tuple[Figure, list[Axes]]:
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, panels, figsize=(9.2, height), layout="constrained", squeeze=False)
    for ax in axes[0]:
        ax.spines[["top", "right"]].set_visible(False)
    return figure, list(axes[0])


def _saved(figure: Figure, path: Path) -> str:
    """PNG on white to the path; SVG on nothing, its ink the page's."""
    from matplotlib import pyplot as plt

    figure.savefig(path, dpi=140, facecolor="white")
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    plt.close(figure)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    return re.sub(
        r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1), count=1
    )

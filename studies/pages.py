"""What every study leaves: a short page with a picture and a table, and its figures as JSON. Knows no study."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#4c6ef5", "#e8590c", "#2f9e44", "#ae3ec9", "#e03131", "#1098ad", "#f08c00", "#7048e8", "#c2255c", "#66a80f")


def write(folder: Path, name: str, page: str, figure: Figure, found: Any) -> None:
    """folder/name.md, .png and .json; the page shows the picture."""
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / f"{name}.png", dpi=100, facecolor="white")
    plt.close(figure)
    (folder / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (folder / f"{name}.md").write_text(page.strip() + "\n", encoding="utf-8")
    print(folder / f"{name}.md")


def panels(n: int, height: float = 3.6) -> tuple[Figure, list[Axes]]:
    figure, axes = plt.subplots(1, n, figsize=(9.2, height), layout="constrained", squeeze=False)
    for ax in axes[0]:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.2)
    return figure, list(axes[0])


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown: the first column to the left, the others to the right."""
    lines = [f"| {' | '.join(heads)} |", "|---|" + "---:|" * (len(heads) - 1)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def report(path: Path) -> dict[str, Any]:
    """What `unmask compare` left: its folder, or the report.json in it."""
    file = path / "report.json" if path.is_dir() else path
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def what(facts: dict[str, str]) -> str:
    """What was compared, as a list under a page's figures; of a path only its end."""
    return "\n".join(f"- {name}: {'/'.join(Path(value).parts[-2:])}" for name, value in facts.items())

"""What a run tells while it goes: a line for people, a JSON line for machines, a curve at the end."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from ..folder import atomic_text

Record = dict[str, Any]


def clock(seconds: float) -> str:
    """1:02:03 or 2:03."""
    whole = max(0, round(seconds))
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


class Display:
    """One live line on a terminal; elsewhere a plain line now and then. Goes to standard error: output stays clean."""

    def __init__(self, title: str, quiet: bool = False, every: float = 10.0) -> None:
        self.console = Console(stderr=True, quiet=quiet)
        self.title, self.every, self.last = title, every, -math.inf
        self.bar: Progress | None = None
        if self.console.is_terminal and not quiet:
            columns = (TextColumn("[bold]{task.description}"), BarColumn(20), TextColumn("{task.fields[line]}"))
            self.bar = Progress(*columns, console=self.console)
            self.task = self.bar.add_task(title, total=1.0, line="")
            self.bar.start()

    def show(self, progress: float, line: str) -> None:
        if self.bar is not None:
            self.bar.update(self.task, completed=progress, line=line)
        elif time.monotonic() - self.last >= self.every or progress >= 1:
            self.last = time.monotonic()
            self.console.print(f"{self.title} {progress:4.0%}  {line}", highlight=False, soft_wrap=True)

    def say(self, message: str) -> None:
        self.console.print(message, highlight=False, soft_wrap=True)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.stop()


class MetricsFile:
    """metrics.jsonl: one record a line. Opening it at step n drops what a killed run wrote beyond n."""

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        kept = [r for r in read_metrics(path) if r["step"] <= step]
        atomic_text(path, "".join(json.dumps(r) + "\n" for r in kept))

    def write(self, record: Record) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            whole = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
            file.write(json.dumps(whole, allow_nan=False) + "\n")

    def close(self) -> None:
        """Every record is on the disk already."""


def read_metrics(path: Path) -> list[Record]:
    """All whole lines; the last one of a killed run may be half."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


class TensorBoard:
    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder / "tensorboard"))

    def write(self, record: Record) -> None:
        for name, value in record.items():
            if isinstance(value, (int, float)) and name != "step":
                self.writer.add_scalar(name, value, record["step"])

    def close(self) -> None:
        self.writer.close()


class WeightsAndBiases:
    def __init__(self, folder: Path) -> None:
        import wandb

        self.run = wandb.init(project="unmask", name=folder.name, dir=str(folder), resume="allow")

    def write(self, record: Record) -> None:
        self.run.log(record, step=record["step"])

    def close(self) -> None:
        self.run.finish()


TRACKERS: dict[str, Callable[[Path], Any]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}


def plot_losses(curves: dict[str, list[Record]], path: Path) -> bool:
    """Loss curves (bits per byte against tokens seen) as PNG; False where matplotlib is not installed."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.2), dpi=140)
    for name, records in curves.items():
        seen = [r for r in records if "bits_per_byte" in r]
        axes.plot([r["tokens"] for r in seen], smooth([r["bits_per_byte"] for r in seen]), label=name, linewidth=1.6)
        valid = [r for r in records if "valid_bits_per_byte" in r]
        axes.plot(
            [r["tokens"] for r in valid],
            [r["valid_bits_per_byte"] for r in valid],
            "o",
            color=axes.lines[-1].get_color(),
        )
    axes.set(xlabel="tokens seen", ylabel="bits per byte (line: training, dot: validation)")
    axes.grid(alpha=0.25)
    if axes.lines:
        axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
    return True


def plot_clips(records: list[Record], path: Path) -> bool:
    """The interval of mask rates that an adaptive objective trained at, and what it spared; False as above."""
    found = [r for r in records if "clip_low" in r]
    if not found:
        return True
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (rates, variance) = plt.subplots(2, sharex=True, figsize=(7, 5.2), dpi=140)
    seen = [r["tokens"] for r in found]
    rates.fill_between(seen, [r["clip_low"] for r in found], [r["clip_high"] for r in found], step="post", alpha=0.4)
    rates.set(ylabel="mask rates trained at", ylim=(0, 1))
    for name, label in (("full_variance", "all rates"), ("clip_variance", "these rates")):
        variance.plot(seen, [r[name] for r in found], marker="o", label=label)
    variance.set(xlabel="tokens seen", ylabel="variance of a block's loss", ylim=(0, None))
    variance.legend(frameon=False)
    for axes in (rates, variance):
        axes.grid(alpha=0.25)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
    return True


def smooth(values: list[float], keep: float = 0.9) -> list[float]:
    out: list[float] = []
    for value in values:
        out.append(value if not out else keep * out[-1] + (1 - keep) * value)
    return out

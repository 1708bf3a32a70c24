"""Measured cells of a grid (method x seed) become one row a method. Knows neither how a cell is made nor how it looks.

A cell is a dictionary of plain values, as it is kept in a file: `trained`, `variance`, `written`, `filled`, `reversal`.
What could not be measured is missing, or says why under "cannot".
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

Cell = dict[str, Any]


@dataclass(frozen=True)
class Point:
    """Texts written in one way. passes: network passes a text; judge_nats: a token, of the judge's, with its standard
    error from text to text; entropy, distinct, repeats: as in `samples.Variety`."""

    rule: str
    at_once: int
    passes: float
    entropy: float
    distinct: float
    repeats: float
    judge_nats: float | None = None
    judge_stderr: float | None = None
    judge_bits_per_byte: float | None = None
    tokens_per_second: float | None = None

    @property
    def judge_perplexity(self) -> float | None:
        return None if self.judge_nats is None else math.exp(self.judge_nats)


@dataclass(frozen=True)
class Row:
    """A method, averaged over its seeds. bits_per_byte: -log2 p of held-out text if exact, else a bound; stderr: its
    standard error, of the measurement or from seed to seed, whichever is larger; perplexity: the same as exp(nats a
    token), which depends on the tokenizer. loss_variance: of one training batch's
    loss, (nats/token)^2, noise_variance: the part of it that the noise makes. infill_judge_nats: what a judge finds a
    filled gap and its sequel less likely than the truth, nats a gap. notes: why something is missing."""

    method: str
    seeds: int
    bits_per_byte: float
    stderr: float
    perplexity: float
    exact: bool
    parameters: int
    train_tokens: int
    train_seconds: float
    tokens_per_second: float
    loss_variance: float | None = None
    noise_variance: float | None = None
    judge_perplexity: float | None = None
    entropy: float | None = None
    infill_exact: float | None = None
    infill_tokens: float | None = None
    infill_judge_nats: float | None = None
    reversal_told: float | None = None
    reversal_backward: float | None = None
    reversal_gap: float | None = None
    quality: list[Point] = field(default_factory=list)
    texts: list[dict[str, str]] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """JSON: not-a-number is null, every point says its perplexity too."""
        found = asdict(self) | {"quality": [asdict(p) | {"judge_perplexity": p.judge_perplexity} for p in self.quality]}
        plain: dict[str, Any] = _without_nan(found)
        return plain


def rows(cells: Iterable[Cell]) -> list[Row]:
    """One row a method, in the order in which the methods first come. Untrained cells are left out."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        if cell.get("trained"):
            groups.setdefault(cell["method"], []).append(cell)
    return [_row(method, group) for method, group in groups.items()]


def _row(method: str, cells: Sequence[Cell]) -> Row:
    trained = [cell["trained"] for cell in cells]
    quality = _points(cells)
    slowest = quality[0] if quality else None
    mean = _averages(cells)
    return Row(
        method=method,
        seeds=len(cells),
        bits_per_byte=statistics.fmean(t["bits_per_byte"] for t in trained),
        stderr=stderr([t["bits_per_byte"] for t in trained], [t["stderr"] for t in trained]),
        perplexity=math.exp(min(statistics.fmean(t["nats_per_token"] for t in trained), 700)),
        exact=all(t["exact"] for t in trained),
        parameters=trained[0]["parameters"],
        train_tokens=round(statistics.fmean(t["tokens"] for t in trained)),
        train_seconds=statistics.fmean(t["seconds"] for t in trained),
        tokens_per_second=statistics.fmean(t["tokens_per_second"] for t in trained),
        loss_variance=mean("variance", "total"),
        noise_variance=mean("variance", "noise"),
        judge_perplexity=slowest.judge_perplexity if slowest else None,
        entropy=slowest.entropy if slowest else None,
        infill_exact=mean("filled", "exact"),
        infill_tokens=mean("filled", "tokens"),
        infill_judge_nats=mean("filled", "judge_nats"),
        reversal_told=mean("reversal", "told"),
        reversal_backward=mean("reversal", "backward"),
        reversal_gap=mean("reversal", "gap"),
        quality=quality,
        texts=(cells[0].get("written") or {}).get("texts", []),
        notes=_notes(cells),
    )


def stderr(values: Sequence[float], errors: Sequence[float]) -> float:
    """Of the mean of independent values that each have an error: what they say of themselves, or their spread."""
    n = len(values)
    measured = math.sqrt(sum(e * e for e in errors)) / n
    return max(measured, statistics.stdev(values) / math.sqrt(n)) if n > 1 else measured


def _averages(cells: Sequence[Cell]) -> Callable[[str, str], float | None]:
    def mean(part: str, name: str) -> float | None:
        values = [(cell.get(part) or {}).get(name) for cell in cells]
        known = [v for v in values if v is not None]
        return statistics.fmean(known) if known else None

    return mean


def _points(cells: Sequence[Cell]) -> list[Point]:
    """One a way of writing, averaged over seeds: the model's own rule first, the most passes first."""
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for cell in cells:
        for point in (cell.get("written") or {}).get("points", []):
            groups.setdefault((point["rule"], point["at_once"]), []).append(point)
    return [Point(rule, at_once, **_merged(points)) for (rule, at_once), points in groups.items()]


def _merged(points: Sequence[dict[str, Any]]) -> dict[str, float]:
    names = ("passes", "entropy", "distinct", "repeats", "tokens_per_second")
    found = {name: statistics.fmean(p[name] for p in points) for name in names}
    judged = [p for p in points if p.get("judge_nats") is not None]
    if judged:
        nats = [p["judge_nats"] for p in judged]
        found |= {
            "judge_nats": statistics.fmean(nats),
            "judge_stderr": stderr(nats, [p["judge_stderr"] for p in judged]),
        }
        found["judge_bits_per_byte"] = statistics.fmean(p["judge_bits_per_byte"] for p in judged)
    return found


def _notes(cells: Sequence[Cell]) -> dict[str, str]:
    found = {}
    for cell in cells:
        for part in ("written", "filled", "reversal"):
            why = (cell.get(part) or {}).get("cannot")
            if why:
                found[part] = why
    return found


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_nan(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

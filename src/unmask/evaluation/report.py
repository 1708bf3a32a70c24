"""What a comparison leaves: report.html, which needs nothing else, report.md, report.json. Knows rows, not cells."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from .compare import Point, Row
from .plots import Curve, draw


@dataclass(frozen=True)
class Report:
    """facts: lines on what was compared, heading -> value; real: the judge's word on the true continuations of the
    prompts, and their variety; curves: a training run a method."""

    title: str
    rows: list[Row]
    facts: Mapping[str, str]
    real: dict[str, float] | None = None
    curves: dict[str, Curve] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return {"rows": [row.as_dict() for row in self.rows], "real_text": self.real, "facts": dict(self.facts)}

    def write(self, folder: Path) -> Path:
        """The page's path."""
        pictures = draw(self.rows, self.curves, self.real, folder / "plots")
        (folder / "report.json").write_text(json.dumps(self.as_dict(), indent=1) + "\n", encoding="utf-8")
        (folder / "report.md").write_text(self.markdown(), encoding="utf-8")
        page = folder / "report.html"
        page.write_text(self.html(pictures), encoding="utf-8")
        return page

    # -- Markdown

    def markdown(self) -> str:
        lines = [f"# {self.title}", "", *(f"- {name}: {value}" for name, value in self.facts.items())]
        for table in TABLES:
            if any(column.value(row) is not None for row in self.rows for column in table.columns):
                lines += ["", f"## {table.heading}", "", *_markdown_table(table, self.rows)]
        lines += ["", *(f"- {row.method}: {why}" for row in self.rows for why in row.notes.values())]
        return "\n".join(lines).rstrip() + "\n"

    # -- HTML

    def html(self, pictures: Mapping[str, str]) -> str:
        template = Template(resources.files(__package__).joinpath("report.html").read_text(encoding="utf-8"))
        return template.substitute(
            title=html.escape(self.title),
            facts="".join(f"<dt>{_(name)}</dt><dd>{_(value)}</dd>" for name, value in self.facts.items()),
            tables="".join(self._section(table, pictures) for table in TABLES),
            texts=_texts(self.rows),
        )

    def _section(self, table: Table, pictures: Mapping[str, str]) -> str:
        shown = any(column.value(row) is not None for row in self.rows for column in table.columns)
        drawn = [f"<figure>{pictures[name]}</figure>" for name in table.pictures if name in pictures]
        if not shown and not drawn:
            return ""
        why = [f"<li><b>{_(row.method)}</b>: {_(row.notes[part])}</li>" for row in self.rows for part in table.parts
               if part in row.notes]  # fmt: skip
        notes = f"<ul class=notes>{''.join(why)}</ul>" if why else ""
        return (
            f"<section><h2>{_(table.heading)}</h2><p>{_(table.says)}</p>"
            f"{_html_table(table, self.rows) if shown else ''}{notes}{self._details(table)}{''.join(drawn)}</section>"
        )

    def _details(self, table: Table) -> str:
        """Every way of writing as a line, folded away."""
        points = [(row.method, p) for row in self.rows for p in row.quality] if "written" in table.parts else []
        if not points:
            return ""
        head = "".join(f"<th>{_(name)}</th>" for name in ("method", *POINT))
        body = "".join(
            f"<tr><th>{_(method)}</th>{''.join(f'<td>{_(say(p))}</td>' for say in POINT.values())}</tr>"
            for method, p in points
        )
        if self.real:
            real = self.real
            cells = ("", "", "", f"{real['judge_perplexity']:.1f}", *(f"{real[k]:.3f}" for k in VARIETY), "")
            body += f"<tr class=real><th>real text</th>{''.join(f'<td>{c}</td>' for c in cells)}</tr>"
        table_ = f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        return f"<details><summary>Every way of writing</summary>{table_}</details>"


_ = html.escape
VARIETY = ("entropy", "distinct", "repeats")
POINT: dict[str, Callable[[Point], str]] = {
    "rule": lambda p: p.rule,
    "tokens a pass": lambda p: f"{p.at_once}",
    "passes": lambda p: f"{p.passes:.1f}",
    "judge's perplexity": lambda p: "" if p.judge_perplexity is None else f"{p.judge_perplexity:.1f}",
    "entropy": lambda p: f"{p.entropy:.3f}",
    "different pairs": lambda p: f"{p.distinct:.3f}",
    "repeated tokens": lambda p: f"{p.repeats:.3f}",
    "tokens/s": lambda p: "" if p.tokens_per_second is None else f"{p.tokens_per_second:,.0f}",
}


@dataclass(frozen=True)
class Column:
    """best: min or max where one of them is to be seen at a glance; shows: how a value is written."""

    heading: str
    value: Callable[[Row], Any]
    shows: Callable[[Any], str]
    best: Callable[[list[Any]], Any] | None = None
    says: str = ""

    def cells(self, rows: Sequence[Row]) -> list[tuple[str, bool]]:
        """Text and whether it is the best, a row."""
        values = [self.value(row) for row in rows]
        known = [v for v in values if v is not None]
        top = self.best(known) if self.best and len(known) > 1 and len(set(known)) > 1 else None
        return [("–" if v is None else self.shows(v), v is not None and v == top) for v in values]


@dataclass(frozen=True)
class Table:
    """parts: the parts of a cell it shows, by whose names notes are kept; pictures: drawn below it."""

    heading: str
    says: str
    columns: tuple[Column, ...]
    parts: tuple[str, ...] = ()
    pictures: tuple[str, ...] = ()


def _bits(row: Row) -> str:
    return f"{row.bits_per_byte:.4f}" if row.exact else f"≤ {row.bits_per_byte:.4f}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _get(name: str) -> Callable[[Row], Any]:
    return lambda row: getattr(row, name)


TABLES = (
    Table(
        "How well they know the text",
        "Bits per byte of held-out text: exact for autoregressive models, an upper bound (≤) for the others. The "
        "variance is that of one training batch's loss, in all and the part that the drawn noise makes.",
        (
            Column("bits/byte", lambda r: (r.bits_per_byte, _bits(r)), lambda v: v[1], min),
            Column("± s.e.", _get("stderr"), lambda v: f"{v:.4f}"),
            Column("perplexity/token", _get("perplexity"), lambda v: f"{v:.1f}", min),
            Column("parameters", _get("parameters"), lambda v: f"{v / 1e6:.2f}M"),
            Column("train tokens", _get("train_tokens"), lambda v: f"{v:,}"),
            Column("seconds", _get("train_seconds"), lambda v: f"{v:,.0f}", min),
            Column("tokens/s", _get("tokens_per_second"), lambda v: f"{v:,.0f}", max),
            Column("loss variance", _get("loss_variance"), lambda v: f"{v:.4g}"),
            Column("of it noise", _get("noise_variance"), lambda v: f"{v:.4g}", min),
            Column("seeds", _get("seeds"), str),
        ),
        pictures=("bound", "learning"),
    ),
    Table(
        "How well they write",
        "Held-out prompts continued, about one token a network pass, by the first rule that the method can follow. The "
        "judge is an autoregressive model: low perplexity means likely text, and repetitive text is likely. Read it "
        "beside the entropy; good text is near real text in both. No text was left out.",
        (
            Column("judge's perplexity", _get("judge_perplexity"), lambda v: f"{v:.1f}"),
            Column("entropy, nats", _get("entropy"), lambda v: f"{v:.3f}"),
            Column("passes", lambda r: r.quality[0].passes if r.quality else None, lambda v: f"{v:.0f}"),
            Column("different pairs", lambda r: r.quality[0].distinct if r.quality else None, _percent),
            Column("repeated tokens", lambda r: r.quality[0].repeats if r.quality else None, _percent),
        ),
        parts=("written",),
        pictures=("quality", "trade"),
    ),
    Table(
        "Filling gaps, and saying it backwards",
        "Gaps cut from held-out text, filled greedily; the judge says how many nats a gap the filled text is less "
        "likely than the truth. Reversal: each model then reads made-up facts in one direction and is asked in that "
        "direction, in the other, and for the gap at the beginning of a sentence it has read.",
        (
            Column("gaps: exact", _get("infill_exact"), _percent, max),
            Column("gaps: tokens right", _get("infill_tokens"), _percent, max),
            Column("judge, nats above truth", _get("infill_judge_nats"), lambda v: f"{v:.2f}", min),
            Column("facts: as told", _get("reversal_told"), _percent, max),
            Column("backwards", _get("reversal_backward"), _percent, max),
            Column("backwards, as a gap", _get("reversal_gap"), _percent, max),
        ),
        parts=("filled", "reversal"),
    ),
)


def _markdown_table(table: Table, rows: Sequence[Row]) -> list[str]:
    cells = [column.cells(rows) for column in table.columns]
    lines = [
        "| method | " + " | ".join(column.heading for column in table.columns) + " |",
        "|---|" + "---:|" * len(table.columns),
    ]
    for i, row in enumerate(rows):
        shown = (f"**{text}**" if best else text for text, best in (column[i] for column in cells))
        lines.append(f"| {row.method} | " + " | ".join(shown) + " |")
    return lines


def _html_table(table: Table, rows: Sequence[Row]) -> str:
    cells = [column.cells(rows) for column in table.columns]
    head = "".join(f"<th>{_(column.heading)}</th>" for column in table.columns)
    body = "".join(
        f"<tr><th>{_(row.method)}</th>"
        + "".join(f"<td{' class=best' if best else ''}>{_(text)}</td>" for text, best in (c[i] for c in cells))
        + "</tr>"
        for i, row in enumerate(rows)
    )
    return f"<div class=wide><table><thead><tr><th>method</th>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _texts(rows: Sequence[Row]) -> str:
    """What each method wrote after the same prompts."""
    shown = [row for row in rows if row.texts]
    if not shown:
        return ""
    parts = []
    for row in shown:
        texts = "".join(
            f"<blockquote><p><span class=prompt>{_(t['prompt'])}</span>{_(t['text'])}</p>"
            f"<footer>{_(t['rule'])}, {_(t['passes'])} passes</footer></blockquote>"
            for t in row.texts
        )
        parts.append(f"<h3>{_(row.method)}</h3>{texts}")
    return f"<section><h2>In their own words</h2><p>The prompt is held-out text, in grey.</p>{''.join(parts)}</section>"

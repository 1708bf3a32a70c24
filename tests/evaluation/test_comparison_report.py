"""From cells to rows to what a reader sees: averages, gaps in what is known, and text that must not become HTML."""

import json
import math
import re
from dataclasses import replace

import pytest

from unmask.evaluation.compare import rows, stderr
from unmask.evaluation.plots import draw
from unmask.evaluation.report import Report

TRAINED = {
    "bits_per_byte": 2.0, "stderr": 0.01, "nats_per_token": 4.0, "exact": False, "parameters": 1000, "tokens": 5000,
    "seconds": 3.0,
}  # fmt: skip
POINT = {
    "rule": "ancestral", "at_once": 1, "passes": 8.0, "entropy": 3.0, "distinct": 0.9, "repeats": 0.1,
    "tokens_per_second": 50.0, "judge_nats": 4.0, "judge_stderr": 0.1, "judge_bits_per_byte": 1.0,
}  # fmt: skip


def cell(method: str, bits: float = 2.0, seed: int = 0, **parts) -> dict:
    trained = TRAINED | {"bits_per_byte": bits, "tokens_per_second": 1700.0}
    return {"method": method, "seed": seed, "trained": trained} | parts


def text(words: str) -> dict:
    return {"rule": "ancestral", "passes": "8", "prompt": "so ", "text": words}


FULL = cell(
    "masked",
    variance={"noise": 0.1, "total": 0.3},
    written={"points": [POINT, POINT | {"at_once": 4, "passes": 2.0}], "texts": [text("<script>alert(1)</script>")]},
    filled={"exact": 0.5, "tokens": 0.75, "judge_nats": 1.5},
    reversal={"told": 1.0, "backward": 0.25, "gap": 0.5},
)
FORWARD = cell("autoregressive", 1.5, filled={"cannot": "infilling: it sees one side only"})
REAL = {"judge_perplexity": 40.0, "entropy": 3.5, "distinct": 0.95, "repeats": 0.01}


def report() -> Report:
    return Report(
        "a < b", rows([FULL, FORWARD]), {"data": "<here>"}, REAL, {"masked": [(10, 1.0, 5.0), (20, 2.0, 4.0)]}
    )


# -- rows


def test_a_row_is_the_mean_over_its_seeds():
    one, other = cell("masked", 2.0), cell("masked", 2.4, seed=1, reversal={"told": 0.5, "backward": None, "gap": None})
    [row] = rows([one, other])
    assert (row.seeds, row.bits_per_byte, row.perplexity) == (2, pytest.approx(2.2), pytest.approx(math.exp(4)))
    assert row.stderr == pytest.approx(0.2), "from seed to seed, more than either says of itself"
    assert (row.reversal_told, row.reversal_backward) == (0.5, None)


@pytest.mark.parametrize(
    ("values", "errors", "wanted"),
    [
        ([1.0], [0.3], 0.3),
        ([1.0, 1.0], [0.3, 0.4], 0.25),
        ([1.0, 3.0], [0.0, 0.0], 1.0),
    ],
)
def test_the_error_of_a_mean(values, errors, wanted):
    assert stderr(values, errors) == pytest.approx(wanted)


def test_untrained_cells_are_no_rows_and_the_order_stays():
    assert [r.method for r in rows([{"method": "block", "seed": 0}, FULL, FORWARD])] == ["masked", "autoregressive"]


def test_points_are_merged_by_rule_and_pace():
    other = cell("masked", seed=1, written={"points": [POINT | {"entropy": 4.0, "judge_nats": 5.0}]})
    [row] = rows([FULL, other])
    assert [(p.at_once, p.entropy, p.judge_nats) for p in row.quality] == [(1, 3.5, 4.5), (4, 3.0, 4.0)]
    assert row.judge_perplexity == pytest.approx(math.exp(4.5)), "a row's own figures are its slowest way's"


def test_json_has_no_nan():
    broken = cell("masked", written={"points": [POINT | {"judge_nats": math.nan}]})
    found = json.loads(json.dumps(rows([broken])[0].as_dict(), allow_nan=False))
    assert found["quality"][0]["judge_perplexity"] is None


# -- what a reader sees


def test_markdown_marks_the_best_and_says_what_is_missing():
    lines = report().markdown().splitlines()
    masked, forward = (
        next(line for line in lines if line.startswith(f"| {m} |")) for m in ("masked", "autoregressive")
    )
    assert "≤ 2.0000" in masked
    assert "**≤ 1.5000**" in forward
    assert "- autoregressive: infilling: it sees one side only" in lines


def test_nothing_measured_is_no_table():
    bare = Report("bare", rows([cell("masked")]), {})
    assert "How well they write" not in bare.markdown()
    assert "How well they write" not in bare.html({})
    assert "In their own words" not in bare.html({})


def test_text_is_text():
    page = report().html({"bound": "<svg></svg>"})
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<dd>&lt;here&gt;</dd>" in page
    assert "a &lt; b" in page
    assert "<figure><svg></svg></figure>" in page
    assert "$" not in re.sub(r"<style>.*?</style>", "", page, flags=re.S), "every blank of the template is filled"


def test_every_way_of_writing_is_told_with_real_text_beside_it():
    page = report().html({})
    folded = page[page.index("<details>") : page.index("</details>")]
    assert folded.count("<tr>") == 1 + 2
    assert "real text" in folded


# -- pictures


def test_pictures_are_files_and_take_their_ink_from_the_page(tmp_path):
    found = draw(report().rows, report().curves, REAL, tmp_path)
    assert set(found) == {"bound", "learning", "quality", "trade"}
    for name, svg in found.items():
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        head = svg[: svg.index(">")]
        assert head.startswith("<svg")
        assert "viewBox" in head
        assert " width=" not in head
        assert "currentColor" in svg


def test_only_what_there_is_is_drawn(tmp_path):
    unjudged = replace(report().rows[0].quality[0], judge_nats=None)
    some = [replace(report().rows[0], quality=[unjudged])]
    assert set(draw(some, {}, None, tmp_path)) == {"bound", "quality"}
    assert draw([], {}, None, tmp_path) == {}

"""A comparison from one end to the other, small enough to train in seconds: what it prints, keeps, and goes on with."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch

from command import Ran, unmask
from unmask import comparing
from unmask.evaluation.compare import Row
from unmask.evaluation.infilling import fill
from unmask.run import train

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
SMALL = ["tokenizer.kind=bytes", "model.width=16", "model.layers=1", "model.heads=2", "model.context=96"]
SHORT = ["train.batch=4", "train.eval_draws=2", "eval_batches=2", "facts=2", "facts_tokens=384"]
ASKED = ["samples=2", "write=6", "prompt=6", "passes=[1,3]", "rules=[own]", "gaps=2", "gap_tokens=2"]
STEPS, BUDGET = 2, "tokens=768"
TWO, THREE = "masked,autoregressive", "masked,autoregressive,block:size=4"


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("".join(f"pack my box with {w} dozen liquor jugs. " for w in WORDS * 30), encoding="utf-8")
    return path


def compare(text: Path, out: Path, methods: str, *more: str) -> Ran:
    options = [*SMALL, *SHORT, *ASKED, *([] if any(m.startswith(("tokens=", "--minutes")) for m in more) else [BUDGET])]
    given = ["--data", text, "--methods", methods, "--out", out, "--device", "cpu", "--dtype", "fp32", "--json"]
    return unmask("compare", *options, *more, *given)


@pytest.fixture(scope="module")
def finished(text, tmp_path_factory) -> tuple[Ran, Path]:
    out = tmp_path_factory.mktemp("grid") / "out"
    return compare(text, out, TWO), out


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished[1], tmp_path / "out"))


def rows(ran: Ran) -> dict[str, dict]:
    assert ran.code == 0, ran.err
    return {row["method"]: row for row in json.loads(ran.out)["rows"]}


def refused(ran: Ran, *words: str) -> None:
    assert ran.code == 2, ran.err
    assert ran.out == ""
    assert ran.err.count("\n") == 1, ran.err
    for word in words:
        assert word in ran.err, ran.err


def must_not_run(*args, **kwargs):
    raise AssertionError("this was finished before")


# -- what it prints and leaves


def test_json_is_rows_and_nothing_else(finished):
    ran, _ = finished
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert list(found) == ["rows"]
    assert [row["method"] for row in found["rows"]] == ["masked", "autoregressive"], "in the order asked for"
    for row in found["rows"]:
        assert set(row) == set(Row.__dataclass_fields__)
        assert row["train_tokens"] == STEPS * 4 * 96
        assert row["bits_per_byte"] > 0
        assert row["train_seconds"] > 0
    masked, forward = found["rows"]
    assert (forward["exact"], forward["stderr"]) == (True, 0.0)
    assert not masked["exact"]
    assert masked["stderr"] > 0
    assert masked["parameters"] == forward["parameters"], "one transformer for all"


def test_all_is_measured_or_says_why_not(finished):
    found = rows(finished[0])
    masked, forward = found["masked"], found["autoregressive"]
    assert masked["notes"] == {}
    assert list(forward["notes"]) == ["filled"]
    assert masked["infill_tokens"] is not None
    assert forward["infill_tokens"] is None
    assert all(row[name] is not None for row in found.values() for name in ("reversal_told", "reversal_backward"))
    assert forward["noise_variance"] == 0 < masked["noise_variance"] <= masked["loss_variance"]
    assert [(p["at_once"], p["passes"]) for p in masked["quality"]] == [(1, 6), (3, 2)]
    assert [p["at_once"] for p in forward["quality"]] == [1], "it cannot write three at once"
    for row in found.values():
        for point in row["quality"]:
            assert point["judge_nats"] > 0, "never the entropy without the judge, nor the judge without the entropy"
            assert point["entropy"] >= 0


def test_the_report_needs_nothing_else(finished):
    ran, out = finished
    assert json.loads((out / "report.json").read_text())["rows"] == json.loads(ran.out)["rows"]
    page = (out / "report.html").read_text()
    assert page.lstrip().lower().startswith("<!doctype html>")
    for outside in ('href="http', "src=", "@import", "url(http"):
        assert outside not in page
    assert page.count("<svg") >= 3
    assert {p.suffix for p in (out / "plots").iterdir()} == {".png"}
    assert "| masked |" in (out / "report.md").read_text()


# -- going on


def test_what_is_finished_is_not_done_again(text, finished, monkeypatch):
    ran, out = finished
    for name in ("train", "loss_spread", "go_on", "fill"):
        monkeypatch.setattr(comparing, name, must_not_run)
    assert compare(text, out, TWO).out == ran.out


def test_a_stopped_comparison_goes_on_where_it_was(text, finished, copy, monkeypatch):
    """Ctrl-C in the third method's training, then in what it is asked; each time the same command goes on."""
    before, real, steps = json.loads(finished[0].out)["rows"], torch.nn.utils.clip_grad_norm_, []

    def first_step_interrupted(*args, **kwargs):
        steps.append(1)
        if len(steps) == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return real(*args, **kwargs)

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", first_step_interrupted)
    assert compare(text, copy, THREE, "facts=0").code == 130
    assert len(steps) == 1
    assert [row["method"] for row in json.loads((copy / "report.json").read_text())["rows"]] == TWO.split(",")

    monkeypatch.setattr(comparing, "fill", interrupted)
    assert compare(text, copy, THREE, "facts=0").code == 130
    assert len(steps) == STEPS, "the first step was kept"
    partly = json.loads((copy / "report.json").read_text())["rows"]
    assert [row["infill_tokens"] is None for row in partly] == [False, True, True]

    monkeypatch.setattr(comparing, "fill", fill)
    for name in ("train", "loss_spread", "go_on"):
        monkeypatch.setattr(comparing, name, must_not_run)
    found = rows(compare(text, copy, THREE, "facts=0"))
    assert list(found["block:size=4"]["notes"]) == ["filled"], "it never looks ahead"
    for row in before:
        again = found[row["method"]]
        assert {k: v for k, v in again.items() if "reversal" not in k} == {
            k: v for k, v in row.items() if "reversal" not in k
        }


def test_a_method_that_breaks_does_not_cost_the_others(text, copy, monkeypatch):
    def breaks_on_blocks(recipe, **kwargs):
        if recipe.method["kind"] == "block":
            raise RuntimeError("boom")
        return train(recipe, **kwargs)

    monkeypatch.setattr(comparing, "train", breaks_on_blocks)
    ran = compare(text, copy, "block:size=4," + TWO)
    refused(ran, "block:size=4, seed 0 failed", "boom")
    assert "Traceback" in (copy / "cells" / "block-size-4-seed0" / "failed.txt").read_text()
    assert [row["method"] for row in json.loads((copy / "report.json").read_text())["rows"]] == TWO.split(",")


# -- what is wrong is one sentence, and nothing is trained


@pytest.mark.parametrize(
    ("methods", "more", "words"),
    [
        ("maskd", [], ["maskd", "did you mean 'masked'"]),
        ("masked,masked", [], ["'masked' is named twice"]),
        (",", [], ["methods: none is named"]),
        ("block:size=0", [], ["method.size", "1 or more"]),
        ("block:sise=4", [], ["method.sise", "did you mean 'size'"]),
        ("masked:data.source=x", [], ["data.source", "model. and train. keys only"]),
        ("nowhere:Method", [], ["nowhere:Method", "cannot be imported"]),
        (TWO, ["tokens=5", "--minutes", "1"], ["both are set"]),
        (TWO, ["train.steps=5"], ["train.steps=5", "leave it out"]),
        (TWO, ["sampels=3"], ["sampels", "did you mean 'samples'"]),
        (TWO, ["samples=few"], ["samples='few'"]),
        (TWO, ["rules=[own,confidense]"], ["confidense", "did you mean 'confidence'"]),
        (TWO, ["judge=/nowhere"], ["/nowhere"]),
        (TWO, ["model.widht=3"], ["widht"]),
    ],
)
def test_bad_input_is_one_sentence(text, tmp_path, monkeypatch, methods, more, words):
    monkeypatch.setattr(comparing, "train", must_not_run)
    refused(compare(text, tmp_path / "out", methods, *more), *words)


def test_a_judge_must_be_exact(text, finished, tmp_path):
    judge = finished[1] / "cells" / "masked-seed0"
    refused(compare(text, tmp_path / "out", TWO, f"judge={judge}"), "judge", "only a bound")


def test_a_folder_keeps_its_budget(text, finished):
    refused(compare(text, finished[1], TWO, "tokens=1536"), "holds a comparison with tokens=768")

"""The demo end to end, with seconds instead of minutes."""

import json

import pytest

from unmask import demo


@pytest.mark.slow
def test_the_demo_leaves_what_it_promises(tmp_path):
    found = demo.run(tmp_path / "demo", "demo", ["train.minutes=0.05"], quiet=True, device="cpu")
    assert set(found["models"]) == {"masked", "autoregressive"}
    assert all(0 < m["bits_per_byte"] < 9 for m in found["models"].values())
    assert found["models"]["masked"]["parameters"] == found["models"]["autoregressive"]["parameters"]
    assert found["fill"]["text"].startswith("def ")
    assert (tmp_path / "demo" / "replay.html").stat().st_size > 5000
    assert (tmp_path / "demo" / "loss.png").stat().st_size > 5000
    json.dumps(found)


@pytest.mark.slow
def test_the_demo_takes_a_text_of_ones_own(tmp_path):
    (tmp_path / "mine.txt").write_text("pack my box with five dozen liquor jugs. " * 400, encoding="utf-8")
    options = [f"data.source={tmp_path / 'mine.txt'}", "train.minutes=null", "train.steps=3", "model.width=32"]
    found = demo.run(tmp_path / "demo", "demo", options, quiet=True, seed=3, device="cpu")
    assert {m["steps"] for m in found["models"].values()} == {3}
    assert found["fill"]["truth"] in (tmp_path / "mine.txt").read_text(encoding="utf-8")


def test_a_gap_is_found_in_any_text():
    python = 'def area(width, height):\n    """' + "x" * 120 + '"""\n    return width * height\n'
    assert demo.gap_in(["not python (", python])[1] == "width * height"
    before, truth, behind = demo.gap_in(["one two three four five six seven"])
    assert before + truth + behind == "one two three four five six seven"
    assert truth == " four five six"

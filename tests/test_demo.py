"""The demo end to end, with seconds instead of minutes."""

import json

import pytest

from unmask import demo


@pytest.mark.slow
def test_the_demo_leaves_what_it_promises(tmp_path):
    found = demo.run(tmp_path / "demo", 0.05, 0, quiet=True)
    assert set(found["models"]) == {"masked", "autoregressive"}
    assert all(0 < m["bits_per_byte"] < 9 for m in found["models"].values())
    assert found["models"]["masked"]["parameters"] == found["models"]["autoregressive"]["parameters"]
    assert found["fill"]["text"].startswith("def ")
    assert (tmp_path / "demo" / "replay.html").stat().st_size > 5000
    assert (tmp_path / "demo" / "loss.png").stat().st_size > 5000
    json.dumps(found)

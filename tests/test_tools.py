"""What stands in tools/ refuses what it should."""

import json
import runpy
from pathlib import Path

import pytest

from unmask.recipe import load_recipe
from unmask.run import train

TOOL = Path(__file__).parent.parent / "tools" / "package_model.py"


@pytest.mark.parametrize("training", [{"finished": False}, {}])
def test_an_unfinished_run_is_not_packaged(tmp_path, training):
    (tmp_path / "text.txt").write_text("pack my box with five dozen liquor jugs. " * 60, encoding="utf-8")
    options = [f"data.source={tmp_path / 'text.txt'}", "tokenizer.kind=bytes", "model.width=32", "model.layers=1"]
    options += ["model.heads=2", "model.context=32", "train.steps=1", "train.batch=2", "device=cpu", "dtype=fp32"]
    folder = train(load_recipe(None, options, out=str(tmp_path / "run")), quiet=True).folder
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["training"]["finished"] is True
    (folder / "config.json").write_text(json.dumps(config | {"training": training}), encoding="utf-8")
    (folder / "manifest.json").unlink()
    with pytest.raises(SystemExit, match="has not come to its end"):
        runpy.run_path(str(TOOL))["main"](str(tmp_path / "run"))

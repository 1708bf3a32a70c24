"""A run small enough for a test: real text, real files, two layers of width 32."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unmask.recipe import Recipe, load_recipe

TEXT = "the quick brown fox jumps over the lazy dog; pack my box with five dozen liquor jugs. "


@pytest.fixture
def small(tmp_path: Path) -> Callable[..., Recipe]:
    (tmp_path / "text.txt").write_text("".join(f"{i}: {TEXT}\n" for i in range(60)), encoding="utf-8")

    def make(*overrides: str, **fixed: Any) -> Recipe:
        """With `base`, whose shape and tokenizer stay, nothing is said of them."""
        shape = ["tokenizer.kind=bytes", "model.width=32", "model.layers=2", "model.heads=2", "model.context=32"]
        options = [
            f"data.source={tmp_path / 'text.txt'}",
            *([] if "base" in fixed else shape),
            *("train.batch=4", "train.steps=20", "train.eval_draws=2", "device=cpu", "dtype=fp32"),
        ]
        return load_recipe(None, [*options, *overrides], **({"out": str(tmp_path / "run")} | fixed))

    return make

"""Every method of this file trains from a recipe, scores, and its saved model writes."""

import pytest
import torch

from unmask.evaluation.likelihood import FixedCount
from unmask.models.checkpoint import load_model, read_config
from unmask.run import train


@pytest.mark.parametrize(
    ("method", "bits"),
    [({"kind": "block", "size": 4}, 5.2), ({"kind": "block", "size": 1, "masks": "independent"}, 5.2)],
)
def test_it_learns(small, method, bits):
    result = train(small("train.steps=60", method=method), quiet=True)
    assert result.score is not None
    assert result.score.bits_per_byte < bits  # 8 bits is knowing nothing


def test_a_block_model_may_start_from_a_masked_one(small, tmp_path):
    """The same network and tokenizer under another method: `base=` with `method=`."""
    masked = train(small("train.steps=40", out=str(tmp_path / "masked")), quiet=True)
    method = {"kind": "block", "size": 8}
    block = train(
        small("train.steps=1", out=str(tmp_path / "block"), base=str(masked.folder), method=method), quiet=True
    )
    assert read_config(block.folder)["method"] == method
    fresh = train(small("train.steps=1", out=str(tmp_path / "fresh"), method=method), quiet=True)
    assert block.score.bits_per_byte < fresh.score.bits_per_byte - 0.5

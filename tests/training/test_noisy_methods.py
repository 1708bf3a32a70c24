"""Noise that looks like text, from recipe to text: every method trains and scores, and its saved model writes."""

import pytest
import torch

from unmask import load
from unmask.errors import UserError
from unmask.methods.method import Symbols
from unmask.models.checkpoint import read_config
from unmask.recipe import method_of
from unmask.run import train

METHODS = {
    "uniform": {"kind": "uniform"},
    "hybrid": {"kind": "hybrid", "uniform_share": 0.3},
    "structured": {"kind": "structured", "groups": 32, "near": 4},
    "sedd": {"kind": "sedd"},
    "sedd uniform": {"kind": "sedd", "graph": "uniform"},
}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_it_trains_scores_and_writes(small, method):
    result = train(small("train.steps=8", method=method), quiet=True)
    assert result.score is not None
    assert 0 < result.score.bits_per_byte < 20
    assert result.score.stderr > 0
    lm = load(result.folder, device="cpu")
    text = lm.generate("def ", max_tokens=12, seed=1)
    assert len(text.tokens) <= 12
    assert lm.tokenizer.mask_id not in text.tokens
    assert lm.fill("a = ", " + 1", tokens=3).text.startswith("a = ")
    assert lm.score("a + b").nats > 0


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_it_learns(small, method):
    result = train(small("train.steps=150", method=method), quiet=True)
    assert result.score.bits_per_byte < 6.5  # 8 bits is knowing nothing


def test_what_is_near_is_kept_with_the_model(small, tmp_path):
    """Groups by another model's embeddings: afterwards nobody needs that model."""
    first = train(small("train.steps=1", out=str(tmp_path / "first")), quiet=True)
    method = {"kind": "structured", "vectors": str(first.folder), "groups": 16, "near": 3}
    second = train(small("train.steps=1", out=str(tmp_path / "second"), method=method), quiet=True)
    kept = read_config(second.folder)["method"]
    assert kept["vectors"] is None
    assert len(set(kept["classes"])) == 16
    assert [len(row) for row in kept["edges"]] == [3] * 16
    for file in first.folder.rglob("*"):
        file.unlink()
    assert load(second.folder, device="cpu").generate("x", max_tokens=3).counts.forwards > 0


def test_a_base_that_cannot_see_the_noise_level_is_refused(small, tmp_path):
    masked = train(small("train.steps=1", out=str(tmp_path / "masked")), quiet=True)
    with pytest.raises(UserError, match="time"):
        train(small("train.steps=1", base=str(masked.folder), method={"kind": "uniform"}), quiet=True)


def test_the_mask_is_never_noise_nor_unknown_symbols():
    symbols = Symbols(vocab=20, mask_id=17, start_id=0, unused=(18, 19))
    for kind in ("uniform", "structured"):
        pi = method_of({"kind": kind}).process(symbols).pi
        assert (pi[17:] == 0).all()
        torch.testing.assert_close(pi[:17], torch.full((17,), 1 / 17, dtype=torch.float64))
    pi = method_of({"kind": "hybrid", "uniform_share": 0.25}).process(symbols).pi
    assert (pi[17], float(pi[18:].sum())) == (0.75, 0)

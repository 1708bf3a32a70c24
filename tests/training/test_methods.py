"""Every method of this file trains from a recipe, scores, and its saved model writes."""

import os
import signal

import pytest
import torch

from unmask.lm import load
from unmask.methods import block
from unmask.models.checkpoint import read_config
from unmask.objectives.clipping import Clipped
from unmask.run import train
from unmask.training.progress import read_metrics


@pytest.mark.parametrize(
    ("method", "bits"),
    [
        ({"kind": "block", "size": 4}, 5.2),
        ({"kind": "block", "size": 1, "masks": "independent"}, 5.2),
        ({"kind": "dream"}, 5.2),
        ({"kind": "joint", "size": 4}, 4.7),
        ({"kind": "joint", "size": 4, "measure": "blocks"}, 5.2),
        ({"kind": "masked_lm", "ratio": 0.5}, 5.4),
    ],
)
def test_it_learns_and_writes(small, method, bits):
    result = train(small("train.steps=60", method=method), quiet=True)
    assert result.score is not None
    assert result.score.bits_per_byte < bits  # 8 bits is knowing nothing
    assert len(load(result.folder).generate("the ", max_tokens=9, suppress_eos=True).tokens) == 9


def test_a_joint_model_writes_in_three_ways(small):
    model = load(train(small("train.steps=40", method={"kind": "joint", "size": 4}), quiet=True).folder)
    plain = model.generate("the ", max_tokens=12)
    quick = model.generate("the ", max_tokens=12, rule="self_speculation")
    assert quick.tokens == plain.tokens
    assert len(quick.decoded.drafts) == quick.counts.forwards <= plain.counts.forwards
    assert model.generate("the ", max_tokens=12, rule="first_hitting", temperature=1.0).counts.forwards > 0


def test_a_block_model_may_start_from_a_masked_one(small, tmp_path):
    """The same network and tokenizer under another method: `base=` with `method=`."""
    masked = train(small("train.steps=40", out=str(tmp_path / "masked")), quiet=True)
    method = {"kind": "block", "size": 8}
    recipe = small("train.steps=1", out=str(tmp_path / "block"), base=str(masked.folder), method=method)
    tuned = train(recipe, quiet=True)
    assert read_config(tuned.folder)["method"] == method
    fresh = train(small("train.steps=1", out=str(tmp_path / "fresh"), method=method), quiet=True)
    assert tuned.score.bits_per_byte < fresh.score.bits_per_byte - 0.5


def test_an_adapted_clip_survives_a_stop(small, tmp_path, monkeypatch):
    """Searched, logged, drawn; a run stopped after a search ends with the same weights as one that was left alone."""
    monkeypatch.setattr(block, "Clipped", lambda bound: Clipped(bound, every=3))
    method = {"kind": "block", "size": 4, "clip": "auto"}
    make = lambda out: small("train.steps=8", "train.save_every=4", method=method, out=str(tmp_path / out))  # noqa: E731
    whole = train(make("whole"), quiet=True)
    logged = [r for r in read_metrics(tmp_path / "whole" / "metrics.jsonl") if "clip_low" in r]
    assert [r["step"] for r in logged] == [3, 6]
    assert all(r["clip_high"] - r["clip_low"] > 0.49 for r in logged)
    assert (tmp_path / "whole" / "clip.png").stat().st_size > 5000

    real, calls = torch.nn.utils.clip_grad_norm_, []

    def interrupted(*args, **kwargs):
        calls.append(1)
        if len(calls) == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return real(*args, **kwargs)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", interrupted)
    assert train(make("halves"), quiet=True).summary.interrupted
    again = train(make("halves"), quiet=True)
    assert again.score == whole.score
    for folder in (whole.folder, again.folder):
        assert (folder / "model.safetensors").read_bytes() == (whole.folder / "model.safetensors").read_bytes()

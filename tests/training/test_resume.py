"""Kill a run at any instant, start it again: the weights at the end are those of a run that was left alone."""

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch

from unmask.errors import UserError
from unmask.run import train
from unmask.training import state

FORK = multiprocessing.get_context("fork")


def _child(recipe):
    torch.set_num_threads(1)
    train(recipe, quiet=True)


def _weights(folder: Path) -> bytes:
    return (folder / "model" / "model.safetensors").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "method", "kills"), [("fp32", "masked", 12), ("bf16", "masked", 4), ("fp32", "autoregressive", 4)]
)
def test_killed_runs_end_with_the_very_same_weights(small, tmp_path, dtype, method, kills):
    options = ["train.steps=80", "train.save_every=1", "train.ema=0.9", "model.dropout=0.1", f"dtype={dtype}"]
    make = lambda out: small(*options, method={"kind": method}, out=str(tmp_path / out))  # noqa: E731
    train(make("undisturbed"), quiet=True)
    rng, killed, folder = random.Random(f"{dtype}{method}"), 0, tmp_path / "killed"
    while True:
        child = FORK.Process(target=_child, args=(make("killed"),))
        child.start()
        if killed < kills:
            time.sleep(rng.uniform(0.02, 0.6))
            if child.is_alive():
                os.kill(child.pid, signal.SIGKILL)
                killed += 1
        child.join()
        for path in state.everything(folder / "checkpoints"):
            state.load(path)  # whatever has a checkpoint's name is whole
        if child.exitcode == 0:
            break
    assert killed == kills, "the run ended before enough kills; give it more steps"
    assert _weights(folder) == _weights(tmp_path / "undisturbed")


@pytest.mark.parametrize(
    ("optimizer", "method"),
    [
        ("muon", "masked"),
        ("adamw", "masked"),
        ("muon", "continuous"),
        ("adamw", {"kind": "masked", "feedback": "soft"}),
    ],
    ids=str,
)
def test_stopped_and_resumed_equals_undisturbed(small, tmp_path, optimizer, method, monkeypatch):
    """The same in one process: SIGINT after seven steps saves, the same call goes on."""
    options = [f"train.optimizer.kind={optimizer}", "train.save_every=3"]
    method = {"kind": method} if isinstance(method, str) else method
    train(small(*options, method=method, out=str(tmp_path / "a")), quiet=True)
    real, calls = torch.nn.utils.clip_grad_norm_, []

    def interrupted(*args, **kwargs):
        calls.append(1)
        if len(calls) == 7:
            os.kill(os.getpid(), signal.SIGINT)
        return real(*args, **kwargs)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", interrupted)
    first = train(small(*options, method=method, out=str(tmp_path / "b")), quiet=True)
    assert first.summary.interrupted
    assert first.summary.steps == 7
    second = train(small(*options, method=method, out=str(tmp_path / "b")), quiet=True)
    assert not second.summary.interrupted
    assert _weights(tmp_path / "a") == _weights(tmp_path / "b")


def test_a_finished_run_is_not_trained_again(small, tmp_path):
    train(small(), quiet=True)
    before = _weights(tmp_path / "run")
    assert train(small(), quiet=True).summary.steps == 20
    assert _weights(tmp_path / "run") == before


def _truncate(checkpoint: Path) -> None:
    file = checkpoint / "state.safetensors"
    file.write_bytes(file.read_bytes()[:-10])


def test_a_damaged_checkpoint_is_passed_over_and_said(small, tmp_path, capsys):
    """The run goes on from the one before it and ends with the same weights."""
    train(small("train.save_every=8"), quiet=True)
    before = _weights(tmp_path / "run")
    kept = state.everything(tmp_path / "run" / "checkpoints")
    assert [p.name for p in kept] == ["step-00000016", "step-00000020"]
    _truncate(kept[-1])
    capsys.readouterr()
    assert train(small("train.save_every=8")).summary.steps == 20
    said = capsys.readouterr().err
    assert "step-00000020 is damaged" in said
    assert "going on from step 16" in said
    assert _weights(tmp_path / "run") == before
    state.load(kept[-1])  # written anew


def test_only_damaged_checkpoints_are_one_clear_sentence(small, tmp_path):
    train(small(), quiet=True)
    for checkpoint in state.everything(tmp_path / "run" / "checkpoints"):
        _truncate(checkpoint)
    with pytest.raises(UserError, match=r"step-00000020/state\.safetensors"):
        train(small(), quiet=True)


def test_another_recipe_does_not_take_over_the_folder(small):
    train(small(), quiet=True)
    with pytest.raises(UserError, match="another recipe"):
        train(small("model.width=64"), quiet=True)

"""What a run tells: it gives back what it took, and counts as work what was asked for."""

import sys
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from unmask.denoiser import Denoiser
from unmask.errors import UserError
from unmask.models.config import ModelConfig
from unmask.models.transformer import Transformer
from unmask.run import train
from unmask.training import progress
from unmask.training.progress import read_metrics
from unmask.training.train import Trainer
from unmask.training.work import Work


@pytest.fixture
def network() -> Transformer:
    config = ModelConfig(vocab=20, width=16, layers=2, heads=2, context=8)
    return Transformer(config).initialise(torch.Generator().manual_seed(0)).train()


def test_work_is_what_was_asked_for(network):
    work = Work(network, torch.device("cpu"), torch.float32)
    denoiser, tokens = Denoiser(network, mask_id=19), torch.zeros(3, 8, dtype=torch.int64)
    denoiser(tokens)
    assert work.take(8) == 3 * 24 * network.matmul_flops(8)
    where = torch.zeros(3, 8, dtype=torch.bool)
    where[:, :2] = True
    denoiser(tokens, where=where)
    denoiser(tokens, where=where)
    assert work.take(8) == 3 * 48 * network.matmul_flops(8, 0.25)
    denoiser.eval()
    denoiser(tokens)  # a validation is no training
    assert work.take(8) == 0


def test_frozen_weights_need_no_gradient(network):
    for name, p in network.named_parameters():
        p.requires_grad_(name == "head.weight")
    work = Work(network, torch.device("cpu"), torch.float32)
    network(torch.zeros(1, 8, dtype=torch.int64))
    share = network.head.weight.numel() / sum(p.numel() for p in network.parameters())
    assert work.take(8) == pytest.approx((2 + share) * 8 * network.matmul_flops(8))


def test_the_peak_only_rises_and_is_seldom_measured(network, monkeypatch):
    rates, clock = iter([5.0, 3.0, 7.0]), iter([1.0, 1.0, 60.0, 62.0, 62.0, 125.0, 125.0])
    monkeypatch.setattr("unmask.training.work.matmul_peak", lambda *_: next(rates))
    monkeypatch.setattr("unmask.training.work.time", SimpleNamespace(monotonic=lambda: next(clock)))
    work, seen = Work(network, torch.device("cpu"), torch.float32), []
    for _ in range(4):
        work.measure_peak()
        seen.append(work.peak)
    assert seen == [5.0, 5.0, 5.0, 7.0]


class Tracker:
    """Stands in for wandb and tensorboard."""

    open = 0

    def __init__(self, folder):
        Tracker.open += 1
        assert Tracker.open == 1, "the run before did not end its tracker"
        self.records = []

    def write(self, record):
        self.records.append(record)

    def close(self):
        Tracker.open -= 1


def test_runs_follow_each_other_in_one_process(small, tmp_path, monkeypatch):
    """A broken run gives terminal and trackers back, so that the next one can have them."""
    monkeypatch.setitem(progress.TRACKERS, "wandb", Tracker)
    monkeypatch.setattr(progress, "Console", lambda **options: Console(force_terminal=True, **options))
    monkeypatch.setitem(sys.modules, "wandb", pytest)  # something that is installed
    real, calls = Trainer._step, []

    def breaks(self):
        calls.append(1)
        if len(calls) == 3:
            raise UserError("something broke")
        real(self)

    monkeypatch.setattr(Trainer, "_step", breaks)
    make = lambda name: small("train.log_to=[wandb]", "train.steps=5", out=str(tmp_path / name))  # noqa: E731
    with pytest.raises(UserError, match="something broke"):
        train(make("a"))
    train(make("b"), title="b")
    train(make("c"), title="c")
    assert Tracker.open == 0
    for name in "bc":
        assert [r["step"] for r in read_metrics(tmp_path / name / "metrics.jsonl")] == [5]


@pytest.mark.parametrize(("package", "options"), [("wandb", "train.log_to=[wandb]"), ("peft", "tune.lora.rank=2")])
def test_a_missing_package_is_one_sentence_before_anything_heavy(small, tmp_path, monkeypatch, package, options):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"{package}, which is not here; install unmask\["):
        train(small(options), quiet=True)
    assert not (tmp_path / "run").exists()

"""Noise, a schedule, a stepper and a rank of one's own: one short class each, named on the command line, and they work
in train, generate and compare. The package is not touched."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from command import Ran, unmask
from unmask.decoding.propose import Proposal
from unmask.decoding.select import Asked
from unmask.decoding.steppers import Move, Stepper, Tick, put
from unmask.lm import load
from unmask.methods.noisy import Noisy, Per
from unmask.noise.draws import seeded
from unmask.noise.kernels import KernelNoise
from unmask.noise.process import Process
from unmask.noise.schedule import Linear, Schedule


@dataclass(frozen=True)
class Quarters(Noisy):
    """A noise: a token becomes another of its quarter of the vocabulary, seldom one of another quarter."""

    stay: float = 0.7
    schedule: Schedule = Linear()
    per: Per = "answer"

    def noise(self, vocab: int, mask_id: int, barred: Sequence[int]) -> KernelNoise:
        quarter = torch.arange(vocab) * 4 // vocab
        moves = self.stay * torch.eye(4) + (1 - self.stay) / 4
        return KernelNoise.over(moves, self.schedule, quarter, [b for b in barred if b >= 0])


@dataclass(frozen=True)
class Late:
    """A schedule: text stays whole for long and fades at the end, alpha = 1 - t^n."""

    n: float = 3.0

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t**self.n

    def slope(self, t: Tensor) -> Tensor:
        return -self.n * t ** (self.n - 1)

    def time(self, alpha: Tensor) -> Tensor:
        return (1 - alpha) ** (1 / self.n)


@dataclass(frozen=True)
class EvenFirst(Stepper):
    """A stepper: every second open position in one pass, the others, which then see them, in the next."""

    proposal: Proposal

    def ask(self, tick: Tick) -> Tensor:
        even = tick.open & (tick.position % 2 == 0)
        return torch.where(even.any(1, keepdim=True), even, tick.open)

    def move(self, process: Process, tick: Tick, asked: Tensor, values: Tensor) -> Move:
        x = tick.x[asked]
        logp = process.beliefs(x, values.log_softmax(-1), tick.t[asked])
        tokens = self.proposal.draw(logp, tick.draws().at(asked))
        sure = tick.spread(logp.gather(-1, tokens[:, None]).squeeze(-1).exp(), asked)
        x = process.write(x, tokens, torch.ones_like(tokens, dtype=torch.bool))
        return Move(put(tick.x, asked, x), tick.t.masked_fill(asked, 0.0), asked, sure, torch.ones_like(tick.left))


@dataclass(frozen=True)
class Backwards:
    """A rank: from right to left, the next `stride` positions in any order."""

    stride: int = 1

    def __call__(self, asked: Asked) -> Tensor:
        return (asked.position // self.stride).double()


MINE = {cls: f"{__name__}:{cls.__name__}" for cls in (Quarters, Late, EvenFirst, Backwards)}
NAMED = {cls.__name__: name for cls, name in MINE.items()}
SMALL = ["tokenizer.kind=bytes", "model.width=16", "model.layers=1", "model.heads=2", "model.context=32"]
SHORT = ["train.batch=4", "train.eval_draws=2", "--device", "cpu", "--dtype", "fp32", "--json"]


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("pack my box with five dozen liquor jugs. " * 60, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def trained(text, tmp_path_factory) -> tuple[Ran, Path]:
    """A model of one's own noise, which fades by one's own schedule."""
    out = tmp_path_factory.mktemp("runs") / "mine"
    method = [f"method.kind={NAMED['Quarters']}", f"method.schedule.kind={NAMED['Late']}", "method.schedule.n=2"]
    return unmask("train", f"data.source={text}", *SMALL, *method, "train.steps=3", "--out", out, *SHORT, "-q"), out


@pytest.mark.parametrize("mine", MINE)
def test_each_is_a_class_of_at_most_forty_lines(mine):
    assert len(inspect.getsource(mine).splitlines()) <= 40


def test_they_train(trained):
    ran, out = trained
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["bits_per_byte"] < 20
    method = load(out, device="cpu", trust=True).method
    assert method == Quarters(schedule=Late(n=2.0))


def test_the_noise_is_the_one_written_here():
    """After n jumps, n a Poisson number, a token is still in its quarter with chance 1/4 + 3/4 stay^n."""
    method = Quarters(schedule=Late())
    noise = method.noise(80, 79, [79])
    t = torch.full((400, 50), 0.8)
    x0 = torch.full((400, 50), 3)
    same = (noise.corrupt(x0, t, seeded(0)) < 20).double().mean()
    jumps = -math.log(1 - 0.8**3)
    assert abs(float(same) - (0.25 + 0.75 * math.exp(-jumps * (1 - method.stay)))) < 0.02


@pytest.mark.parametrize("rule", ["EvenFirst", "Backwards"])
def test_they_generate(trained, rule):
    words = ("generate", trained[1], "pack my", "max_tokens=8", f"rule={NAMED[rule]}", "trust=true", "temperature=1")
    ran = unmask(*words, "--json")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert found["counts"]["forwards"] == (2 if rule == "EvenFirst" else 8)
    assert len(found["tokens"]) == 8 or found["finish_reason"] == "stop"


def test_options_are_given_by_name(trained):
    rule = "rule={kind: %s, stride: 4}" % NAMED["Backwards"]  # noqa: UP031
    ran = unmask("generate", trained[1], "pack my", "max_tokens=8", rule, "trust=true", "steps=2", "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["counts"]["forwards"] == 2


def test_a_model_that_names_code_is_not_loaded_unasked(trained):
    ran = unmask("generate", trained[1], "pack my", "max_tokens=8")
    assert ran.code == 2
    assert NAMED["Quarters"] in ran.err


def test_they_are_compared(text, tmp_path):
    mine = f"{NAMED['Quarters']}:stay=0.9:schedule={NAMED['Late']}"
    rules = f"rules=[own,{NAMED['EvenFirst']},{NAMED['Backwards']}]"
    small = ["tokens=256", "samples=2", "write=6", "prompt=6", "passes=[1]", "gaps=2", "gap_tokens=2", "facts=0"]
    given = ["--data", text, "--methods", f"autoregressive,{mine}", "--out", tmp_path / "out"]
    ran = unmask("compare", *SMALL, *small, "eval_batches=2", rules, *given, *SHORT)
    assert ran.code == 0, ran.err
    row = json.loads(ran.out)["rows"][1]
    assert row["method"] == mine
    assert row["notes"] == {}
    points = {p["rule"]: p for p in row["quality"]}
    assert points[NAMED["EvenFirst"]]["passes"] == 2
    assert points[NAMED["Backwards"]]["passes"] == 6
    assert all(p["judge_nats"] > 0 for p in points.values())

"""A run from its recipe: what is refused before anything heavy, what a base brings, what is scored."""

import json
import math
from types import SimpleNamespace

import pytest
import torch

from unmask import run
from unmask.data.tokenizer import load_tokenizer
from unmask.errors import UserError
from unmask.lm import load
from unmask.recipe import Recipe, for_tuning, load_recipe
from unmask.run import train, tune

CHAT = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]}


@pytest.fixture
def base(small, tmp_path):
    return str(train(small("train.steps=2", out=str(tmp_path / "base")), quiet=True).folder)


@pytest.fixture
def heavy(monkeypatch):
    """From here on, reading data, loading weights and training fail the test."""

    def explode(*_, **__):
        pytest.fail("something heavy was begun")

    for module, name in [(run, "open_base"), (run, "fresh"), (run, "Trainer"), (run, "Accelerator")]:
        monkeypatch.setattr(module, name, explode)
    monkeypatch.setattr("unmask.task.prepare", explode)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["train.length=33"], "train.length=33: the base's context is 32 tokens"),
        (["model.width=64"], "model.width=64: the base has 32, which stays"),
        (["model.dropout=0.1"], "model.dropout=0.1: the base has 0.0"),
        (["tokenizer.kind=bytes"], "tokenizer.kind='bytes': the base brings its own tokenizer"),
        (["tokenizer.vocab_size=512"], "tokenizer.*the base brings its own"),
        (["device=mps"], "device: 'mps' is not supported"),
        (["device=meta"], "device: 'meta' is not supported"),
        (["dtype=fp8"], "dtype: 'fp8'"),
    ],
)
def test_what_a_base_cannot_give_is_said_before_anything_heavy(small, base, heavy, options, says):
    with pytest.raises(UserError, match=says):
        train(small(*options, base=base), quiet=True)


def test_a_base_that_a_method_cannot_use_is_said_before_anything_heavy(small, base, heavy, monkeypatch):
    from unmask.methods.masked import Masked

    monkeypatch.setattr(Masked, "shape", lambda self, config: config.model_copy(update={"time": "adaln"}))
    with pytest.raises(UserError, match=r"method masked needs model.time='adaln', the base has 'none'"):
        train(small(base=base), quiet=True)


def test_adapters_need_something_to_adapt(small, heavy):
    with pytest.raises(UserError, match=r"tune\.lora: there is no model to adapt"):
        train(small("tune.lora.rank=2"), quiet=True)


def test_the_same_shape_may_be_said_again(small, base):
    assert train(small("model.width=32", "train.steps=1", base=base), quiet=True).summary.steps == 1


def test_a_method_gets_the_network_it_needs(small, monkeypatch):
    from unmask.methods.masked import Masked

    monkeypatch.setattr(Masked, "shape", lambda self, config: config.model_copy(update={"time": "adaln"}))
    folder = train(small("train.steps=1"), quiet=True).folder
    assert json.loads((folder / "config.json").read_text())["model"]["time"] == "adaln"


# -- tuning


def test_tuning_has_step_sizes_of_its_own():
    plain = for_tuning(Recipe())
    assert plain.build_plan().lr == 3e-4
    assert type(plain.build_plan()).__name__ == "AdamWPlan"
    assert (plain.out, plain.train.budget) == ("runs/tuned", ("steps", 500))


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["train.optimizer.lr=1e-5"], {"kind": "adamw", "lr": 1e-5, "weight_decay": 0.0}),
        (["train.optimizer.kind=muon"], {"kind": "muon"}),
        (["train.warmup=0.3"], {"kind": "adamw", "lr": 3e-4, "weight_decay": 0.0}),
    ],
)
def test_what_the_user_says_of_tuning_stays(overrides, expected):
    said = load_recipe(None, overrides)
    found = for_tuning(said)
    assert found.train.optimizer == expected
    assert found.train.warmup == (0.3 if "warmup" in overrides[0] else 0.1)


def test_a_budget_of_any_kind_replaces_the_usual_one():
    assert for_tuning(load_recipe(None, ["train.minutes=3"])).train.budget == ("minutes", 3)


def test_tuning_without_a_recipe_does_the_same_as_with_it(base, tmp_path):
    chats = tmp_path / "chats.jsonl"
    chats.write_text("".join(json.dumps(CHAT) + "\n" for _ in range(20)), encoding="utf-8")
    weights = []
    for name, recipe in (("a", None), ("b", "tune")):
        options = [f"data.source={chats}", "train.steps=3", "train.batch=4", "device=cpu", "dtype=fp32"]
        done = tune(load_recipe(recipe, options, base=base, out=str(tmp_path / name)), quiet=True)
        weights.append((done.folder / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]


# -- going on


def test_a_finished_run_goes_on_with_a_larger_budget(small):
    assert train(small("train.steps=3"), quiet=True).summary.steps == 3
    assert train(small("train.steps=5", "train.log_every=1"), quiet=True).summary.steps == 5


def test_an_unfinished_model_says_so(small, monkeypatch):
    assert load(train(small("train.steps=2"), quiet=True).folder).config["training"]["finished"] is True


# -- the score


def test_bits_per_byte_are_of_the_bytes_that_were_scored(small, tmp_path):
    """Rows from all over a validation part whose tokens are of unequal length: no mean may stand in for them."""
    text = "".join("word " * 8 + "\u00e9\u20ac\U0001f600" * 8 + "\n" for _ in range(300))
    (tmp_path / "valid.txt").write_text(text, encoding="utf-8")
    options = [
        "tokenizer.kind=bpe",
        "tokenizer.vocab_size=300",
        f"data.valid={tmp_path / 'valid.txt'}",
        "train.steps=1",
    ]
    done = train(small(*options, method={"kind": "autoregressive"}), quiet=True)
    assert done.score is not None
    tokenizer = load_tokenizer(done.folder)
    exact = load(done.folder, dtype="fp32").score(text)
    assert done.score.bytes < len(text.encode())  # 256 rows of 32 tokens, of more
    assert math.isclose(done.score.bytes / done.score.tokens, exact.bytes / exact.tokens, rel_tol=0.05)
    rows = run.Texts().held_out(
        small(*options), SimpleNamespace(valid=_store(tokenizer, text), tokenizer=tokenizer), 256
    )
    assert done.score.bytes == run.bytes_of(rows, tokenizer)


def _store(tokenizer, text):
    from unmask.data.packing import TokenStore

    return TokenStore.from_documents(tokenizer.documents([text]))


# -- devices


def test_the_number_of_a_gpu_is_kept(small, monkeypatch):
    chosen = []
    monkeypatch.setattr(run, "pick_device", lambda name: torch.device(name))
    monkeypatch.setattr(run, "pick_dtype", lambda *_: torch.float32)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(run, "Accelerator", lambda **_: SimpleNamespace(num_processes=1))
    run.accelerate_for(small("device=cuda:1"))
    assert chosen == [torch.device("cuda:1")]

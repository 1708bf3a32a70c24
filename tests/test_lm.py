"""The Python facade: what a user gets from `unmask.load`."""

from pathlib import Path

import pytest
import torch

import unmask
from unmask import UserError
from unmask.data.tokenizer import bytes_tokenizer
from unmask.models.checkpoint import save_model
from unmask.models.config import ModelConfig
from unmask.models.transformer import Transformer
from unmask.recipe import load_recipe
from unmask.run import train

LINE = "pack my box with five dozen liquor jugs. "


@pytest.fixture(scope="module")
def lm(tmp_path_factory) -> unmask.LanguageModel:
    root = tmp_path_factory.mktemp("lm")
    (root / "text.txt").write_text(LINE * 80, encoding="utf-8")
    options = [f"data.source={root / 'text.txt'}", "tokenizer.kind=bytes", "model.width=32", "model.layers=2"]
    options += ["model.heads=2", "model.context=64", "train.steps=30", "train.batch=4", "device=cpu", "dtype=fp32"]
    train(load_recipe(None, options, out=str(root / "run")), quiet=True)
    return unmask.load(root / "run", dtype="fp32")


def of_random_weights(folder: Path, kind: str, **shape) -> unmask.LanguageModel:
    spelling = bytes_tokenizer()
    network = Transformer(ModelConfig(vocab=len(spelling), width=16, layers=1, heads=2, context=24, **shape))
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(torch.randn(p.shape, generator=rng) * 0.2)
    method = {"kind": kind, **({"size": 4} if kind == "block" else {})}
    save_model(folder, network, {"method": method, "name": kind}, spelling.save)
    return unmask.load(folder, device="cpu", dtype="fp32")


@pytest.mark.parametrize("kind", ["block", "autoregressive"])
def test_a_model_that_never_looks_ahead_writes_beyond_its_context(tmp_path, kind):
    """Not if it has learnt its positions one by one."""
    boundless = of_random_weights(tmp_path / "rope", kind)
    text = boundless.generate("pack", max_tokens=60, temperature=1.0, suppress_eos=True)
    assert (boundless.context, boundless.boundless, len(text.tokens)) == (24, True, 60)
    assert text.tokens[:12] == boundless.generate("pack", max_tokens=12, temperature=1.0, suppress_eos=True).tokens
    assert len(boundless.generate("a prompt longer than that", max_tokens=3, suppress_eos=True).tokens) == 3
    ends = boundless.generate("pack", max_tokens=10**15, temperature=1.5)
    assert ends.finish_reason == "stop"
    with pytest.raises(UserError, match="steps=5: nobody knows how many tokens"):
        boundless.generate("pack", max_tokens=60, steps=5)
    bounded = of_random_weights(tmp_path / "learned", kind, positions="learned")
    for prompt, tokens in [("pack", 60), ("a prompt longer than that", 1)]:
        with pytest.raises(UserError, match=r"^prompt: .*the model's context (of|is) 24; shorten it$"):
            bounded.generate(prompt, max_tokens=tokens)
    assert not bounded.boundless


def test_a_canvas_that_grows_may_fill_the_context(tmp_path):
    masked = of_random_weights(tmp_path / "masked", "masked")
    grow = {"kind": "daedal", "initial": 4, "window": 4}
    assert len(masked.generate("pack", grow=grow, ban=[masked.tokenizer.eos_id]).tokens) == 20
    assert len(masked.generate("pack", grow=grow, ban=[masked.tokenizer.eos_id], max_tokens=6).tokens) == 6
    with pytest.raises(UserError, match="the model's context is 24; shorten it"):
        masked.generate("pack", grow=grow, max_tokens=21)


def test_a_batch_gives_each_prompt_what_it_gets_alone(lm):
    prompts = ["pack", "my box with five", ""]
    options = {"max_tokens": 10, "temperature": 1.0, "seed": 5, "steps": 5}
    together = lm.generate(prompts, **options)
    assert [t.tokens for t in together] == [lm.generate(p, **options).tokens for p in prompts]


def test_generate_reports_what_it_did(lm):
    events = []
    text = lm.generate("pack my ", max_tokens=8, steps=4, observe=events.append)
    assert len(events) == text.counts.forwards <= 4
    assert text.counts.written == len(text.tokens)
    assert text.finish_reason in ("stop", "length")
    assert text.text == lm.tokenizer.decode(text.tokens) == str(text)


def test_fill_takes_parts_or_marks(lm):
    parts = lm.fill("pack my ", " with five ", " jugs", tokens=[3, 5])
    marks = lm.fill("pack my <gap:3> with five <gap:5> jugs")
    assert parts.tokens == marks.tokens
    assert parts.text == f"pack my {parts.gaps[0]} with five {parts.gaps[1]} jugs"
    assert len(parts.tokens) == len("pack my  with five  jugs") + 8


def test_samples_of_a_prompt_are_what_their_seeds_give_alone(lm):
    options = {"max_tokens": 8, "temperature": 1.0}
    alone = [lm.generate("pack", seed=7 + i, **options).tokens for i in range(3)]
    assert [t.tokens for t in lm.generate("pack", seed=7, samples=3, **options)] == alone
    assert [t.tokens for t in lm.generate("pack", seed=7, samples=1, **options)] == alone[:1]
    both = lm.generate(["pack", "my"], seed=7, samples=2, **options)
    assert [t.tokens for t in both[:2]] == alone[:2]
    assert len(both) == 4
    gaps = lm.fill("pack my ", " jugs", tokens=5, seed=3, samples=2, temperature=1.0)
    assert [t.tokens for t in gaps] == [
        lm.fill("pack my ", " jugs", tokens=5, seed=s, temperature=1.0).tokens for s in (3, 4)
    ]
    assert len(lm.chat([{"role": "user", "content": "hi"}], samples=2, max_tokens=3)) == 2


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda lm: lm.fill("a", "b", tokens=0), "0 tokens"),
        (lambda lm: lm.fill("a", "b", "c", tokens=[1]), "2 gaps"),
        (lambda lm: lm.fill("no gap"), "<gap>"),
        (lambda lm: lm.generate("a", max_token=3), "max_token"),
        (lambda lm: lm.generate("a", max_tokens=0), "max_tokens=0"),
        (lambda lm: lm.generate("a", seed=2**63), "seed"),
        (lambda lm: lm.generate("a", samples=0), "samples=0"),
        (lambda lm: lm.generate("a\ud800"), "lone surrogate"),
        (lambda lm: lm.fill("a", "b", max_tokens=3), "max_tokens"),
        (lambda lm: lm.fill("a", "b", tokens=10**13), "context is 64"),
        (lambda lm: lm.generate("a" * 65), "context of 64"),
        (lambda lm: lm.generate("a <|mask|>"), "mask"),
        (lambda lm: lm.score(""), "empty"),
        (lambda lm: lm.score("a" * 60, prompt="b" * 10), "context"),
        (lambda lm: lm.chat([{"role": "wizard", "content": "hi"}]), "wizard"),
    ],
)
def test_what_cannot_be_done_is_said(lm, call, words):
    with pytest.raises(UserError, match=words):
        call(lm)


def test_scores_add_up(lm):
    score = lm.score(LINE * 4, draws=32)
    assert score.tokens == score.bytes == 4 * len(LINE)
    assert 0 < score.bits_per_byte < 8
    assert score.stderr > 0
    assert lm.score(LINE * 4, draws=32).nats == score.nats
    likely, unlikely = (lm.score(end, prompt="pack my box with ", draws=64) for end in ("five", "vefi"))
    assert likely.nats < unlikely.nats


def test_a_saved_copy_is_the_same_model(lm, tmp_path):
    lm.save(tmp_path / "copy")
    copy = unmask.load(tmp_path / "copy", dtype="fp32")
    assert copy.generate("pack", max_tokens=6).tokens == lm.generate("pack", max_tokens=6).tokens
    assert {p.name for p in (tmp_path / "copy").iterdir()} >= {"config.json", "model.safetensors", "tokenizer.json"}


def test_a_tuned_conversation_has_a_next_turn(lm):
    text = lm.chat([{"role": "user", "content": "hi"}], max_tokens=4)
    assert len(text.tokens) <= 4


def test_pushing_uploads_the_saved_folder(lm, monkeypatch):
    import huggingface_hub

    seen: dict[str, object] = {}

    class Api:
        def __init__(self, token=None):
            seen["token"] = token

        def create_repo(self, repo_id, *, private, exist_ok):
            seen["repo"] = (repo_id, private, exist_ok)

        def upload_folder(self, *, repo_id, folder_path):
            seen["files"] = sorted(p.name for p in Path(folder_path).iterdir())
            return "address"

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    assert lm.push_to_hub("me/mine", private=True) == "address"
    assert seen["repo"] == ("me/mine", True, True)
    assert "model.safetensors" in seen["files"]


def test_the_package_comes_with_a_model():
    small = unmask.load(device="cpu")
    assert small.parameters > 1e6
    # it knows its corpus: real code is more probable than the same characters shuffled
    code = "def __init__(self, name):\n        self.name = name\n"
    shuffled = "".join(sorted(code))
    assert small.score(code).nats < 0.5 * small.score(shuffled).nats
    assert "self" in small.fill("def __init__(self, name):\n        ", ".name = name\n", tokens=1).gaps[0]

"""The commands as a user types them: what they print, and the one sentence for each kind of bad input."""

import errno
import json
import os
from pathlib import Path

import pytest
import yaml

from unmask import cli, folder
from unmask.cli.words import text_and_overrides

SMALL = ["tokenizer.kind=bytes", "model.width=32", "model.layers=2", "model.heads=2", "model.context=48"]
SHORT = ["train.steps=8", "train.batch=4", "train.eval_draws=2"]
COMMON = ["--device", "cpu", "--dtype", "fp32", "-q"]


@pytest.fixture
def unmask(monkeypatch, capsys):
    """Run a command; returns (exit code, standard output, standard error)."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["unmask", *map(str, words)])
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(bool(stop.code))
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("pack my box with five dozen liquor jugs. " * 60, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> dict[str, Path]:
    """One trained model of each method."""
    from unmask.recipe import load_recipe
    from unmask.run import train

    root = tmp_path_factory.mktemp("models")
    (root / "text.txt").write_text("pack my box with five dozen liquor jugs. " * 60, encoding="utf-8")
    options = [f"data.source={root / 'text.txt'}", *SMALL, *SHORT, "device=cpu", "dtype=fp32"]
    make = lambda kind: load_recipe(None, options, method={"kind": kind}, out=str(root / kind))  # noqa: E731
    return {kind: train(make(kind), quiet=True).folder.parent for kind in ("masked", "autoregressive")}


def refused(result: tuple[int, str, str], *words: str) -> None:
    code, out, err = result
    assert code == 2, err
    assert out == ""
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    for word in words:
        assert word in err, err


# -- what works


def test_train_prints_one_json_object(unmask, text, tmp_path):
    code, out, _ = unmask("train", f"data.source={text}", *SMALL, *SHORT, "--out", tmp_path / "run", "--json", *COMMON)
    found = json.loads(out)
    assert code == 0
    assert found["steps"] == 8
    assert found["bits_per_byte"] > 0
    assert (Path(found["model"]) / "model.safetensors").is_file()


def test_train_reads_a_recipe_and_overrides(unmask, text, tmp_path):
    recipe = tmp_path / "mine.yaml"
    tree = {"data": {"source": str(text)}, "tokenizer": {"kind": "bytes"}, "train": {"steps": 3, "batch": 2}}
    tree["model"] = {"width": 32, "layers": 1, "heads": 2, "context": 32}
    recipe.write_text(yaml.safe_dump(tree), encoding="utf-8")
    code, out, _ = unmask("train", recipe, "train.steps=5", "--out", tmp_path / "run", "--json", *COMMON)
    assert (code, json.loads(out)["steps"]) == (0, 5)


def test_generate_is_the_same_for_the_same_seed(unmask, models):
    words = ("generate", models["masked"], "pack my", "max_tokens=12", "temperature=1", "--seed", 3, "--json")
    first, again = json.loads(unmask(*words)[1]), json.loads(unmask(*words)[1])
    other = json.loads(unmask(*words[:-2], 4, "--json")[1])
    assert first["tokens"] == again["tokens"]
    assert first["tokens"] != other["tokens"]
    assert first["counts"]["forwards"] <= 12


def test_generate_with_an_autoregressive_model(unmask, models):
    code, out, _ = unmask("generate", models["autoregressive"], "pack my", "max_tokens=5", "--json")
    assert code == 0
    assert json.loads(out)["counts"]["forwards"] <= 5


def test_fill_keeps_both_sides(unmask, models):
    code, out, _ = unmask("fill", models["masked"], "pack <gap:3> box <gap> five", "gap_tokens=2", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["text"].startswith("pack ")
    assert found["text"].endswith(" five")
    assert len(found["gaps"]) == 2


def test_a_replay_page_is_written(unmask, models, tmp_path):
    page = tmp_path / "replay.html"
    code, _, err = unmask("generate", models["masked"], "pack", "max_tokens=6", "--html", page)
    assert code == 0, err
    assert "<html" in page.read_text(encoding="utf-8")


def test_score_of_a_file_and_of_a_continuation(unmask, models, text):
    whole = json.loads(unmask("score", models["autoregressive"], text, "--json")[1])
    assert whole["exact"] is True
    assert whole["bytes"] == len(text.read_bytes())
    ends = unmask("score", models["masked"], "--text", "five dozen", "--prompt", "pack my box with ", "--json")
    assert json.loads(ends[1])["tokens"] == len("five dozen")


def test_info_names_the_model_and_the_machine(unmask, models):
    assert json.loads(unmask("info", models["masked"], "--json")[1])["context"] == 48
    assert "torch" in unmask("info")[1]
    assert "demo" in unmask("info", "recipes")[1]


def test_tune_learns_answers_and_writes_them(unmask, models, tmp_path):
    chats = tmp_path / "chats.jsonl"
    turn = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]
    chats.write_text("\n".join(json.dumps({"messages": turn}) for _ in range(30)), encoding="utf-8")
    common = [f"base={models['masked']}", f"data.source={chats}", *SHORT, "train.length=48", "tune.lora.rank=4"]
    code, out, err = unmask("tune", *common, "--out", tmp_path / "tuned", "--json", *COMMON)
    assert code == 0, err
    assert json.loads(out)["steps"] == 8
    code, _, err = unmask("generate", tmp_path / "tuned", "hi", "max_tokens=4", "--chat")
    assert code == 0, err


def test_samples_are_the_seeds_one_after_the_other(unmask, models):
    words = ("generate", models["masked"], "pack my", "max_tokens=6", "temperature=1", "--json", "--seed")
    alone = [json.loads(unmask(*words, seed)[1])["tokens"] for seed in (4, 5, 6)]
    together = json.loads(unmask(*words, 4, "samples=3")[1])["samples"]
    assert [text["tokens"] for text in together] == alone
    assert len({tuple(tokens) for tokens in alone}) > 1
    filled = json.loads(unmask("fill", models["masked"], "a<gap:4>b", "samples=2", "--json")[1])["samples"]
    assert len(filled) == 2


def test_samples_are_printed_and_replayed_one_by_one(unmask, models, tmp_path):
    page = tmp_path / "replay.html"
    code, out, err = unmask("generate", models["masked"], "pack", "max_tokens=4", "samples=2", "--html", page)
    assert code == 0, err
    assert out.count("--- seed") == 2
    assert out.count("pack") >= 2
    assert "Text 2" in page.read_text(encoding="utf-8")


def test_every_option_of_decoding_is_one_of_every_way_to_ask(unmask):
    from dataclasses import fields

    from unmask.decoding.settings import Decoding
    from unmask.request import KNOWN, Fill, Generate

    names = {f.name for f in fields(Decoding)} - KNOWN
    assert names <= Generate.model_fields.keys()
    assert names <= Fill.model_fields.keys()
    told = json.loads(unmask("info", "keys", "--json")[1])
    assert {f"generate: {name}" for name in names} <= told.keys()
    assert "train, tune, demo: train.optimizer" in told
    assert "fill: max_tokens" not in told


def test_version(unmask):
    from unmask import __version__

    assert unmask("--version") == (0, f"unmask {__version__}\n", "")


def test_info_looks_at_the_device_that_is_named(unmask):
    found = json.loads(unmask("info", "--device", "cpu", "--dtype", "fp32", "--json")[1])
    assert (found["device"], found["dtype"]) == ("cpu", "float32")
    refused(unmask("info", "--device", "mps"), "mps", "cuda")


# -- what is refused


@pytest.fixture
def unloadable(monkeypatch):
    """From here on no model can be loaded and no run begun: what is refused is refused before that."""

    def explode(*_, **__):
        pytest.fail("something heavy was begun")

    monkeypatch.setattr("unmask.lm.load_model", explode)
    monkeypatch.setattr("unmask.lm.model_folder", explode)
    monkeypatch.setattr("unmask.run.Trainer", explode)
    monkeypatch.setattr("unmask.task.prepare", explode)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("generate", "hi", "rule=confidense"), ["rule", "confidense", "confidence"]),
        (("generate", "hi", "top_p=1.5"), ["top_p=1.5"]),
        (("generate", "hi", "temperature=-1"), ["temperature=-1"]),
        (("generate", "hi", "threshold=2"), ["threshold"]),
        (("generate", "hi", "steps=0"), ["steps=0"]),
        (("generate", "hi", "steps=abc"), ["steps", "abc"]),
        (("generate", "hi", "max_tokens=0"), ["max_tokens=0"]),
        (("generate", "hi", "samples=0"), ["samples=0"]),
        (("generate", "hi", "--seed", 2**64), ["seed"]),
        (("generate", "hi", "--seed", 2**63 - 1, "samples=2"), ["seed", "64 bits"]),
        (("generate", "hi", "--seed", -1), ["seed=-1"]),
        (("generate", "ab\udc80c"), ["character 2", "surrogate"]),
        (("generate", "hi", "--html", "nowhere/page.html"), ["html", "nowhere"]),
        (("generate", "hi", "--html", "."), ["html", "folder"]),
        (("fill", "a <gap> b", "max_tokens=3"), ["max_tokens", "gap_tokens"]),
        (("fill", "no gap"), ["<gap>"]),
        (("fill", "a <gap:0> b"), ["0 tokens"]),
        (("fill", "a <gap:10000000000000> b"), ["<gap:10000000000000>", "fewer"]),
        (("fill", f"a <gap:{'9' * 5000}> b"), ["fewer"]),
        (("fill", "a <gap> b", "rule=ancestrale"), ["ancestral"]),
        (("score", "--text", "abc", "draws=0"), ["draws=0"]),
        (("score", "nowhere.txt"), ["nowhere.txt"]),
        (("score", "--text", "ab\udc80c"), ["surrogate"]),
        (("train", "seed=18446744073709551616"), ["seed"]),
        (("train", "device=mps"), ["device", "mps"]),
        (("train", "device=meta"), ["device", "meta"]),
        (("tune", "base=nowhere"), ["nowhere"]),
        (("demo", "model.width=7"), ["width=7"]),
    ],
)
def test_bad_input_is_refused_before_anything_is_loaded(unmask, unloadable, tmp_path, monkeypatch, words, says):
    monkeypatch.chdir(tmp_path)
    refused(unmask(*words), *says)


def test_a_gap_longer_than_the_context_builds_nothing(unmask, models):
    refused(unmask("fill", models["masked"], "a <gap:900000000> b"), "context is 48")


def test_missing_file(unmask, tmp_path, text):
    refused(unmask("train", f"data.source={tmp_path / 'texd.txt'}", *SMALL, "--out", tmp_path / "r"), "text.txt")


def test_empty_corpus(unmask, tmp_path):
    (tmp_path / "empty.txt").write_text("")
    refused(unmask("train", f"data.source={tmp_path / 'empty.txt'}", *SMALL, "--out", tmp_path / "r"), "empty")


def test_wrong_field_name(unmask, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"body": "abc"}\n', encoding="utf-8")
    refused(unmask("train", f"data.source={rows}", "data.field=text", *SMALL, "--out", tmp_path / "r"), "text", "body")


def test_not_utf8(unmask, tmp_path):
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9 au lait")
    refused(
        unmask("train", f"data.source={tmp_path / 'latin.txt'}", *SMALL, "--out", tmp_path / "r"), "latin.txt", "UTF-8"
    )


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.stepz=3", ["train.stepz", "steps"]),
        ("modle.width=3", ["modle", "model"]),
        ("method.kind=maskd", ["method.kind", "masked"]),
        ("method.shedule=linear", ["method.shedule", "schedule"]),
        ("method.schedule=cosin", ["method.schedule", "cosine"]),
        ("train.optimizer.kind=adam", ["train.optimizer.kind", "adamw"]),
        ("model.width=-8", ["model.width=-8"]),
        ("train.batch=0", ["train.batch=0"]),
        ("model.heads=3", ["heads=3"]),
        ("train.minutes=1", ["minutes", "steps"]),
        ("device=gpu9", ["device", "gpu9"]),
        ("dtype=fp8", ["dtype", "fp8"]),
        ("train.steps", ["train.steps", "key=value"]),
    ],
)
def test_recipes_are_refused_before_anything_heavy(unmask, text, tmp_path, override, words):
    keep = [o for o in SMALL if not o.startswith(override.partition("=")[0] + "=")]
    command = ["train", f"data.source={text}", "train.steps=4", *keep, override, "--out", tmp_path / "r"]
    refused(unmask(*command), *words[:1])
    if "=" in override:
        refused(unmask(*command), *words)


def test_unknown_option_of_generate(unmask, models):
    refused(unmask("generate", models["masked"], "pack", "temprature=1"), "temprature", "temperature")


def test_prompt_longer_than_the_context(unmask, models):
    refused(unmask("generate", models["masked"], "x" * 60), "context of 48")
    refused(unmask("generate", models["masked"], "x" * 40, "max_tokens=20"), "context is 48")


def test_mask_token_in_the_prompt(unmask, models):
    refused(unmask("generate", models["masked"], "a <|mask|> b"), "<|mask|>")
    refused(unmask("fill", models["masked"], "a <|mask|> b <gap>"), "<|mask|>")


def test_filling_without_a_gap_or_without_both_sides(unmask, models):
    refused(unmask("fill", models["masked"], "no gap here"), "<gap>")
    refused(unmask("fill", models["autoregressive"], "a <gap> b"), "autoregressive")


def test_a_model_that_is_not_there(unmask, models):
    refused(unmask("generate", models["masked"].parent / "maskd", "hi"), "masked")


def damaged(models, tmp_path, name: str, change) -> Path:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(models["masked"] / "model", copy)
    (copy / name).write_bytes(change((copy / name).read_bytes()))
    return copy


def test_a_truncated_model(unmask, models, tmp_path):
    copy = damaged(models, tmp_path, "model.safetensors", lambda raw: raw[:-100])
    refused(unmask("generate", copy, "hi"), "model.safetensors")


def test_a_tampered_model(unmask, models, tmp_path):
    copy = damaged(models, tmp_path, "model.safetensors", lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]))
    refused(unmask("generate", copy, "hi"), "model.safetensors", "sha256")


def test_a_tokenizer_that_does_not_belong_to_the_model(unmask, models, tmp_path):
    import shutil

    from unmask.data.tokenizer import train_bpe

    copy = tmp_path / "copy"
    shutil.copytree(models["masked"] / "model", copy)
    (copy / "manifest.json").unlink()
    train_bpe(["some other text " * 50], 400).save(copy)
    refused(unmask("generate", copy, "hi"), "tokenizer", "tokens")


def test_a_full_disk_leaves_the_previous_checkpoint(unmask, text, tmp_path, monkeypatch):
    from unmask.training import state

    real, calls = folder.save_file, []

    def full(*args, **kwargs):
        calls.append(1)
        if len(calls) > 2:  # the checkpoints of steps 0 and 3 are written
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(*args, **kwargs)

    monkeypatch.setattr(folder, "save_file", full)
    words = ["train", f"data.source={text}", *SMALL, *SHORT, "train.save_every=3", "--out", tmp_path / "run", *COMMON]
    refused(unmask(*words), "free some space")
    kept = state.everything(tmp_path / "run" / "checkpoints")
    assert [p.name for p in kept] == ["step-00000000", "step-00000003"]
    assert state.load(kept[1]).facts["progress"]["step"] == 3
    monkeypatch.setattr(folder, "save_file", real)
    assert unmask(*words)[0] == 0  # and goes on from there


def test_broken_yaml_and_missing_recipes(unmask, tmp_path):
    (tmp_path / "bad.yaml").write_text("train: [1,\n", encoding="utf-8")
    refused(unmask("train", tmp_path / "bad.yaml"), "bad.yaml")
    refused(unmask("train", "dmeo"), "demo")


def test_a_saved_model_cannot_name_code_to_run(unmask, models, tmp_path):
    copy = damaged(models, tmp_path, "config.json", lambda raw: raw)
    config = json.loads((copy / "config.json").read_text())
    config["method"] = {"kind": "os:system", "command": f"touch {tmp_path / 'pwned'}"}
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "manifest.json").unlink()
    refused(unmask("generate", copy, "hi"), "os:system")
    refused(unmask("train", f"base={copy}", "data.source=x", "--out", tmp_path / "r"), "os:system")
    assert not (tmp_path / "pwned").exists()


def test_a_typo_claims_no_folder(unmask, text, tmp_path):
    out = ["--out", tmp_path / "run", *COMMON]
    refused(unmask("train", "data.source=nowhere.txt", *SMALL, *SHORT, *out), "nowhere.txt")
    assert unmask("train", f"data.source={text}", *SMALL, *SHORT, *out)[0] == 0


def test_text_with_an_equals_sign_is_text(unmask, models):
    assert json.loads(unmask("generate", models["masked"], "x=1", "max_tokens=2", "--json")[1])["tokens"]
    assert json.loads(unmask("score", models["masked"], "--text", "x=1", "--json")[1])["tokens"] == 3


@pytest.mark.parametrize("verb", ["generate", "fill", "score"])
def test_a_verb_without_words_says_what_is_missing(unmask, verb):
    refused(unmask(verb), "missing")


def test_a_finished_run_prints_json_that_parses(unmask, text, tmp_path):
    words = ["train", f"data.source={text}", *SMALL, *SHORT, "--out", tmp_path / "run", "--json", *COMMON]
    unmask(*words)
    again = json.loads(unmask(*words)[1], parse_constant=lambda name: pytest.fail(name))
    assert again["last_loss"] is None


def test_a_chat_without_answers_is_refused(unmask, models, tmp_path):
    chats = tmp_path / "chats.jsonl"
    chats.write_text('{"messages": [{"role": "user", "content": "hi"}]}\n', encoding="utf-8")
    refused(unmask("tune", f"base={models['masked']}", f"data.source={chats}", "--out", tmp_path / "r"), "assistant")


def test_a_part_of_an_option_is_said_like_the_option():
    known = ["grow", "rule", "top_p"]
    words = ["a model", "a text", "grow.initial=8", "rule.kind=psi"]
    assert text_and_overrides(words, "PROMPT", known) == ("a model", "a text", words[2:])
    assert text_and_overrides(["x.y=1"], "PROMPT", known) == (None, "x.y=1", [])


def test_bench_has_a_judge_read_what_was_written(unmask, models, text):
    said = ("bench", models["masked"], "prompt=8", "tokens=8", "batches=2", "ways=confidence", "caches=none")
    code, out, _ = unmask(*said, f"text={text}", f"judge={models['autoregressive']}", "--json", "--dtype", "fp32")
    peer, ours = json.loads(out)["cases"]
    assert code == 0
    assert peer["quality"] is None
    assert ours["quality"]["nats"] > 0
    assert ours["quality"]["entropy"] >= 0
    assert "entropy" in unmask(*said, f"text={text}", f"judge={models['autoregressive']}", "peer=false")[1]
    refused(unmask(*said, f"judge={models['masked']}"), "judge", "autoregressive")
    longer = [word for word in said if word != "tokens=8"]
    refused(unmask(*longer, "tokens=9999", f"judge={models['autoregressive']}"), "judge", "9999", "fewer")

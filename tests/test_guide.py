"""Every command and every block of the guide is run, in its order, on small data and with small budgets."""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from unmask import cli

ROOT = Path(__file__).parent.parent
GUIDE = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", GUIDE, re.DOTALL)
SHAPE = ["model.width=32", "model.layers=1", "model.heads=2", "model.context=128", "tokenizer.vocab_size=300"]
BUDGET = ["train.minutes=null", "train.tokens=null", "train.steps=2", "train.batch=4", "train.eval_draws=2"]
LITTLE = ["tokens=1000", "facts=0", "gaps=2", "samples=2", "passes=[2]", "prompt=8", "write=8", "train.batch=4"]
SMALL = {
    "train": [*SHAPE, *BUDGET],
    "demo": [*SHAPE, *BUDGET],
    "tune": BUDGET,
    "compare": [*SHAPE, *LITTLE],
}  # a base brings its shape


def commands(block):
    for line in re.findall(r'^unmask (?:[^"\n]|"[^"]*")+', block, re.MULTILINE):
        yield shlex.split(line, comments=True)


def smaller(words):
    """The command with data as in the guide, but little of it to do."""
    words = [w for w in words if not w.startswith(("train.minutes", "train.steps"))]
    if words[1] in SMALL and "--minutes" in words:
        at = words.index("--minutes")
        words = words[:at] + words[at + 2 :]
    extra = SMALL.get(words[1], [])
    if any(w.startswith("base=") for w in words):
        extra = BUDGET
    given = {w.partition("=")[0] for w in words}
    return [*words, *(w for w in extra if w.partition("=")[0] not in given)]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder with the files that the guide speaks of."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    text = "".join(
        f"It was a dark and stormy night, number {i}. The wind fell upon the roofs of the town.\n" for i in range(80)
    )
    (tmp_path / "my_texts").mkdir()
    for name in ("one", "two", "three"):
        (tmp_path / "my_texts" / f"{name}.txt").write_text(name + text, encoding="utf-8")
    (tmp_path / "held_out.txt").write_text(text[:400], encoding="utf-8")
    turn = [{"role": "user", "content": "How?"}, {"role": "assistant", "content": "So."}]
    (tmp_path / "chats.jsonl").write_text((json.dumps({"messages": turn}) + "\n") * 20, encoding="utf-8")
    return tmp_path


def run(words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", words)
    try:
        cli.main()
        code = 0
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    assert not code, f"{shlex.join(words)}: {err}"
    return out


@pytest.mark.slow
def test_the_guide_does_what_it_says(home, monkeypatch, capsys):
    for kind, block in BLOCKS:
        if kind == "yaml":
            (home / "recipe.yaml").write_text(block, encoding="utf-8")
        elif kind == "python" and "class Late" in block:
            (home / "mine.py").write_text(block, encoding="utf-8")
        elif kind == "python":
            exec(compile(block, "guide.md", "exec"), {})
            assert "+-" in capsys.readouterr().out
        else:
            for words in commands(block):
                run(smaller(words), monkeypatch, capsys)
    for left in ("replay.html", "demo/replay.html", "my_demo/loss.png", "runs/mine/recipe.yaml", "comparison"):
        assert (home / left).exists(), left


def test_commands_in_sentences_are_commands(home, monkeypatch, capsys):
    for line in re.findall(r"`(unmask info[^`]*)`", GUIDE):
        assert run(shlex.split(line), monkeypatch, capsys)


def test_there_are_commands_of_every_kind():
    verbs = {words[1] for _, block in BLOCKS for words in commands(block)}
    assert verbs >= {"train", "tune", "generate", "fill", "score", "demo", "compare"}


def test_linked_files_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", GUIDE):
        assert (ROOT / "docs" / target).exists(), target

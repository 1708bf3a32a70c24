"""What the README shows works as it is written there."""

import re
import shlex
from pathlib import Path

import pytest

from unmask.cli.words import text_and_overrides
from unmask.recipe import load_recipe, read_tree
from unmask.request import Fill, Generate
from unmask.writing import Place, ScoreOptions

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    shlex.split(line, comments=True)
    for kind, block in BLOCKS
    if not kind
    for line in re.findall(r'^unmask (?:[^"\n]|"[^"]*")+', block, re.MULTILINE)
]


def test_every_linked_file_exists():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in target:
            assert (ROOT / target).exists(), target


def test_the_python_block_runs(capsys):
    (block,) = (text for kind, text in BLOCKS if kind == "python")
    exec(compile(block, "README.md", "exec"), {})
    assert "return result" in capsys.readouterr().out


@pytest.mark.parametrize("words", [c for c in COMMANDS if c[1] in ("train", "tune")], ids=" ".join)
def test_training_commands_are_valid_recipes(words):
    named = [w for w in words[2:] if "=" not in w and not w.startswith("-") and not w.startswith("runs/")]
    load_recipe(named[0] if named else None, [w for w in words[2:] if "=" in w])


@pytest.mark.parametrize("words", [c for c in COMMANDS if c[1] in ("generate", "fill", "score")], ids=lambda c: c[1])
def test_writing_commands_are_valid(words):
    options = {"score": ScoreOptions, "fill": Fill, "generate": Generate}[words[1]]
    positional = [w for w in words[2:] if not w.startswith("-") and not w.endswith(".html")]
    _, _, overrides = text_and_overrides(positional, "TEXT", [*Place.model_fields, *options.model_fields])
    options.of(read_tree(None, overrides))


def test_the_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_there_are_commands_to_check():
    assert {c[1] for c in COMMANDS} >= {"train", "tune", "generate", "fill", "score"}

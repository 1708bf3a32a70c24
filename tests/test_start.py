"""What a start must not wait for: packages that take seconds to import and that loading and writing have no use for."""

import json
import subprocess
import sys

HEAVY = {
    "accelerate",
    "datasets",
    "httpx",
    "huggingface_hub",
    "jinja2",
    "matplotlib",
    "peft",
    "rich",
    "sympy",
    "torch._dynamo",
    "transformers",
    "yaml",
}
# One process for all, since each start takes seconds. What a step has imported is told after its name.
STEPS = """
import contextlib, io, json, sys, tempfile

def told(name):
    print(json.dumps([name, sorted(sys.modules.keys() & HEAVY)]))

import torch
HEAVY -= sys.modules.keys()
import unmask

lm = unmask.load()
told("load")
lm.fill("a ", " b", tokens=2)
lm.generate("a", max_tokens=2)
lm.chat([{"role": "user", "content": "a"}], max_tokens=2)
told("write")
lm.score("ab", draws=1)
told("score")
with tempfile.TemporaryDirectory() as folder:
    lm.save(folder + "/model")
told("save")

from unmask.cli import app
with contextlib.redirect_stdout(io.StringIO()):
    app(["fill", "a <gap:2> b"], standalone_mode=False)
told("unmask fill")

from unmask.serving.app import open_app
from unmask.serving.run import configured
from unmask.serving.settings import ServeOptions
options = ServeOptions.of({})
configured(open_app(options), options).load()
told("unmask serve")

from unmask.data.tokenizer import train_bpe
train_bpe(["ab"], 300)
told("train a tokenizer")
"""


def test_nothing_heavy_is_imported_to_load_and_to_write():
    done = subprocess.run([sys.executable, "-c", f"HEAVY = {HEAVY!r}\n{STEPS}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    steps = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(steps) == 7
    assert [step for step in steps if step[1]] == []

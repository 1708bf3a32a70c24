"""The page about serving: every example runs, against the model that it names."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest
import yaml
from live import Live

import unmask

PAGE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def examples(kind):
    return [block for found, block in BLOCKS if found == kind]


@pytest.fixture(scope="module")
def packaged():
    with Live(unmask.load(device="cpu")) as live:
        yield live


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on this machine")
@pytest.mark.parametrize("block", examples("bash"))
def test_curl(packaged, block):
    done = subprocess.run(here(block, packaged), shell=True, capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout) if not done.stdout.startswith("data: ") else done.stdout
    assert "error" not in answer


@pytest.mark.parametrize("block", examples("python"))
def test_python(packaged, block):
    exec(here(block, packaged), {})


@pytest.mark.parametrize("block", examples("yaml"))
def test_editors(packaged, block):
    """What Continue's Mistral provider sends for a model with this configuration."""
    (model,) = yaml.safe_load(here(block, packaged))["models"]
    most = model["defaultCompletionOptions"]["maxTokens"]
    body = {"model": model["model"], "prompt": "def f(x):\n    ", "suffix": "\n", "max_tokens": most,
            "temperature": 0.01, "stop": ["\n\n"], "stream": True}  # fmt: skip
    headers = {"authorization": f"Bearer {model['apiKey']}"}
    answer = httpx.post(f"{model['apiBase']}/fim/completions", json=body, headers=headers, timeout=60)
    assert answer.text.rstrip().endswith("data: [DONE]"), answer.text


def here(block, packaged):
    return block.replace("http://127.0.0.1:8000", packaged.address)

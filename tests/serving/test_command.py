"""`unmask serve` as a process: how soon it is there, what it says, how it ends."""

import os
import signal
import subprocess
import sys
import threading
import time

import httpx
import pytest

from command import unmask

START = [sys.executable, "-m", "unmask.cli", "serve", "--port", "0"]


def started(*words):
    process = subprocess.Popen([*START, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    assert " at http://" in line, process.stderr.read()
    return process, line.split(" at ")[1].strip()


def ends(process):
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=150)
    assert process.returncode in (0, -signal.SIGTERM), said
    assert "Traceback" not in said[1]


@pytest.mark.slow
def test_it_ends_what_runs_and_then_itself():
    process, address = started("drain=120")
    answers = []

    def ask():
        body = {"prompt": "import ", "max_tokens": 200, "steps": 40, "seed": 1}
        answers.append(httpx.post(f"{address}/v1/completions", json=body, timeout=120))

    asking = threading.Thread(target=ask)
    while httpx.get(f"{address}/health").status_code != 200:
        time.sleep(0.05)
    asking.start()
    while "unmask_batch_rows 1.0" not in httpx.get(f"{address}/metrics").text:
        assert asking.is_alive()
        time.sleep(0.01)
    ends(process)
    asking.join()
    assert answers[0].status_code == 200
    assert answers[0].json()["usage"]["completion_tokens"] > 0


def spent():
    """Seconds of computing of all children that have ended."""
    return sum(os.times()[2:4])


@pytest.mark.slow
def test_it_starts_soon():
    """Importing torch is most of it. In its own computing time, so that a busy machine does not count."""
    before = spent()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    torch_alone = spent() - before
    process, address = started()
    assert httpx.get(f"{address}/health").json()["ready"]
    ends(process)
    assert spent() - before - torch_alone < 2.5 * torch_alone


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--host", "0.0.0.0"], "--api-key-file"),
        (["--port", "70000"], "port"),
        (["rows=0"], "rows"),
        (["row=3"], "row"),
        (["--api-key-file", "nowhere.txt"], "nowhere.txt"),
        (["nowhere"], "nowhere"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(words, message):
    ran = unmask("serve", *words, "port=0") if "--port" not in words else unmask("serve", *words)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err
    assert ran.err.count("\n") == 1


def test_replicas_are_asked_for_with_ray():
    ran = unmask("serve", "ray.least=2")
    assert ran.code == 2
    assert "add --ray" in ran.err


def test_a_batch_takes_two_files_and_options(tmp_path):
    ran = unmask("batch", tmp_path / "in.jsonl", tmp_path / "out.jsonl", "some/model")
    assert ran.code == 2
    assert "--model" in ran.err
    ran = unmask("batch", tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    assert ran.code == 2
    assert "cannot be read" in ran.err
    assert not (tmp_path / "out.jsonl").exists()

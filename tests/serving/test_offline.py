"""`unmask batch`: what the server would have answered, many at a time, and nothing twice."""

import json
import signal
import subprocess
import sys
import time

import pytest

from unmask.serving.batch_file import METHOD
from unmask.serving.offline import URLS, Tally, run
from unmask.serving.settings import ServeOptions

BODIES = [
    ("/v1/completions", {"prompt": "def ", "max_tokens": 8, "seed": 1}),
    ("/v1/completions", {"prompt": "x", "max_tokens": 5, "seed": 2, "n": 3, "temperature": 1.0}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 6, "seed": 3}),
    ("/v1/fim/completions", {"prompt": "a", "suffix": "b", "max_tokens": 4, "seed": 4}),
    ("/v1/fill", {"text": "a<gap:3>b<gap:2-4>c", "seed": 5}),
    ("/v1/edit", {"text": "some words", "spans": [[0, 4]], "seed": 6}),
    ("/v1/completions", {"prompt": "x", "max_tokens": 10_000}),
    ("/v1/fill", {"text": "no gap here"}),
    ("/v1/completions", {"prompt": "x", "temperatur": 1}),
]


@pytest.fixture(scope="module")
def model(lm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("offline") / "small"
    lm.save(folder)
    return str(folder)


def written(path, bodies):
    lines = [{"custom_id": f"r{i}", "method": METHOD, "url": url, "body": body} for i, (url, body) in enumerate(bodies)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def answers(path):
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len({one["custom_id"] for one in found}) == len(found)
    return {one["custom_id"]: (one["response"]["status_code"], one["response"]["body"]) for one in found}


def said(body):
    return {name: value for name, value in body.items() if name not in ("id", "created", "model")}


def test_the_endpoints_are_those_of_the_server():
    assert set(URLS) == {url for url, _ in BODIES}


def test_each_line_is_answered_as_by_the_server(model, server, tmp_path):
    tallies = []
    source, target = written(tmp_path / "in.jsonl", BODIES), tmp_path / "out.jsonl"
    tally = run(source, target, ServeOptions(model=model, device="cpu", dtype="fp32", max_tokens=16), tallies.append)
    assert tally == tallies[-1] == Tally(len(BODIES), len(BODIES), refused=3)
    found = answers(target)
    for i, (url, body) in enumerate(BODIES):
        response = server.post(url, **body)
        status, answer = found[f"r{i}"]
        assert status == response.status_code
        assert said(answer) == said(response.json())


def test_a_run_that_is_whole_loads_nothing(tmp_path):
    source, target = written(tmp_path / "in.jsonl", BODIES[:1]), tmp_path / "out.jsonl"
    target.write_text('{"custom_id": "r0"}\n', encoding="utf-8")
    assert run(source, target, ServeOptions(model="no/such/model"), print) == Tally(1, 1)


def test_a_stream_is_refused(model, tmp_path):
    source, target = written(tmp_path / "in.jsonl", [(BODIES[0][0], BODIES[0][1] | {"stream": True})]), tmp_path / "out"
    assert run(source, target, ServeOptions(model=model, device="cpu"), print).refused == 1
    status, answer = answers(target)["r0"]
    assert (status, answer["error"]["param"]) == (400, "stream")


@pytest.mark.slow
def test_a_killed_command_goes_on(model, tmp_path):
    """Two kills as soon as something is written, then to the end."""
    count = 120
    body = {"max_tokens": 48, "temperature": 1.0}
    bodies = [("/v1/completions", body | {"prompt": str(i), "seed": i}) for i in range(count)]
    source, target = written(tmp_path / "in.jsonl", bodies), tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "unmask.cli", "batch", source, target, "rows=4", "--model", model, "--json"]

    def size():
        return target.stat().st_size if target.exists() else 0

    for _ in range(2):
        before = size()
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        while process.poll() is None and size() == before:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert 0 < len(target.read_bytes().splitlines()) < count
    last = subprocess.run(command, capture_output=True, check=True)
    assert json.loads(last.stdout) == {"total": count, "done": count, "refused": 0}
    found = answers(target)
    assert set(found) == {f"r{i}" for i in range(count)}
    assert all(status == 200 for status, _ in found.values())

"""The server as replicas on a local Ray: the same answers, and a replica's death that no client is left hanging by."""

import contextlib
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

pytest.importorskip("ray", reason="ray is not installed; it is the extra unmask[ray]")

import ray
from ray import serve as ray_serve

from unmask.errors import UserError
from unmask.serving.ray import Replicas, start
from unmask.serving.run import bound
from unmask.serving.settings import ServeOptions

REPLICAS = 2
PATIENCE = 300  # seconds; each replica imports torch and loads the model


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"least": 0}, "ray.least"),
        ({"least": 3, "most": 2}, "most=2 is less than least=3"),
        ({"leats": 3}, "ray.leats"),
        (7, "ray=7"),
    ],
)
def test_wrong_options_are_refused(options, said):
    with pytest.raises(UserError) as error:
        Replicas.of(options)
    assert said in str(error.value)


@pytest.fixture(scope="module")
def address():
    with bound("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    start(ServeOptions(port=port, device="cpu", dtype="fp32"), Replicas(least=REPLICAS))
    yield f"http://127.0.0.1:{port}"
    ray_serve.shutdown()
    ray.shutdown()


def processes():
    """Those of the replicas, which Ray names so."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes().startswith(b"ray::ServeReplica:"):
                found.add(int(path.parent.name))
    return found


def ask(address, seed, tokens=16):
    body = {"prompt": "def ", "max_tokens": tokens, "temperature": 1.0, "seed": seed}
    return httpx.post(f"{address}/v1/completions", json=body, timeout=PATIENCE)


@pytest.mark.slow
def test_replicas_answer_alike(address):
    assert len(processes()) == REPLICAS
    with ThreadPoolExecutor(8) as many:
        answers = list(many.map(lambda i: ask(address, i % 4), range(24)))
    assert {answer.status_code for answer in answers} == {200}
    texts = [answer.json()["choices"][0]["text"] for answer in answers]
    assert all(text == texts[i % 4] for i, text in enumerate(texts))
    assert len(set(texts)) > 1
    assert httpx.get(f"{address}/health").json()["ready"]
    assert "<html" in httpx.get(address).text


@pytest.mark.slow
def test_a_killed_replica_is_replaced(address):
    """Under load: each request is answered, or ends in an error that says so; then all is as before."""
    ended, over = [], threading.Event()

    def client(seed):
        while not over.is_set():
            try:
                ended.append(ask(address, seed, tokens=64).status_code)
            except httpx.TransportError as error:
                ended.append(type(error).__name__)

    clients = [threading.Thread(target=client, args=(seed,)) for seed in range(6)]
    for thread in clients:
        thread.start()
    time.sleep(2)
    victim = min(processes())
    os.kill(victim, signal.SIGKILL)
    time.sleep(3)
    over.set()
    for thread in clients:
        thread.join(timeout=PATIENCE)
    assert not any(thread.is_alive() for thread in clients)
    assert ended.count(200) > 0
    assert all(code == 200 or code in (500, 503) or isinstance(code, str) for code in ended)
    end = time.monotonic() + PATIENCE
    while not (len(processes()) == REPLICAS and victim not in processes()):
        assert time.monotonic() < end, "nobody took its place"
        time.sleep(1)
    assert ask(address, 0).status_code == 200

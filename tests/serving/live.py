"""A server in a thread of this process: its address, and a look inside."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx

from unmask import LanguageModel
from unmask.serving.app import create_app
from unmask.serving.run import Server, bound, configured
from unmask.serving.served import Served
from unmask.serving.settings import ServeOptions


class Live:
    def __init__(self, lm: LanguageModel, **options: Any) -> None:
        self.options = ServeOptions.of({"max_tokens": 16, "drain": 2.0, "port": 0, **options})
        self.app = create_app(Served(lm, self.options.name, self.options.max_tokens, self.options.length), self.options)
        self.service = self.app.state.service
        self.socket = bound("127.0.0.1", self.options.port)
        self.address = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.server = Server(configured(self.app, self.options))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]}, daemon=True)

    def __enter__(self) -> Live:
        self.thread.start()
        until(lambda: self.server.started)
        self.client = httpx.Client(base_url=self.address, timeout=60)
        return self

    def __exit__(self, *error: object) -> None:
        self.client.close()
        self.server.should_exit = True
        self.thread.join(timeout=30)
        assert not self.thread.is_alive()

    def post(self, path: str, **body: Any) -> httpx.Response:
        return self.client.post(path, json=body)

    def ask(self, path: str, **body: Any) -> dict[str, Any]:
        response = self.post(path, **body)
        assert response.status_code == 200, response.text
        return response.json()

    def refused(self, path: str, **body: Any) -> str:
        """The sentence of a 400."""
        response = self.post(path, **body)
        assert response.status_code == 400, response.text
        return response.json()["error"]["message"]

    def events(self, path: str, **body: Any) -> Iterator[dict[str, Any]]:
        """The chunks of a stream, which must be whole."""
        with self.client.stream("POST", path, json={**body, "stream": True}) as response:
            assert response.status_code == 200, response.read()
            lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
        assert lines[-1] == "[DONE]", lines[-1]
        yield from map(json.loads, lines[:-1])

    def settles(self) -> None:
        """Nothing is left in the batch or before it."""
        until(lambda: len(self.service.engine) == 0)

    @property
    def healthy(self) -> bool:
        return self.client.get("/health").json()["ready"]


def until(true: Any, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.01)

"""`unmask serve`: load, bind, serve until told to stop, end cleanly."""

from __future__ import annotations

import gc
import logging
import socket
from types import FrameType

import uvicorn
from fastapi import FastAPI

from ..errors import UserError
from .app import open_app
from .settings import ServeOptions

SLACK = 5  # seconds beyond the drain for answers to reach their clients


class Server(uvicorn.Server):
    """At a signal the engine takes nothing new, and what runs gets `drain` seconds to end by itself."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        app = self.config.app
        app.state.service.engine.drain(app.state.service.options.drain)  # type: ignore[union-attr]
        super().handle_exit(sig, frame)


def configured(app: FastAPI, options: ServeOptions) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_level="warning",
        ws="none",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(options.drain) + SLACK,
    )


def serve(options: ServeOptions) -> None:
    """Until SIGINT or SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    listening = bound(options.host, options.port)
    options.keys()  # what is wrong with them is said before the model is loaded
    app = open_app(options)
    gc.freeze()  # all that is here stays; no answer is to wait until it has been looked through for garbage
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    listening.listen()  # whoever reads the next line may come at once
    print(f"unmask: {app.state.service.served.name} at http://{shown}:{port}", flush=True)
    Server(configured(app, options)).run(sockets=[listening])


def bound(host: str, port: int) -> socket.socket:
    """Before the model is loaded: a port that is taken should not cost that time."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        raise UserError(f"port={port}: cannot listen on {host} ({error.strerror}); use another port or host") from error
    return listening

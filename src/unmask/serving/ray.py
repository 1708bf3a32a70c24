"""`unmask serve --ray`: the server on more than one machine. Ray Serve starts replicas of the very app that one process
would serve, routes requests to them, adds and removes them with the load, and replaces one that dies. The door to Ray.

Each replica has a model, an engine and a batch of its own. A request goes to one replica and stays there, so what it is
answered does not depend on which; limits of the rate and of the queue hold for each replica.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Mapping
from typing import Any

import ray
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ray import serve as ray_serve
from ray.serve.config import ProxyLocation

from ..errors import UserError
from .app import open_app
from .settings import ServeOptions

NAME = "unmask"
SLACK = 5.0  # seconds beyond the drain for answers to reach their clients


class Replicas(BaseModel):
    """How many there are, and what each of them gets."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    address: str | None = Field(
        default=None, description="of a Ray cluster, or auto; default one of this machine alone"
    )
    least: int = Field(default=1, gt=0, description="replicas that are always there")
    most: int | None = Field(default=None, gt=0, description="replicas under load; default as many as least")
    busy: float | None = Field(default=None, gt=0, description="requests of a replica, beyond which there is one more")
    cpus: float = Field(default=1.0, ge=0, description="processors of a replica")
    gpus: float = Field(default=0.0, ge=0, description="GPUs of a replica, or a share of one")

    @classmethod
    def of(cls, options: Any) -> Replicas:
        if not isinstance(options, Mapping):
            raise UserError(f"ray={options!r}: holds no options; use ray.least=2 and the like")
        try:
            return cls(**options)
        except ValidationError as error:
            first = error.errors()[0]
            message = str(first["msg"]).removeprefix("Value error, ")
            where = ".".join(["ray", *map(str, first["loc"])])
            raise UserError(f"{where}: {message[:1].lower()}{message[1:]}") from error

    @model_validator(mode="after")
    def _ordered(self) -> Replicas:
        if self.most is not None and self.most < self.least:
            raise ValueError(f"most={self.most} is less than least={self.least}; use as many or more")
        return self


def deployed(options: ServeOptions, replicas: Replicas) -> ray_serve.Application:
    """The app as Ray Serve runs it. It is made in each replica: only the options travel."""

    def build() -> FastAPI:
        return open_app(options)

    scaling = {
        "min_replicas": replicas.least,
        "initial_replicas": replicas.least,
        "max_replicas": replicas.most or replicas.least,
        "target_ongoing_requests": replicas.busy or options.rows,
    }
    deployment = ray_serve.deployment(
        ray_serve.ingress(build)(),
        name=NAME,
        autoscaling_config=scaling,
        ray_actor_options={"num_cpus": replicas.cpus, "num_gpus": replicas.gpus},
        max_ongoing_requests=options.rows + options.waiting,  # the engine's own queue says 429 before
        graceful_shutdown_timeout_s=options.drain + SLACK,
    )
    return deployment.bind()


def start(options: ServeOptions, replicas: Replicas) -> None:
    """Returns when they are ready. The keys are read here too, so that a wrong file is told at once."""
    options.keys()
    ray.init(address=replicas.address, log_to_driver=True, ignore_reinit_error=True)
    http = {"host": options.host, "port": options.port}
    ray_serve.start(proxy_location=ProxyLocation.EveryNode, http_options=http)
    ray_serve.run(deployed(options, replicas), name=NAME, route_prefix="/")


def serve(options: ServeOptions, replicas: Replicas) -> None:
    """Until SIGINT or SIGTERM; then what runs gets `drain` seconds to end by itself."""
    over = threading.Event()
    start(options, replicas)
    for sign in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, lambda *_: over.set())
    print(f"unmask: {replicas.least} replicas at http://{options.host}:{options.port}", flush=True)
    over.wait()
    ray_serve.shutdown()
    ray.shutdown()

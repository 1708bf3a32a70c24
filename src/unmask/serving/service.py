"""What the endpoints share: the model, the engine, the meters; a request checked and begun. Knows no endpoint."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request

from ..decoding.settings import Decoding
from ..denoiser import Denoiser
from ..errors import UserError
from ..models.prefixes import Prefixes
from ..noise.process import Process
from .engine import Engine
from .errors import ApiError
from .metrics import Meters
from .served import Order, Served
from .settings import ServeOptions
from .writing import Choice, Writing

Found = TypeVar("Found")
LANGUAGES = {"regex", "json_schema"}


@dataclass(frozen=True)
class Service:
    served: Served
    engine: Engine
    meters: Meters
    options: ServeOptions

    @classmethod
    def of(cls, served: Served, options: ServeOptions) -> Service:
        meters = Meters()
        prefixes = Prefixes(options.prefixes)
        meters.watch(prefixes)
        engine = Engine(served.batch(options.slots, prefixes), options.rows, options.waiting, options.timeout, meters)
        return cls(served, engine, meters, options)

    def named(self, model: str | None) -> None:
        """ApiError where a client asks for a model that is not here."""
        if model is not None and model != self.served.name:
            raise ApiError(
                404,
                f"model: {model[:80]!r} is not here; use {self.served.name!r}, or leave it out",
                code="model_not_found",
                param="model",
            )

    def texts(self, n: int | None, prompts: int = 1) -> int:
        """How many of a prompt; UserError where that makes too many."""
        if (n or 1) * prompts > self.options.choices:
            raise UserError(f"n={n or 1}: a request may ask for {self.options.choices} texts in all; ask for fewer")
        return n or 1

    async def settings(self, asked: Mapping[str, Any], eos_id: int | None = None) -> Decoding:
        """A language is read and checked on a thread of its own: it may take a while, and others wait for the loop."""
        if asked.keys() & LANGUAGES:
            return await asyncio.to_thread(self.served.settings, asked, eos_id)
        return self.served.settings(asked, eos_id)

    async def check(self, order: Order) -> None:
        """UserError where the model cannot write so."""
        if order.settings.constraint is not None:
            await asyncio.to_thread(self.served.check, order)
        else:
            self.served.check(order)

    async def begin(self, request: Request, order: Order, *, stream: bool, watched: bool, logprobs: bool) -> Writing:
        """UserError where the model cannot write so, ApiError where there is no room."""
        await self.check(order)
        came: float = request.scope["unmask.came"]
        watch, age = stream or bool(order.stops), time.perf_counter() - came
        job = self.engine.submit(
            order.rows, order.settings, watch=watch, client=request.scope["unmask.client"], age=age
        )
        tokenizer, watched = self.served.tokenizer, stream and watched
        choices = [
            Choice(order, index, tokenizer, logprobs=logprobs, watched=watched) for index in range(len(order.rows))
        ]
        self.meters.tokens.labels("prompt").inc(order.prompt_tokens)
        seconds = {"drafted": self.meters.drafted, "settled": self.meters.settled}

        def first(what: str) -> None:
            seconds[what].observe(time.perf_counter() - came)

        return Writing(job, order, choices, first if watch else None)

    async def look(self, at: Callable[[Denoiser, Process], Found]) -> Found:
        """What the network has to say beside what it writes."""
        return await self.engine.between_steps(lambda: at(self.served.denoiser, self.served.process))

    def over(self, writing: Writing) -> None:
        """Counts what was written, once it is."""
        if not writing.whole:
            self.meters.cancelled.inc()
        self.meters.tokens.labels("written").inc(writing.tokens)
        for choice in writing.choices:
            if choice.passes:
                self.meters.per_pass.observe(choice.tokens / choice.passes)


async def _here(request: Request) -> Service:
    """Asynchronous because the framework sends what is not to another thread, which then waits for the engine's."""
    service: Service = request.app.state.service
    return service


Here = Annotated[Service, Depends(_here)]

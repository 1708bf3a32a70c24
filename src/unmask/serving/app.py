"""The server put together: every endpoint, what stands before them, and how errors are told. The door to FastAPI."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from .. import __version__
from ..errors import UserError
from ..lm import load
from . import about, chat, completions, edit, fill, fim
from .errors import ApiError, invalid, told
from .limits import Guard, Keys, Rate
from .page import HEADERS, assets
from .served import Served
from .service import Service
from .settings import ServeOptions

ROUTERS = [part.router for part in (chat, completions, fim, fill, edit, about)]


def open_app(options: ServeOptions) -> FastAPI:
    """An app of the model that the options name, loaded now."""
    lm = load(options.model, device=options.device, dtype=options.dtype)
    return create_app(Served(lm, options.name, options.max_tokens, options.length), options)


def create_app(served: Served, options: ServeOptions) -> FastAPI:
    """An app of its own engine, which runs while the app does."""
    service = Service.of(served, options)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.engine.start()
        yield
        service.engine.stop()

    app = FastAPI(title="unmask", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.service = service
    for router in ROUTERS:
        app.include_router(router)
    _serve_page(app)
    for kind in (ApiError, UserError, Exception):
        app.add_exception_handler(kind, _told)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    rate = Rate(options.rate) if options.rate is not None else None
    app.add_middleware(Guard, keys=Keys(options.keys()), meters=service.meters, body=options.body, rate=rate)
    return app


def _serve_page(app: FastAPI) -> None:
    """As it lies there; it fetches nothing from elsewhere."""

    async def send(request: Request) -> Response:
        asset = assets()[request.url.path]
        return Response(asset.content, media_type=asset.media_type, headers=HEADERS)

    for path in assets():
        app.add_route(path, send, methods=["GET"], include_in_schema=False)


def _response(error: ApiError) -> Response:
    return Response(error.content(), status_code=error.status, headers=error.headers())


async def _told(request: Request, error: Exception) -> Response:
    return _response(told(error))


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return _response(invalid(error.errors()))


async def _http(request: Request, error: Exception) -> Response:
    """What the framework refuses by itself: no such address, no such method, a body it cannot read."""
    assert isinstance(error, HTTPException)
    path = request.url.path[:80]
    said = {
        400: "body: cannot be read as JSON; send one JSON object in UTF-8",
        404: f"{path}: there is nothing here; /openapi.json lists what there is",
        405: f"{path}: does not take {request.method[:20]}; /openapi.json tells what it takes",
    }
    refusal = ApiError(error.status_code, said.get(error.status_code, "the request cannot be answered as it is"))
    response = _response(refusal)
    response.headers.update(error.headers or {})
    return response

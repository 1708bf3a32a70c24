"""What there is: the model, the ways of writing, whether the server lives, and what it has done."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from ..decoding.context import CACHES
from ..decoding.growth import GROWTHS
from ..decoding.presets import PRESETS
from ..decoding.quotas import QUOTAS
from ..decoding.revise import REVISERS
from ..decoding.settings import RULES
from .schema import SAMPLING
from .service import Here, Service

router = APIRouter()
STARTED = int(time.time())


@router.get("/v1/models", tags=["OpenAI"])
async def models(service: Here) -> dict[str, Any]:
    """The one model that is served."""
    return {"object": "list", "data": [_model(service)]}


@router.get("/v1/models/{name:path}", tags=["OpenAI"])
async def model(name: str, service: Here) -> dict[str, Any]:
    service.named(name)
    return _model(service)


def _model(service: Service) -> dict[str, Any]:
    served = service.served
    return {
        "id": served.name,
        "object": "model",
        "created": STARTED,
        "owned_by": "unmask",
        "context": served.context,
        "max_tokens": served.usual,
        "parameters": served.lm.parameters,
        "fills": not served.one_sided,
    }


@router.get("/v1/presets", tags=["diffusion"])
async def presets(service: Here) -> dict[str, Any]:
    """The named ways of writing, what each of them says, and every option with this model's own value."""
    usual = service.served.settings({})
    return {
        "object": "list",
        "presets": {name: dict(said) for name, said in PRESETS.items()},
        "rules": sorted(RULES),
        "quotas": sorted(QUOTAS),
        "revisers": sorted(REVISERS),
        "caches": sorted(CACHES),
        "growths": sorted(GROWTHS),
        "options": {name: getattr(usual, name) for name in SAMPLING},
    }


@router.get("/health", tags=["operation"])
async def health(service: Here) -> JSONResponse:
    """live: the server answers; ready: it takes requests."""
    ready = service.engine.ready
    state = {"status": "ok" if ready else "ending", "live": True, "ready": ready, "model": service.served.name}
    return JSONResponse(state, status_code=200 if ready else 503)


@router.get("/metrics", tags=["operation"], response_class=Response)
async def metrics(service: Here) -> Response:
    """In Prometheus' format."""
    return Response(service.meters.text(), media_type=service.meters.media_type)

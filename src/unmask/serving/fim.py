"""`/v1/fim/completions`: what stands between a prompt and a suffix, as editors ask for it; as long as fits best."""

from __future__ import annotations

from dataclasses import replace

from fastapi import APIRouter, Request, Response

from ..errors import UserError
from .completions import CompletionWording
from .constraints import constrained
from .look import lengths
from .schema import FimRequest
from .served import Order, seed_of
from .service import Here, Service
from .stream import answer

router = APIRouter(tags=["OpenAI"])


@router.post("/v1/fim/completions")
async def fim(asked: FimRequest, request: Request, service: Here) -> Response:
    """What stands between a prompt and a suffix: min_tokens to max_tokens, the length that fits best."""
    service.named(asked.model)
    order = await order_of(asked, service)
    return await answer(request, service, order, asked, FimWording(service.served.name, shown=order.shown))


class FimWording(CompletionWording):
    prefix = "fim"


async def order_of(asked: FimRequest, service: Service) -> Order:
    served, n = service.served, service.texts(asked.n)
    ids, suffix = served.ids(asked.prompt), served.ids(asked.suffix or "")
    seed = seed_of(asked.seed if asked.random_seed is None else asked.random_seed, n)
    most = served.room(len(ids) + len(suffix), asked.max_tokens)
    least = min(asked.min_tokens or 1, most) if suffix else most
    if asked.min_tokens is not None and asked.min_tokens > most:
        raise UserError(f"min_tokens={asked.min_tokens}: more than max_tokens={most}; ask for fewer")
    rows, settings = served.between(ids, suffix, most, seed, n), await service.settings(constrained(asked))
    given, starts = len(ids) + len(suffix), [len(ids)] * n
    order = Order(rows, starts, settings, given, seed, asked.stops, tail=len(suffix), shown=[""] * n)
    await service.check(order)
    if least == most:
        return order
    chosen = await service.look(lambda d, p: lengths(d, p, [ids, suffix], [(least, most)]))
    return replace(order, rows=served.gaps([ids, suffix], chosen, seed, n))

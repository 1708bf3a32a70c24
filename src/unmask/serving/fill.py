"""`/v1/fill`: any number of gaps in a text, each as long as is said, or as fits best between two bounds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from fastapi import APIRouter, Request, Response

from ..errors import UserError
from ..request import MOST_DIGITS
from .look import lengths
from .schema import FillRequest
from .served import Order, seed_of
from .service import Here, Service
from .stream import answer
from .wording import OneText
from .writing import Writing

router = APIRouter(tags=["diffusion"])
MARK = re.compile(r"<gap(?::(\d+)(?:-(\d+))?)?>")
Bounds = tuple[int, int]


@router.post("/v1/fill")
async def fill(asked: FillRequest, request: Request, service: Here) -> Response:
    """A text with its gaps filled: `<gap>`, `<gap:8>` (tokens) or `<gap:4-12>` (the length that fits best)."""
    service.named(asked.model)
    order, sizes = await order_of(asked, service)
    return await answer(request, service, order, asked, FillWording(service.served.name, sizes=sizes))


async def order_of(asked: FillRequest, service: Service) -> tuple[Order, list[int]]:
    served, seed = service.served, seed_of(asked.seed)
    pieces, bounds = marked(asked.text, asked.gap_tokens)
    parts = [served.ids(piece) for piece in pieces]
    sizes = [most for _, most in bounds]
    given = sum(map(len, parts))
    order = Order(served.gaps(parts, sizes, seed), [0], await service.settings(asked.said), given, seed)
    await service.check(order)
    if any(least < most for least, most in bounds):
        sizes = await service.look(lambda d, p: lengths(d, p, parts, bounds))
        order = replace(order, rows=served.gaps(parts, sizes, seed))
    return order, sizes


def marked(text: str, usual: int) -> tuple[list[str], list[Bounds]]:
    """The text's parts, and the least and the most tokens of each gap between them."""
    split = MARK.split(text)
    parts, marks = split[::3], list(zip(split[1::3], split[2::3]))
    if not marks:
        raise UserError("text: there is no gap; write <gap>, <gap:12> or <gap:4-12> in it")
    for number in (number for mark in marks for number in mark if number is not None):
        if len(number) > MOST_DIGITS or int(number) < 1:
            raise UserError(f"text: a gap of {number[:20]} tokens cannot be written; use 1 or more, within the context")
    bounds = [(int(least or usual), int(most or least or usual)) for least, most in marks]
    for least, most in bounds:
        if least > most:
            raise UserError(f"text: <gap:{least}-{most}> has no length; write the smaller number first")
    return parts, bounds


@dataclass(frozen=True)
class FillWording(OneText):
    kind, chunk_kind, prefix = "fill", "fill.chunk", "fill"
    sizes: Sequence[int] = ()

    def whole(self, writing: Writing) -> dict[str, Any]:
        (choice,), row = writing.choices, writing.order.rows[0]
        assert choice.decoded is not None, "gaps are told when they are filled"
        decode, canvas, sure = choice.tokenizer.decode, choice.decoded.canvas, choice.decoded.confidence
        gaps, at = [], 0
        for size in self.sizes:
            at = row.open.index(True, at)
            before, text = decode(canvas[:at]), decode(canvas[at : at + size])
            mean = sum(sure[at : at + size]) / size
            place = {"start": len(before), "end": len(before) + len(text)}
            gaps.append({"text": text, **place, "tokens": size, "confidence": round(mean, 4)})
            at += size
        return self.head(self.kind) | {"text": choice.text, "gaps": gaps}

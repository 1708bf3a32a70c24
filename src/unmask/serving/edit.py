"""`/v1/edit`: parts of a text are noised again and written anew, with all around them in view. Which parts is said by
the client, or by the model: what it expects least."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request, Response

from ..decoding.canvas import Row
from ..errors import UserError
from .look import expected
from .schema import EditRequest
from .served import Order, Served, seed_of
from .service import Here, Service
from .settled import REPLACEMENT
from .stream import answer
from .wording import OneText
from .writing import Writing

router = APIRouter(tags=["diffusion"])
SHARE = 0.2  # of the tokens, where nobody says what to reconsider


@router.post("/v1/edit")
async def edit(asked: EditRequest, request: Request, service: Here) -> Response:
    """A text with some of it reconsidered, token for token: the spans given, or the share the model expects least."""
    service.named(asked.model)
    order = await order_of(asked, service)
    return await answer(request, service, order, asked, EditWording(service.served.name))


async def order_of(asked: EditRequest, service: Service) -> Order:
    served, seed = service.served, seed_of(asked.seed)
    if served.one_sided:
        raise UserError("edit: an autoregressive model sees only what stands before a token; serve a masked model")
    settings = await service.settings(asked.said)
    if asked.spans is not None:
        ids, open = spanned(asked.text, asked.spans, served)
    else:
        ids = served.ids(asked.text)
        served.fits(len(ids))
        open = [False] * len(ids)
        said = await service.look(lambda d, p: expected(d, p, ids))
        for at in least(said, asked.share or SHARE):
            open[at] = True
    if not any(open):
        raise UserError("text: there is nothing to reconsider; give some text, and spans that are not empty")
    return Order([Row(ids, open, seed)], [0], settings, len(ids), seed)


def spanned(text: str, spans: Sequence[Sequence[int]], served: Served) -> tuple[list[int], list[bool]]:
    """Tokens that begin anew at the border of every span, and which of them lie in one."""
    ids: list[int] = []
    open: list[bool] = []
    at = 0
    for start, end in sorted((start, end) for start, end in spans):
        if not at <= start <= end <= len(text):
            raise UserError(
                f"spans: [{start}, {end}] overlaps another, or lies outside the text of {len(text)} characters; "
                "use [start, end) in characters"
            )
        for piece, inside in ((text[at:start], False), (text[start:end], True)):
            new = served.ids(piece)
            ids, open = ids + new, open + [inside] * len(new)
        at = end
    rest = served.ids(text[at:])
    ids, open = ids + rest, open + [False] * len(rest)
    served.fits(len(ids))
    return ids, open


def least(expected: Sequence[float], share: float) -> list[int]:
    """The positions of the least expected tokens, at least one if there is any."""
    order = sorted(range(len(expected)), key=lambda at: expected[at])
    return order[: math.ceil(share * len(order))]


@dataclass(frozen=True)
class EditWording(OneText):
    kind, chunk_kind, prefix = "edit", "edit.chunk", "edit"

    def whole(self, writing: Writing) -> dict[str, Any]:
        (choice,), row = writing.choices, writing.order.rows[0]
        assert choice.decoded is not None, "changes are told when they are made"
        changes = differences(row.tokens, choice.decoded.canvas, choice.tokenizer.decode)
        return self.head(self.kind) | {"text": choice.text, "changes": changes}


def differences(old: Sequence[int], new: Sequence[int], decode: Any) -> list[dict[str, Any]]:
    """Where two texts of equally many tokens differ. start, end: characters of the new text; a run of tokens that
    begins or ends within a character takes its whole neighbours along."""
    found, at = [], 0
    while at < len(new):
        if old[at] == new[at]:
            at += 1
            continue
        begin, end = at, at + 1
        while begin > 0 and not (_clean(decode, old, begin) and _clean(decode, new, begin)):
            begin -= 1
        while end < len(new) and (old[end] != new[end] or not (_clean(decode, old, end) and _clean(decode, new, end))):
            end += 1
        start, before, after = len(decode(new[:begin])), decode(old[begin:end]), decode(new[begin:end])
        found.append({"start": start, "end": start + len(after), "before": before, "after": after})
        at = end
    return found


def _clean(decode: Any, ids: Sequence[int], at: int) -> bool:
    """Whether no character is cut in two there."""
    return not decode(ids[:at]).endswith(REPLACEMENT)

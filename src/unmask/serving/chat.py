"""`/v1/chat/completions`: the assistant's next turn, by the tokenizer's chat template."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request, Response

from ..data.chat import Message
from ..errors import UserError
from .constraints import constrained
from .schema import ChatRequest
from .served import Order, seed_of
from .service import Here, Service
from .stream import answer
from .wording import Wording, spelt
from .writing import News, Writing

router = APIRouter(tags=["OpenAI"])


@router.post("/v1/chat/completions")
async def chat(asked: ChatRequest, request: Request, service: Here) -> Response:
    """The assistant's next turn after a conversation."""
    service.named(asked.model)
    order = await order_of(asked, service)
    return await answer(request, service, order, asked, ChatWording(service.served.name, bool(asked.logprobs)))


async def order_of(asked: ChatRequest, service: Service) -> Order:
    n, served = service.texts(asked.n), service.served
    said = [turn.model_copy(update={"role": ROLES.get(turn.role, turn.role)}) for turn in asked.messages]
    messages: list[Message] = [{"role": turn.role, "content": turn.text} for turn in said]
    ids, end = served.turn(messages)
    seed = seed_of(asked.seed, n)
    rows = served.after(ids, _wanted(asked), seed, n)
    settings = await service.settings(constrained(asked), end)
    return Order(rows, [len(ids)] * n, settings, len(ids), seed, asked.stops)


ROLES = {"developer": "system"}  # OpenAI's newer name


def _wanted(asked: ChatRequest) -> int | None:
    named = {asked.max_tokens, asked.max_completion_tokens} - {None}
    if len(named) > 1:
        raise UserError(f"max_tokens={asked.max_tokens}: max_completion_tokens says otherwise; give one of the two")
    return next(iter(named), None)


@dataclass(frozen=True)
class ChatWording(Wording):
    kind, chunk_kind, prefix = "chat.completion", "chat.completion.chunk", "chatcmpl"

    def first(self, choice: int) -> dict[str, Any]:
        opening = {"index": choice, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
        return self.head(self.chunk_kind) | {"choices": [opening]}

    def part(self, choice: int, news: News) -> dict[str, Any]:
        delta = {"content": news.text} if news.text else {}
        logprobs = {"content": [spelt(one) for one in news.said], "refusal": None} if news.said else None
        return {"index": choice, "delta": delta, "logprobs": logprobs, "finish_reason": news.finish}

    def whole(self, writing: Writing) -> dict[str, Any]:
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": choice.text, "refusal": None},
                "logprobs": {"content": [spelt(one) for one in choice.said], "refusal": None}
                if self.logprobs
                else None,
                "finish_reason": choice.finish,
            }
            for index, choice in enumerate(writing.choices)
        ]
        return self.head(self.kind) | {"choices": choices}

"""`/v1/completions`: texts after prompts, or between a prompt and a suffix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request, Response

from ..errors import UserError
from .constraints import constrained
from .schema import CompletionRequest
from .served import Order, seed_of
from .service import Here, Service
from .stream import answer
from .wording import Wording, listed
from .writing import News, Writing

router = APIRouter(tags=["OpenAI"])
MOST_PROMPTS = 64


@router.post("/v1/completions")
async def completions(asked: CompletionRequest, request: Request, service: Here) -> Response:
    """Texts after each prompt; with a suffix, what stands between the two, exactly max_tokens long."""
    service.named(asked.model)
    order = await order_of(asked, service)
    wire = CompletionWording(service.served.name, asked.logprobs is not None, shown=order.shown)
    return await answer(request, service, order, asked, wire)


async def order_of(asked: CompletionRequest, service: Service) -> Order:
    served, prompts = service.served, _prompts(asked, service)
    n = service.texts(asked.n, len(prompts))
    seed, suffix = seed_of(asked.seed, n), served.ids(asked.suffix or "")
    rows = [row for ids in prompts for row in served.between(ids, suffix, asked.max_tokens, seed, n)]
    starts = [len(ids) for ids in prompts for _ in range(n)]
    given = sum(map(len, prompts)) + len(suffix) * len(prompts)
    shown = [_shown(asked, service, ids) if asked.echo else "" for ids in prompts for _ in range(n)]
    settings = await service.settings(constrained(asked))
    return Order(rows, starts, settings, given, seed, asked.stops, tail=len(suffix), shown=shown)


def _prompts(asked: CompletionRequest, service: Service) -> list[list[int]]:
    given: Any = [asked.prompt] if isinstance(asked.prompt, str) else asked.prompt
    if given and isinstance(given[0], int):
        given = [given]
    if not 0 < len(given) <= MOST_PROMPTS:
        raise UserError(f"prompt: {len(given)} prompts in one request; give 1 to {MOST_PROMPTS}")
    served = service.served
    return [served.ids(one) if isinstance(one, str) else served.known(one) for one in given]


def _shown(asked: CompletionRequest, service: Service, ids: list[int]) -> str:
    return asked.prompt if isinstance(asked.prompt, str) else service.served.tokenizer.decode(ids)


@dataclass(frozen=True)
class CompletionWording(Wording):
    kind, chunk_kind, prefix = "text_completion", "text_completion", "cmpl"
    shown: Sequence[str] = ()  # what stands before each text, where the prompt is given back

    def first(self, choice: int) -> dict[str, Any] | None:
        if not self.shown[choice]:
            return None
        return self.chunk(choice, News(self.shown[choice]))

    def part(self, choice: int, news: News) -> dict[str, Any]:
        logprobs = listed(news.said) if news.said else None
        return {"index": choice, "text": news.text, "logprobs": logprobs, "finish_reason": news.finish}

    def whole(self, writing: Writing) -> dict[str, Any]:
        choices = [
            {
                "index": index,
                "text": before + choice.text,
                "logprobs": listed(choice.said, len(before)) if self.logprobs else None,
                "finish_reason": choice.finish,
            }
            for index, (choice, before) in enumerate(zip(writing.choices, self.shown))
        ]
        return self.head(self.kind) | {"choices": choices}

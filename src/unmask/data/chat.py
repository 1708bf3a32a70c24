"""Conversations to token ids with the assistant's responses marked. Knows no file and no loss."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, TypedDict

from unmask.data.tokenizer import Tokenizer
from unmask.errors import UserError, nearest

ROLES = ("system", "user", "assistant", "tool")
GENERATION = "{% generation"


class Message(TypedDict):
    """One turn."""

    role: str
    content: str


def check_messages(messages: Any, place: str = "messages") -> list[Message]:
    """The messages, if they are turns with a known role and text. Raises UserError naming place, turn and field."""
    if not isinstance(messages, list) or not messages:
        raise UserError(f"messages: {place} has {type(messages).__name__}; use a list with at least one turn")
    for number, message in enumerate(messages):
        _check_message(message, f"{place}, turn {number}")
    return messages


def _check_message(message: Any, place: str) -> None:
    if not isinstance(message, dict):
        raise UserError(f"messages: {place} is {type(message).__name__}; use an object with role and content")
    for field in ("role", "content"):
        if not isinstance(message.get(field), str):
            raise UserError(f"{field}: {place} has {message.get(field)!r}; use a text")
    if message["role"] not in ROLES:
        raise UserError(f"role: {place} has {message['role']!r}; {nearest(message['role'], ROLES)}")


def render(
    messages: Sequence[Message], tokenizer: Tokenizer, *, generation_prompt: bool = False
) -> tuple[list[int], list[bool]]:
    """(ids, scored): scored is True on the response of every assistant turn, its end-of-turn token included.

    generation_prompt adds what stands before a new assistant turn. The tokenizer's own chat template is used where it
    has one. Raises UserError on bad messages, on content that holds the mask token, and where responses cannot be
    located in what the template renders."""
    turns = check_messages(list(messages))
    template = tokenizer.chat_template
    if not template:
        return _render_plain(turns, tokenizer, generation_prompt)
    marked = isinstance(template, str) and GENERATION in template.replace("{%-", "{%")
    ids, scored = (_render_marked if marked else _render_grown)(turns, tokenizer, generation_prompt)
    if tokenizer.mask_id in ids:
        raise UserError(
            f"messages: the conversation holds {tokenizer.mask_token!r}, which only the sampler may place; remove it"
        )
    return ids, scored


def _render_plain(turns: list[Message], tokenizer: Tokenizer, generation_prompt: bool) -> tuple[list[int], list[bool]]:
    """The default template. Heads and contents are encoded apart, so that training and generation meet the same
    tokens at the border, and markers inside a content stay text."""
    ids: list[int] = []
    scored: list[bool] = []
    for turn in turns:
        head, end, tail = _frame(tokenizer, turn["role"])
        body = tokenizer.encode_plain(turn["content"]) + end
        ids += head + body + tail
        scored += [False] * len(head) + [turn["role"] == "assistant"] * len(body) + [False] * len(tail)
    if generation_prompt:
        head = _frame(tokenizer, "assistant")[0]
        ids, scored = ids + head, scored + [False] * len(head)
    return ids, scored


def _frame(tokenizer: Tokenizer, role: str) -> tuple[list[int], list[int], list[int]]:
    """(before, end of turn, after) the content of a turn: ChatML, or plain words where its markers are unknown."""
    if tokenizer.turn_ids:
        opening, closing = tokenizer.turn_ids
        return [opening, *tokenizer.encode_plain(f"{role}\n")], [closing], tokenizer.encode_plain("\n")
    head = tokenizer.encode_plain(f"{role.capitalize()}: ")
    return head, [tokenizer.eos_id], tokenizer.encode_plain("\n")


def _plain_dicts(turns: list[Message]) -> list[dict[str, str]]:
    return [{"role": turn["role"], "content": turn["content"]} for turn in turns]


def _apply(turns: list[Message], tokenizer: Tokenizer, generation_prompt: bool, *, mask: bool = False) -> Any:
    from jinja2 import TemplateError

    try:
        return tokenizer.backend.apply_chat_template(
            _plain_dicts(turns),
            add_generation_prompt=generation_prompt,
            tokenize=True,
            return_dict=True,
            return_assistant_tokens_mask=mask,
        )
    except TemplateError as error:
        raise UserError(f"messages: the tokenizer's chat template refuses the conversation ({error})") from error


def _template_ids(turns: list[Message], tokenizer: Tokenizer, generation_prompt: bool) -> list[int]:
    return list(_apply(turns, tokenizer, generation_prompt)["input_ids"])


def _render_marked(turns: list[Message], tokenizer: Tokenizer, generation_prompt: bool) -> tuple[list[int], list[bool]]:
    """For templates that mark the responses themselves."""
    encoded = _apply(turns, tokenizer, generation_prompt, mask=True)
    return list(encoded["input_ids"]), [bool(flag) for flag in encoded["assistant_masks"]]


def _render_grown(turns: list[Message], tokenizer: Tokenizer, generation_prompt: bool) -> tuple[list[int], list[bool]]:
    """For other templates: a response is what the conversation gains when the assistant's turn is added to it."""
    full = _template_ids(turns, tokenizer, generation_prompt)
    scored = [False] * len(full)
    stop = len(full)
    for number, turn in enumerate(turns):
        if turn["role"] == "assistant":
            start, stop = _span(full, turns, number, tokenizer)
            scored[start:stop] = [True] * (stop - start)
    # Some templates open a next turn unasked; it does not belong to a conversation that ends with a response.
    if not generation_prompt and turns[-1]["role"] == "assistant" and full == _template_ids(turns, tokenizer, True):
        return full[:stop], scored[:stop]
    return full, scored


def _span(full: list[int], turns: list[Message], number: int, tokenizer: Tokenizer) -> tuple[int, int]:
    """[start, stop) of the response of turn number in the rendered conversation: from the end of its head to its
    first special token. What follows that (a newline, the next head) is no response."""
    before = _before(turns, number, tokenizer)
    through = _template_ids(turns[: number + 1], tokenizer, False)
    grows = full[: len(through)] == through
    start, limit = len(before), len(through) if grows else len(full)
    ends = (place + 1 for place in range(start, limit) if full[place] in tokenizer.special_ids)
    stop = next(ends, limit if grows else 0)
    if full[:start] != before or stop <= start:
        raise UserError(
            f"messages: the tokenizer's chat template rewrites earlier turns, so the response of turn {number} cannot "
            "be located; use a template with {% generation %} marks, or remove the template"
        )
    return start, stop


def _before(turns: list[Message], number: int, tokenizer: Tokenizer) -> list[int]:
    """What stands before the response of turn number. Many templates cannot render an empty conversation, so for the
    first turn it is what two different responses have in common."""
    if number:
        return _template_ids(turns[:number], tokenizer, True)
    other = "1" if turns[0]["content"].startswith("0") else "0"
    left = _template_ids(turns[:1], tokenizer, False)
    right = _template_ids([{"role": turns[0]["role"], "content": other}], tokenizer, False)
    return [a for a, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(left, right))]

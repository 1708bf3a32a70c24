"""What a client is told when something is wrong: one sentence, in the shape OpenAI's clients read. No traceback, no
path and nothing else of the server's inside ever gets into it."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from ..errors import UserError

LOG = logging.getLogger("unmask.serving")
FIELD = re.compile(r"^([a-z_]+(?:\.[a-z0-9_]+)*)(?=[=:]| \d)")  # how the sentences of this package begin
LONGEST = 500  # characters of a sentence
TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


class ApiError(Exception):
    """An answer that is no: status, sentence, OpenAI's code, the field it is about, and when to try again (seconds)."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param, self.retry_after = status, code, param, retry_after
        self.message = message if len(message) <= LONGEST else message[: LONGEST - 1] + "…"

    def body(self) -> dict[str, Any]:
        kind = TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def content(self) -> bytes:
        """In ASCII: a sentence may quote half a character from a damaged request, which no UTF-8 can carry."""
        return json.dumps(self.body()).encode("ascii")

    def headers(self) -> dict[str, str]:
        found = {"content-type": "application/json"}
        if self.retry_after is not None:
            found["retry-after"] = str(self.retry_after)
        if self.status == HTTPStatus.UNAUTHORIZED:
            found["www-authenticate"] = "Bearer"
        return found


def refused(error: UserError) -> ApiError:
    """What the package itself has to say about the input."""
    named = FIELD.match(str(error))
    too_long = "context" in str(error) and "shorten" in str(error)
    code = "context_length_exceeded" if too_long else None
    return ApiError(400, str(error), param=named[1] if named else None, code=code)


def invalid(errors: Sequence[Mapping[str, Any]]) -> ApiError:
    """pydantic's first complaint about a body."""
    first = errors[0]
    where = [str(part) for part in first["loc"] if part != "body"]
    if first["type"] == "json_invalid":
        return ApiError(400, f"body: is not JSON ({first['ctx']['error']}); send one JSON object", code="invalid_json")
    if first["type"] == "model_attributes_type" or (first["type"] == "missing" and not where):
        return ApiError(400, "body: is no JSON object; send one, with content-type application/json")
    message = str(first["msg"]).removeprefix("Value error, ")
    named = FIELD.match(message)
    path = ".".join(where)
    if first["type"] == "value_error" and (named or not path):  # a sentence of ours, which says where
        return ApiError(400, message, param=named[1] if named else None)
    return ApiError(400, f"{path}: {message[:1].lower()}{message[1:]}", param=path or None)


def told(error: BaseException) -> ApiError:
    """Any error as an answer. What was not foreseen goes to the log whole, and to the client as a sentence."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, UserError):
        return refused(error)
    LOG.error("a request failed", exc_info=error)
    return ApiError(500, "the server could not answer this request; it goes on with others, so try again")

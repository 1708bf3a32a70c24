"""How a server is run: checked values, before a model is loaded."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..errors import UserError

MiB = 1 << 20


class ServeOptions(BaseModel):
    """Which model is served where, to whom, and how much of everything there may be."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str | None = Field(default=None, description="folder or hub id; default the packaged model")
    device: str = "auto"
    dtype: str = "auto"
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, lt=65536)
    api_key_file: Path | None = Field(default=None, description="one key a line; needed unless host is loopback")
    without_key: bool = Field(default=False, description="serve other machines without a key")
    name: str | None = Field(default=None, min_length=1, description="what the model is called; default its own name")
    max_tokens: int = Field(default=64, gt=0, description="new tokens where a request does not say")
    length: int | None = Field(
        default=None, gt=0, description="most tokens of a text, prompt included; default the model's context"
    )
    rows: int = Field(default=64, gt=0, description="texts written at a time")
    waiting: int = Field(default=512, ge=0, description="texts that may wait for their turn; beyond them 429")
    choices: int = Field(default=16, gt=0, description="most texts of one request")
    slots: int | None = Field(default=None, gt=0, description="token positions kept in exact caches, of all texts")
    prefixes: int = Field(default=4096, ge=0, description="token positions of prompts kept for others that begin alike")
    body: int = Field(default=MiB, gt=0, description="most bytes of a request")
    timeout: float = Field(default=300.0, gt=0, description="most seconds a request may take")
    rate: float | None = Field(default=None, gt=0, description="requests a minute of one key, or of one address")
    drain: float = Field(default=20.0, ge=0, description="seconds that running requests get at the end")

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> ServeOptions:
        try:
            return cls(**{name: value for name, value in options.items() if value is not None})
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            message = str(first["msg"]).removeprefix("Value error, ")
            raise UserError(f"{where}: {message[:1].lower()}{message[1:]}" if where else message) from error

    @model_validator(mode="after")
    def _guarded(self) -> ServeOptions:
        if self.api_key_file is None and not self.without_key and not _loopback(self.host):
            raise ValueError(
                f"host={self.host}: others can reach it; name a file of keys with --api-key-file, or say --without-key"
            )
        return self

    def keys(self) -> list[bytes]:
        """The SHA-256 of every key: the keys themselves are kept nowhere. None: all are let in."""
        if self.api_key_file is None:
            return []
        try:
            lines = self.api_key_file.read_text(encoding="utf-8").split()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"api_key_file: {self.api_key_file} cannot be read ({type(error).__name__})") from error
        if not lines:
            raise UserError(f"api_key_file: {self.api_key_file} holds no key; write one a line")
        return [sha256(line.encode()).digest() for line in lines]


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

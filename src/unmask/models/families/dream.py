"""Dream and DiffuCoder: Qwen 2.5 turned bidirectional, still reading token i off the output at i - 1."""

from __future__ import annotations

from typing import Any

from ..config import ModelConfig
from . import llama, qwen
from .family import Facts, Family, Raw, first_id


def describe(c: ModelConfig) -> dict[str, Any]:
    return llama.describe(c, "DreamModel", "Dream")


def facts(raw: Raw) -> Facts:
    method = {"kind": "masked", "shifted": True}
    return Facts(method, raw["mask_token_id"], first_id(raw.get("eos_token_id")), pads="uncounted")


DREAM = Family("dream", ("DreamModel", "DreamBaseModel"), qwen.shape2, describe, llama.names, facts)

"""Published checkpoints as the one transformer: one small table a family, told apart by `architectures` alone.

A model_type is not trusted: LLaDA-MoE calls itself `llada` in one place and `lladamoe` in another.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import UserError, nearest
from .dit import BD3LM, DUO, MDLM, SEDD
from .dream import DREAM
from .family import Facts, Family, Raw
from .gpt2 import GPT2
from .llada import LLADA
from .llada2 import LLADA2
from .llada_moe import LLADA_MOE
from .llama import LLAMA
from .qwen import QWEN2, QWEN3, QWEN3_MOE
from .sdar import FAST_DLLM, SDAR, SDAR_MOE

__all__ = ["FAMILIES", "Facts", "Family", "Raw", "family_named", "family_of"]

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        LLADA, LLADA_MOE, LLADA2, DREAM, SDAR, SDAR_MOE, FAST_DLLM, MDLM, BD3LM, SEDD, DUO, LLAMA, QWEN2, QWEN3,
        QWEN3_MOE, GPT2,
    )
}  # fmt: skip


def family_of(config: Mapping[str, Any]) -> Family:
    """The family that a config.json belongs to. UserError where none does."""
    named = config.get("architectures") or []
    for family in FAMILIES.values():
        if set(named) & set(family.architectures) or (not named and family.matches(Raw(config))):
            return family
    known = [name for family in FAMILIES.values() for name in family.architectures]
    asked = str(named[0]) if named else "none"
    raise UserError(f"config.json: architectures={named!r} is no model that unmask knows; {nearest(asked, known)}")


def family_named(name: str) -> Family:
    if name not in FAMILIES:
        raise UserError(f"to: {name!r} is no family of checkpoints; {nearest(name, FAMILIES)}")
    return FAMILIES[name]

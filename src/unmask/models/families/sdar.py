"""Block-causal Qwens: SDAR (Qwen 3, blocks of 4 unless it says otherwise) and Fast-dLLM v2 (Qwen 2.5, 32, shifted)."""

from __future__ import annotations

from typing import Any

from ..config import ModelConfig
from . import llama, qwen
from .family import Facts, Family, Raw, first_id

MASK, FAST_MASK = 151_669, 151_665  # the published configs do not name it; only the tokenizers have it


def facts(raw: Raw) -> Facts:
    method = {"kind": "block", "size": raw.get("block_size") or 4}
    return Facts(method, raw.get("mask_token_id", MASK), first_id(raw.get("eos_token_id")), pads="uncounted")


def fast_facts(raw: Raw) -> Facts:
    method = {"kind": "block", "size": raw.get("bd_size") or 32, "shifted": True}
    return Facts(method, raw.get("mask_token_id", FAST_MASK), first_id(raw.get("eos_token_id")), pads="uncounted")


def _describe(c: ModelConfig) -> dict[str, Any]:
    return qwen.describe3(c, "SDARForCausalLM", "sdar")


def _describe_moe(c: ModelConfig) -> dict[str, Any]:
    return qwen.describe3_moe(c, "SDARMoeForCausalLM", "sdar_moe")


def _describe_fast(c: ModelConfig) -> dict[str, Any]:
    return llama.describe(c, "Fast_dLLM_QwenForCausalLM", "Fast_dLLM_Qwen")


SDAR = Family("sdar", ("SDARForCausalLM",), qwen.shape3, _describe, llama.names, facts)
SDAR_MOE = Family("sdar_moe", ("SDARMoeForCausalLM",), qwen.shape3_moe, _describe_moe, llama.names, facts)
FAST_DLLM = Family("fast_dllm_v2", ("Fast_dLLM_QwenForCausalLM",), qwen.shape2, _describe_fast, llama.names, fast_facts)

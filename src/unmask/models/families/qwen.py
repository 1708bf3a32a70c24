"""Qwen 2 and 3, autoregressive: Llama's names, with biases of q, k, v or norms of each head."""

from __future__ import annotations

from typing import Any

from ..config import ModelConfig, MoEConfig
from . import llama
from .family import Family, Raw


def shape2(raw: Raw) -> ModelConfig:
    return llama.shape(raw, qkv_bias=True)


def shape3(raw: Raw) -> ModelConfig:
    bias = raw.get("attention_bias", False)
    return llama.shape(raw, qk_norm=True, qkv_bias=bias, out_bias=bias)


def shape3_moe(raw: Raw) -> ModelConfig:
    raw.only("decoder_sparse_step", 1)
    moe = MoEConfig(
        experts=raw["num_experts"],
        active=raw["num_experts_per_tok"],
        hidden=raw["moe_intermediate_size"],
        normalise=raw.get("norm_topk_prob", False),
        dense=tuple(raw.get("mlp_only_layers") or ()),
    )
    return shape3(raw).model_copy(update={"moe": moe})


def describe3(c: ModelConfig, architecture: str = "Qwen3ForCausalLM", model_type: str = "qwen3") -> dict[str, Any]:
    return llama.describe(c, architecture, model_type) | {"attention_bias": c.qkv_bias}


def describe3_moe(
    c: ModelConfig, architecture: str = "Qwen3MoeForCausalLM", model_type: str = "qwen3_moe"
) -> dict[str, Any]:
    moe = c.moe
    return describe3(c, architecture, model_type) | {
        "num_experts": moe and moe.experts,
        "num_experts_per_tok": moe and moe.active,
        "moe_intermediate_size": moe and moe.hidden,
        "norm_topk_prob": moe and moe.normalise,
        "mlp_only_layers": list(moe.dense) if moe else [],
        "decoder_sparse_step": 1,
    }


def _describe2(c: ModelConfig) -> dict[str, Any]:
    return llama.describe(c, "Qwen2ForCausalLM", "qwen2") | {"use_sliding_window": False}


QWEN2 = Family("qwen2", ("Qwen2ForCausalLM",), shape2, _describe2, llama.names, llama.facts)
QWEN3 = Family("qwen3", ("Qwen3ForCausalLM",), shape3, describe3, llama.names, llama.facts)
QWEN3_MOE = Family("qwen3_moe", ("Qwen3MoeForCausalLM",), shape3_moe, describe3_moe, llama.names, llama.facts)

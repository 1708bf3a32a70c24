"""LLaDA-MoE-7B-A1B: bidirectional, Hugging Face names, softmax router. Its config may call itself `llada` too."""

from __future__ import annotations

from typing import Any

from ..config import ModelConfig, MoEConfig
from . import llama
from .family import Facts, Family, Raw, Table, first_id
from .llada2 import mask_of


def shape(raw: Raw) -> ModelConfig:
    raw.only("moe_router_score_function", "softmax")
    raw.only("router_num_group")
    layers, bias = raw["num_hidden_layers"], raw.get("attention_bias", False)
    every = raw.get("moe_layer_freq") or [1] * layers
    moe = MoEConfig(
        experts=raw["num_experts"],
        active=raw["num_experts_per_tok"],
        hidden=raw["expert_intermediate_size"],
        shared=raw.get("shared_expert_intermediate_size") or 0,
        bias="weight" if raw.get("moe_router_enable_expert_bias") else "none",
        dense=tuple(i for i, sparse in enumerate(every) if not sparse),
    )
    return llama.shape(
        Raw(raw, intermediate_size=raw.get("dense_intermediate_size") or raw["expert_intermediate_size"]),
        moe=moe,
        qk_norm=raw.get("qk_layernorm", False),
        qkv_bias=bias,
        out_bias=bias,
        clip_qkv=raw.get("clip_qkv"),
        rope_part=raw.get("partial_rotary_factor") or 1.0,
    )


def describe(c: ModelConfig) -> dict[str, Any]:
    moe = c.moe
    return llama.describe(c, "LLaDAMoEModelLM", "lladamoe") | {
        "dense_intermediate_size": c.mlp_width,
        "num_experts": moe and moe.experts,
        "num_experts_per_tok": moe and moe.active,
        "expert_intermediate_size": moe and moe.hidden,
        "shared_expert_intermediate_size": (moe and moe.shared) or None,
        "moe_router_enable_expert_bias": bool(moe and moe.bias == "weight"),
        "moe_layer_freq": [int(not moe or i not in moe.dense) for i in range(c.layers)],
        "qk_layernorm": bool(c.qk_norm),
        "attention_bias": c.qkv_bias,
        "clip_qkv": c.clip_qkv,
        "partial_rotary_factor": c.rope_part,
    }


def names(c: ModelConfig, prefix: str) -> Table:
    table = llama.names(c)
    for i in range(c.layers):
        ours, theirs = f"blocks.{i}.mlp.", f"model.layers.{i}."
        table[ours + "router.bias"] = f"{theirs}mlp.expert_bias"
        table |= llama.swiglu(ours + "shared", theirs + "shared_expert")
    return table


def facts(raw: Raw) -> Facts:
    return Facts({"kind": "masked"}, mask_of(raw), first_id(raw.get("eos_token_id")))


LLADA_MOE = Family("llada_moe", ("LLaDAMoEModelLM",), shape, describe, names, facts)

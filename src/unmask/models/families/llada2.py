"""LLaDA 2.0, 2.1, 2.2: block-causal mixture of experts with a grouped sigmoid router and a shared expert (Ling's)."""

from __future__ import annotations

from typing import Any

from ..config import ModelConfig, MoEConfig
from . import llama
from .family import Facts, Family, Raw, Rows, Table, first_id

BLOCK = 32  # of the published models, whose config does not say it
MASK_BEHIND_PAD = 3  # nor the mask: 156895 where padding is 156892, as in LLaDA-MoE


def shape(raw: Raw) -> ModelConfig:
    raw.only("score_function", "sigmoid")
    raw.only("use_rmsnorm", True)
    raw.only("norm_head", False)
    moe = MoEConfig(
        experts=raw["num_experts"],
        active=raw["num_experts_per_tok"],
        hidden=raw["moe_intermediate_size"],
        shared=raw["moe_intermediate_size"] * (raw.get("num_shared_experts") or 0),
        score="sigmoid",
        bias="choice" if raw.get("moe_router_enable_expert_bias") else "none",
        groups=raw.get("n_group") or 1,
        kept_groups=raw.get("topk_group") or 1,
        normalise=raw.get("norm_topk_prob", False),
        scale=raw.get("routed_scaling_factor", 1.0),
        dense=tuple(range(raw.get("first_k_dense_replace") or 0)),
    )
    return llama.shape(
        raw,
        moe=moe,
        qk_norm=raw.get("use_qk_norm", False),
        qkv_bias=raw.get("use_qkv_bias", False),
        out_bias=raw.get("use_bias", False),
        rope_part=raw.get("partial_rotary_factor") or 1.0,
    )


def describe(c: ModelConfig) -> dict[str, Any]:
    moe = c.moe
    return llama.describe(c, "LLaDA2MoeModelLM", "llada2_moe") | {
        "num_experts": moe and moe.experts,
        "num_experts_per_tok": moe and moe.active,
        "moe_intermediate_size": moe and moe.hidden,
        "num_shared_experts": moe and moe.shared // moe.hidden,
        "moe_router_enable_expert_bias": bool(moe and moe.bias == "choice"),
        "score_function": moe and moe.score,
        "n_group": moe and moe.groups,
        "topk_group": moe and moe.kept_groups,
        "norm_topk_prob": moe and moe.normalise,
        "routed_scaling_factor": moe and moe.scale,
        "first_k_dense_replace": len(moe.dense) if moe else c.layers,
        "use_qk_norm": bool(c.qk_norm),
        "use_qkv_bias": c.qkv_bias,
        "use_bias": c.out_bias,
        "partial_rotary_factor": c.rope_part,
    }


def names(c: ModelConfig, prefix: str) -> Table:
    table, q = llama.names(c), c.heads * c.head_dim
    end = q + 2 * c.n_kv_heads * c.head_dim
    table["embed"] = "model.word_embeddings"
    for i in range(c.layers):
        ours, theirs = f"blocks.{i}.", f"model.layers.{i}."
        table |= {
            ours + "attention.q": Rows(theirs + "attention.query_key_value", 0, q),
            ours + "attention.kv": Rows(theirs + "attention.query_key_value", q, end),
            ours + "attention.out": theirs + "attention.dense",
            ours + "attention.q_norm": theirs + "attention.query_layernorm",
            ours + "attention.k_norm": theirs + "attention.key_layernorm",
            ours + "mlp.router.bias": theirs + "mlp.gate.expert_bias",
            **llama.swiglu(ours + "mlp.shared", theirs + "mlp.shared_experts"),
        }
    return table


def facts(raw: Raw) -> Facts:
    method = {"kind": "block", "size": raw.get("block_length") or BLOCK}
    return Facts(method, mask_of(raw), first_id(raw.get("eos_token_id", raw.get("pad_token_id"))))


def mask_of(raw: Raw) -> int:
    mask = raw.get("mask_token_id")
    return int(raw["pad_token_id"] + MASK_BEHIND_PAD if mask is None else mask)


LLADA2 = Family("llada2", ("LLaDA2MoeModelLM",), shape, describe, names, facts)

"""LLaDA-8B, LLaDA 1.5: a Llama block under OLMo's names, bidirectional."""

from __future__ import annotations

import math
from typing import Any

from ..config import ModelConfig
from .family import Facts, Family, Raw, Table, first_id


def shape(raw: Raw) -> ModelConfig:
    raw.only("activation_type", "silu")
    raw.only("block_type", "llama")
    raw.only("layer_norm_type", "rms")
    raw.only("rope", True)
    for switch in ("alibi", "bias_for_layer_norm", "include_bias", "multi_query_attention"):
        raw.only(switch, False)
    width = raw["d_model"]
    return ModelConfig(
        vocab=raw.get("embedding_size") or raw["vocab_size"],
        width=width,
        layers=raw["n_layers"],
        heads=raw["n_heads"],
        kv_heads=raw.get("n_kv_heads"),
        hidden=raw.get("mlp_hidden_size") or raw["mlp_ratio"] * width,
        context=raw["max_sequence_length"],
        norm_eps=raw["rms_norm_eps"],
        rope_theta=raw["rope_theta"],
        qk_norm="whole" if raw.get("attention_layer_norm") else False,
        qkv_bias=raw.get("include_qkv_bias") or False,
        embed_scale=math.sqrt(width) if raw.get("input_emb_norm") else 1.0,
        logit_scale=1 / math.sqrt(width) if raw.get("scale_logits") else 1.0,
        tied=raw.get("weight_tying", False),
    )


def describe(c: ModelConfig) -> dict[str, Any]:
    return {
        "architectures": ["LLaDAModelLM"],
        "model_type": "llada",
        "vocab_size": c.vocab,
        "embedding_size": c.vocab,
        "d_model": c.width,
        "n_layers": c.layers,
        "n_heads": c.heads,
        "n_kv_heads": c.n_kv_heads,
        "mlp_hidden_size": c.mlp_width,
        "max_sequence_length": c.context,
        "rms_norm_eps": c.norm_eps,
        "rope_theta": c.rope_theta,
        "attention_layer_norm": c.qk_norm == "whole",
        "include_qkv_bias": c.qkv_bias,
        "input_emb_norm": c.embed_scale != 1,
        "scale_logits": c.logit_scale != 1,
        "weight_tying": c.tied,
        "activation_type": "silu",
        "block_type": "llama",
        "layer_norm_type": "rms",
        "rope": True,
    }


def names(c: ModelConfig, prefix: str) -> Table:
    table: Table = {"embed": f"{prefix}wte", "norm": f"{prefix}ln_f", "head": f"{prefix}ff_out"}
    for i in range(c.layers):
        ours, theirs = f"blocks.{i}.", f"{prefix}blocks.{i}."
        table |= {
            ours + "norm1": theirs + "attn_norm",
            ours + "attention.q": theirs + "q_proj",
            ours + "attention.kv": [theirs + "k_proj", theirs + "v_proj"],
            ours + "attention.out": theirs + "attn_out",
            ours + "attention.q_norm": theirs + "q_norm",
            ours + "attention.k_norm": theirs + "k_norm",
            ours + "norm2": theirs + "ff_norm",
            ours + "mlp.gate_up": [theirs + "ff_proj", theirs + "up_proj"],
            ours + "mlp.down": theirs + "ff_out",
        }
    return table


def facts(raw: Raw) -> Facts:
    return Facts({"kind": "masked"}, raw["mask_token_id"], first_id(raw.get("eos_token_id")))


LLADA = Family(
    "llada", ("LLaDAModelLM",), shape, describe, names, facts, prefixes=("model.transformer.", "transformer.")
)

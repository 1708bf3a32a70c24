"""Llama, autoregressive; its names are those of most Hugging Face decoders."""

from __future__ import annotations

from typing import Any

from ..config import ModelConfig
from .family import Facts, Family, Raw, Table, first_id, rope_of, rope_to


def shape(raw: Raw, **switches: Any) -> ModelConfig:
    """The sizes that Llama, Qwen, Dream and SDAR configs share."""
    raw.only("hidden_act", "silu")
    raw.only("use_sliding_window", False)
    return ModelConfig(
        **{
            "vocab": raw["vocab_size"],
            "width": raw["hidden_size"],
            "layers": raw["num_hidden_layers"],
            "heads": raw["num_attention_heads"],
            "kv_heads": raw.get("num_key_value_heads"),
            "head_width": raw.get("head_dim"),
            "hidden": raw["intermediate_size"],
            "context": raw["max_position_embeddings"],
            "norm_eps": raw["rms_norm_eps"],
            "qk_norm": False,
            "tied": raw.get("tie_word_embeddings", False),
            **rope_of(raw),
            **switches,
        }
    )


def describe(c: ModelConfig, architecture: str, model_type: str) -> dict[str, Any]:
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "vocab_size": c.vocab,
        "hidden_size": c.width,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "num_key_value_heads": c.n_kv_heads,
        "head_dim": c.head_dim,
        "intermediate_size": c.mlp_width,
        "hidden_act": "silu",
        "max_position_embeddings": c.context,
        "rms_norm_eps": c.norm_eps,
        "tie_word_embeddings": c.tied,
        **rope_to(c),
    }


def names(c: ModelConfig, prefix: str = "") -> Table:
    table: Table = {"embed": "model.embed_tokens", "norm": "model.norm", "head": "lm_head"}
    for i in range(c.layers):
        ours, theirs = f"blocks.{i}.", f"model.layers.{i}."
        attention = theirs + "self_attn."
        table |= {
            ours + "norm1": theirs + "input_layernorm",
            ours + "attention.q": attention + "q_proj",
            ours + "attention.kv": [attention + "k_proj", attention + "v_proj"],
            ours + "attention.out": attention + "o_proj",
            ours + "attention.q_norm": attention + "q_norm",
            ours + "attention.k_norm": attention + "k_norm",
            ours + "norm2": theirs + "post_attention_layernorm",
            **swiglu(ours + "mlp", theirs + "mlp"),
        }
        if c.moe is not None and i not in c.moe.dense:
            table |= experts(c, ours + "mlp", theirs + "mlp")
    return table


def swiglu(ours: str, theirs: str) -> Table:
    return {f"{ours}.gate_up": [f"{theirs}.gate_proj", f"{theirs}.up_proj"], f"{ours}.down": f"{theirs}.down_proj"}


def experts(c: ModelConfig, ours: str, theirs: str) -> Table:
    """A router named gate and experts by number."""
    assert c.moe is not None
    each = [f"{theirs}.experts.{e}." for e in range(c.moe.experts)]
    return {
        f"{ours}.router.weight": f"{theirs}.gate.weight",
        f"{ours}.gate_up": [f"{expert}{part}_proj.weight" for expert in each for part in ("gate", "up")],
        f"{ours}.down": [f"{expert}down_proj.weight" for expert in each],
    }


def facts(raw: Raw) -> Facts:
    """No mask yet: converting adds one."""
    return Facts({"kind": "autoregressive"}, None, first_id(raw.get("eos_token_id")), pads="uncounted")


def _shape(raw: Raw) -> ModelConfig:
    bias = raw.get("attention_bias", False)
    return shape(raw, qkv_bias=bias, out_bias=bias, mlp_bias=raw.get("mlp_bias", False))


def _describe(c: ModelConfig) -> dict[str, Any]:
    return describe(c, "LlamaForCausalLM", "llama") | {"attention_bias": c.qkv_bias, "mlp_bias": c.mlp_bias}


LLAMA = Family("llama", ("LlamaForCausalLM",), _shape, _describe, names, facts, buffers=r".*rotary_emb\.inv_freq")

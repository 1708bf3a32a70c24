"""GPT-2, autoregressive: learned positions, norms with biases, matrices stored as (in, out)."""

from __future__ import annotations

from typing import Any

from ..config import ModelConfig
from . import llama
from .family import Family, Raw, Rows, Table


def shape(raw: Raw) -> ModelConfig:
    raw.only("activation_function", "gelu_new", "gelu_pytorch_tanh")
    raw.only("scale_attn_by_inverse_layer_idx", False)
    width = raw["n_embd"]
    return ModelConfig(
        vocab=raw["vocab_size"],
        width=width,
        layers=raw["n_layer"],
        heads=raw["n_head"],
        hidden=raw.get("n_inner") or 4 * width,
        context=raw["n_positions"],
        norm="layer",
        norm_bias=True,
        norm_eps=raw["layer_norm_epsilon"],
        activation="gelu",
        positions="learned",
        qk_norm=False,
        qkv_bias=True,
        out_bias=True,
        mlp_bias=True,
        tied=raw.get("tie_word_embeddings", True),
    )


def describe(c: ModelConfig) -> dict[str, Any]:
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": c.vocab,
        "n_embd": c.width,
        "n_layer": c.layers,
        "n_head": c.heads,
        "n_inner": c.mlp_width,
        "n_positions": c.context,
        "layer_norm_epsilon": c.norm_eps,
        "activation_function": "gelu_new",
        "tie_word_embeddings": c.tied,
    }


def names(c: ModelConfig, prefix: str) -> Table:
    table: Table = {"embed": f"{prefix}wte", "positions": f"{prefix}wpe", "norm": f"{prefix}ln_f", "head": "lm_head"}
    for i in range(c.layers):
        ours, theirs, w = f"blocks.{i}.", f"{prefix}h.{i}.", c.width
        table |= {
            ours + "norm1": theirs + "ln_1",
            ours + "attention.q": Rows(theirs + "attn.c_attn", 0, w, turned=True),
            ours + "attention.kv": Rows(theirs + "attn.c_attn", w, 3 * w, turned=True),
            ours + "attention.out": Rows(theirs + "attn.c_proj", turned=True),
            ours + "norm2": theirs + "ln_2",
            ours + "mlp.up": Rows(theirs + "mlp.c_fc", turned=True),
            ours + "mlp.down": Rows(theirs + "mlp.c_proj", turned=True),
        }
    return table


GPT2 = Family(
    "gpt2",
    ("GPT2LMHeadModel",),
    shape,
    describe,
    names,
    llama.facts,
    prefixes=("transformer.", ""),
    buffers=r".*attn\.(bias|masked_bias)",
)

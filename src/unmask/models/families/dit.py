"""MDLM, BD3-LM, SEDD and Duo: one diffusion transformer (adaLN on sigma), told apart by their noise and their head."""

from __future__ import annotations

from typing import Any

from ..config import ModelConfig
from .family import Facts, Family, Raw, Rows, Table

GPT2 = "gpt2"  # their tokenizer; MDLM and BD3-LM add a mask behind it, SEDD's absorbing graph too
LOG_LINEAR = {"kind": "log_linear", "eps": 1e-3}


def shape(raw: Raw) -> ModelConfig:
    raw.only("causal", False)
    raw.only("adaln", True)
    return _dit(raw, raw["vocab_size"], raw["hidden_dim"], raw["model_length"], raw["time_conditioning"])


def sedd_shape(raw: Raw) -> ModelConfig:
    model = Raw(raw["model"])
    return _dit(model, _sedd_vocab(raw), model["hidden_size"], model["length"], timed=True)


def _dit(sizes: Raw, vocab: int, width: int, context: int, timed: bool) -> ModelConfig:
    return ModelConfig(
        vocab=vocab,
        width=width,
        layers=sizes["n_blocks"],
        heads=sizes["n_heads"],
        hidden=4 * width,
        context=context,
        dropout=sizes.get("dropout", 0.0),
        norm="layer",
        norm_eps=1e-5,
        activation="gelu",
        qk_norm=False,
        mlp_bias=True,
        head_bias=True,
        time="adaln" if timed else "constant",
        time_width=sizes["cond_dim"],
        time_scale=1.0,
        time_unit="sigma",
        time_scope="row",
    )


def _sedd_vocab(raw: Raw) -> int:
    return int(raw["tokens"]) + (raw["graph"]["type"] == "absorb")


def names(c: ModelConfig, prefix: str) -> Table:
    table: Table = {
        "embed.weight": f"{prefix}vocab_embed.embedding",
        **{f"{time}.mlp.{i}": f"{prefix}sigma_map.mlp.{i}" for time in ("time", "no_time") for i in (0, 2)},
        "norm": f"{prefix}output_layer.norm_final",
        "modulate": f"{prefix}output_layer.adaLN_modulation",
        "head": f"{prefix}output_layer.linear",
    }
    for i in range(c.layers):
        ours, theirs = f"blocks.{i}.", f"{prefix}blocks.{i}."
        table |= {
            ours + "norm1": theirs + "norm1",
            ours + "attention.q": Rows(theirs + "attn_qkv", 0, c.width),
            ours + "attention.kv": Rows(theirs + "attn_qkv", c.width, 3 * c.width),
            ours + "attention.out": theirs + "attn_out",
            ours + "norm2": theirs + "norm2",
            ours + "mlp.up": theirs + "mlp.0",
            ours + "mlp.down": theirs + "mlp.2",
            ours + "modulate": theirs + "adaLN_modulation",
        }
    return table


def _described(architecture: str, model_type: str, **more: Any) -> Any:
    def describe(c: ModelConfig) -> dict[str, Any]:
        return {
            "architectures": [architecture],
            "model_type": model_type,
            "vocab_size": c.vocab,
            "hidden_dim": c.width,
            "cond_dim": c.time_width,
            "n_blocks": c.layers,
            "n_heads": c.heads,
            "model_length": c.context,
            "dropout": c.dropout,
            "time_conditioning": c.timed,
            **more,
        }

    return describe


def _sedd_describe(c: ModelConfig) -> dict[str, Any]:
    sizes = {"hidden_size": c.width, "cond_dim": c.time_width, "length": c.context, "n_blocks": c.layers}
    return {
        "tokens": c.vocab - 1,
        "graph": {"type": "absorb"},
        "noise": {"type": "loglinear"},
        "model": {**sizes, "n_heads": c.heads, "scale_by_sigma": True, "dropout": c.dropout},
    }


def _mdlm_facts(raw: Raw) -> Facts:
    return Facts({"kind": "masked", "schedule": LOG_LINEAR}, raw["vocab_size"] - 1, tokenizer=GPT2)


def _bd3lm_facts(raw: Raw) -> Facts:
    method = {"kind": "block", "size": raw["block_size"], "schedule": LOG_LINEAR}
    return Facts(method, raw["vocab_size"] - 1, twice=True, tokenizer=GPT2)


def _duo_facts(raw: Raw) -> Facts:
    return Facts({"kind": "uniform", "schedule": LOG_LINEAR}, tokenizer=GPT2)


def _sedd_facts(raw: Raw) -> Facts:
    noise, absorbs = raw["noise"], raw["graph"]["type"] == "absorb"
    schedule = {"kind": "geometric", "low": noise.get("sigma_min"), "high": noise.get("sigma_max")}
    method = {
        "kind": "sedd",
        "graph": "absorb" if absorbs else "uniform",
        "schedule": LOG_LINEAR if noise["type"] == "loglinear" else schedule,
        "scaled": raw["model"].get("scale_by_sigma", False),
    }
    return Facts(method, raw["tokens"] if absorbs else None, tokenizer=GPT2)


INV_FREQ = r".*rotary_emb\.inv_freq"
BACKBONE = ("backbone.", "")
MDLM = Family("mdlm", ("MDLM",), shape, _described("MDLM", "mdlm"), names, _mdlm_facts, BACKBONE, INV_FREQ)
BD3LM = Family(
    "bd3lm",
    ("BD3LM",),
    shape,
    _described("BD3LM", "bd3lm", block_size=16, cross_attn=True, adaln=True, attn_backend="sdpa"),
    names,
    _bd3lm_facts,
    BACKBONE,
    rf"{INV_FREQ}|sampling_eps_(min|max)",
)
DUO = Family("duo", ("DUO",), shape, _described("DUO", "DUO"), names, _duo_facts, BACKBONE, INV_FREQ)
SEDD = Family(
    "sedd",
    ("SEDD",),
    sedd_shape,
    _sedd_describe,
    names,
    _sedd_facts,
    buffers=INV_FREQ,
    matches=lambda raw: {"graph", "tokens", "model"} <= raw.keys(),
)

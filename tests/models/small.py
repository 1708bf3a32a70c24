"""Small random networks whose every parameter matters: nothing is left at zero, so that no path is silently dead."""

import torch

from unmask.models.config import ModelConfig
from unmask.models.transformer import Transformer

SWITCHES = {
    "plain": {},
    "layer norm, gelu": {"norm": "layer", "activation": "gelu", "qk_norm": False},
    "gqa": {"kv_heads": 2, "qk_norm": False},
    "gqa, head width, biases": {"kv_heads": 1, "head_width": 10, "qkv_bias": True, "out_bias": True, "mlp_bias": True},
    "tied": {"tied": True},
    "adaln": {"time": "adaln", "time_width": 16},
    "adaln, gelu, layer, biases": {
        "time": "adaln", "time_width": 16, "activation": "gelu", "norm": "layer", "qkv_bias": True, "mlp_bias": True,
        "out_bias": True,
    },
    "adaln, one level a row, head bias": {
        "time": "adaln", "time_width": 16, "time_scope": "row", "time_scale": 1.0, "head_bias": True,
    },
    "adaln, told nothing": {"time": "constant", "time_width": 16, "logit_scale": 0.5, "embed_scale": 3.0},
    "half of each head turns": {"rope_part": 0.5, "qk_norm": True},
    "norm over all heads, clipped": {"qk_norm": "whole", "kv_heads": 2, "clip_qkv": 0.8},
    "learned positions, norm bias": {"positions": "learned", "norm": "layer", "norm_bias": True, "qk_norm": False},
    "stretched rotation": {"rope_scaling": {"factor": 8.0, "original": 8}},
    "experts": {"moe": {"experts": 4, "active": 2, "hidden": 8, "dense": (0,)}},
    "experts in groups": {
        "moe": {
            "experts": 8, "active": 3, "hidden": 8, "shared": 16, "score": "sigmoid", "bias": "choice", "groups": 4,
            "kept_groups": 2, "normalise": True, "scale": 2.5,
        },
    },
    "one layer": {"layers": 1},
}  # fmt: skip


def network(seed=0, **changes):
    config = ModelConfig(**{"vocab": 37, "width": 32, "layers": 2, "heads": 4, "context": 32, **changes})
    model = Transformer(config)
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=rng) * (0.2 if p.dim() > 1 else 0.1) + (p.dim() == 1) * 0.7)
    return model.eval()


def text(rows=3, length=12, vocab=36, seed=0):
    return torch.randint(0, vocab, (rows, length), generator=torch.Generator().manual_seed(seed))

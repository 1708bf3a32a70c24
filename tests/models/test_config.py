"""Sizes that do not fit are refused by name before any weight is made."""

import pytest
from pydantic import ValidationError

from unmask.models.config import ModelConfig


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"width": 30, "heads": 4}, "width=30 is not a multiple of heads=4"),
        ({"heads": 4, "kv_heads": 3}, "heads=4 is not a multiple of kv_heads=3"),
        ({"head_width": 5}, "RoPE needs an even head_width"),
        ({"norm": "batch"}, "norm"),
        ({"colour": 1}, "colour"),
    ],
)
def test_misfits(fields, complaint):
    with pytest.raises(ValidationError, match=complaint):
        ModelConfig(**fields)


def test_derived_sizes():
    config = ModelConfig(width=96, heads=4)
    assert (config.n_kv_heads, config.head_dim, config.mlp_width) == (4, 24, 256)
    assert ModelConfig(width=96, heads=4, activation="gelu").mlp_width == 384
    assert ModelConfig(width=96, heads=4, hidden=100, kv_heads=2, head_width=8).mlp_width == 100

"""The same weights in `transformers`' Llama give the same logits, causal and bidirectional."""

import pytest
import torch
from small import network, text

from unmask.models.attention import Causal, Everything, Rule

transformers = pytest.importorskip("transformers")


def llama(config):
    torch.manual_seed(0)
    theirs = transformers.LlamaConfig(
        vocab_size=config.vocab, hidden_size=config.width, intermediate_size=config.mlp_width,
        num_hidden_layers=config.layers, num_attention_heads=config.heads, num_key_value_heads=config.n_kv_heads,
        head_dim=config.head_dim, rms_norm_eps=config.norm_eps, rope_theta=config.rope_theta,
        attention_bias=config.qkv_bias, mlp_bias=config.mlp_bias, attn_implementation="eager",
        tie_word_embeddings=config.tied, max_position_embeddings=64,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(theirs).eval()


def renamed(theirs, config):
    """Llama's state under our names: k and v in one matrix, gate and up in one matrix."""
    state = theirs.state_dict()
    ours = {"embed.weight": state["model.embed_tokens.weight"], "norm.weight": state["model.norm.weight"]}
    ours["head.weight"] = state["lm_head.weight"]
    for i in range(config.layers):
        old, new = f"model.layers.{i}.", f"blocks.{i}."
        ours[f"{new}norm1.weight"] = state[f"{old}input_layernorm.weight"]
        ours[f"{new}norm2.weight"] = state[f"{old}post_attention_layernorm.weight"]
        for kind in ["weight", "bias"] if config.qkv_bias else ["weight"]:
            q, k, v = (state[f"{old}self_attn.{p}_proj.{kind}"] for p in "qkv")
            ours[f"{new}attention.q.{kind}"], ours[f"{new}attention.kv.{kind}"] = q, torch.cat([k, v])
            ours[f"{new}attention.out.{kind}"] = state[f"{old}self_attn.o_proj.{kind}"]
        gate_up = [state[f"{old}mlp.{p}_proj.weight"] for p in ("gate", "up")]
        ours[f"{new}mlp.gate_up.weight"] = torch.cat(gate_up)
        ours[f"{new}mlp.down.weight"] = state[f"{old}mlp.down_proj.weight"]
    return ours


def their_mask(x, rule: Rule):
    allowed = torch.ones(x.shape[1], x.shape[1])
    allowed = allowed.tril() if isinstance(rule, Causal) else allowed
    return torch.zeros(1, 1, *allowed.shape).masked_fill(allowed == 0, torch.finfo(torch.float32).min)


@pytest.mark.parametrize("rule", [Causal(), Everything()], ids=repr)
@pytest.mark.parametrize(
    "switches",
    [
        {},
        {"kv_heads": 2, "rope_theta": 500_000.0},
        {"qkv_bias": True, "out_bias": True},
        {"head_width": 12},
        {"tied": True},
    ],
    ids=["plain", "gqa, theta", "biases", "head width", "tied"],
)
@torch.no_grad()
def test_llama(switches, rule):
    ours = network(qk_norm=False, **switches)
    theirs = llama(ours.config)
    for p in theirs.parameters():  # Llama's own initial values are too small to show an error
        p.copy_(torch.randn(p.shape) * (0.2 if p.dim() > 1 else 0.1) + (p.dim() == 1))
    ours.load_state_dict(renamed(theirs, ours.config))
    x = text()
    expected = theirs(x, attention_mask=their_mask(x, rule).expand(len(x), -1, -1, -1)).logits
    assert expected.std() > 0.5
    torch.testing.assert_close(ours.head(ours(x, None, rule)), expected, rtol=1e-5, atol=1e-5)
    if isinstance(rule, Causal):
        torch.testing.assert_close(theirs(x).logits, expected)

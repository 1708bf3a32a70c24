"""Published networks give their published logits, and their own greedy texts, from tiny reference checkpoints.

The references are 18 MB, too many for the repository: set UNMASK_FIXTURES to the folder that holds `models`.
"""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import unmask
from unmask.errors import UserError
from unmask.models.attention import BlockCausal, Places

FIXTURES = Path(os.environ.get("UNMASK_FIXTURES", "/nonexistent")) / "models"
pytestmark = pytest.mark.skipif(
    not FIXTURES.is_dir(), reason="UNMASK_FIXTURES names no folder with the 18 MB of reference checkpoints"
)
CLOSE = {"rtol": 0.0, "atol": 1e-5}

# case -> checkpoint, the name of its inputs, of its logits, and the arguments that its other tensors are
CASES = {
    "llada": ("llada", "input_ids", "logits", {}),
    "llada, padded": ("llada", "input_ids", "logits_with_attention_mask", {"attention_mask": "attention_mask"}),
    "llada, other switches": ("llada-variant", "input_ids", "logits", {}),
    "llada, other switches, padded": (
        "llada-variant", "input_ids", "logits_with_attention_mask", {"attention_mask": "attention_mask"},
    ),
    "llada-moe": ("llada-moe", "input_ids", "logits", {}),
    "llada-moe, padded": ("llada-moe", "input_ids", "logits_with_attention_mask", {"attention_mask": "attention_mask"}),
    "llada-moe, other switches": ("llada-moe-bias", "input_ids", "logits", {}),
    "llada-moe, other switches, padded": (
        "llada-moe-bias", "input_ids", "logits_with_attention_mask", {"attention_mask": "attention_mask"},
    ),
    "llada2": ("llada2", "input_ids", "logits_full_attention", {}),
    "llada2, in blocks": ("llada2", "input_ids", "logits_block_causal", {"attention_mask": "block_causal_mask"}),
    "llada2.1": ("llada21", "input_ids", "logits_full_attention", {}),
    "llada2.1, in blocks": ("llada21", "input_ids", "logits_block_causal", {"attention_mask": "block_causal_mask"}),
    "dream": ("dream", "input_ids", "logits", {}),
    "dream, padded": ("dream", "input_ids_padded", "logits_padded", {"attention_mask": "attention_mask"}),
    "sdar": ("sdar", "input_ids", "logits_block_causal", {}),
    "sdar, told who sees whom": ("sdar", "input_ids", "logits_block_causal", {"attention_mask": "block_causal_mask"}),
    "mdlm": ("mdlm", "input_ids", "logits", {}),
    "mdlm, told the time": ("mdlm-timecond", "input_ids", "logits", {"sigma": "timesteps"}),
    "bd3lm, twice": ("bd3lm", "input_ids_2l", "logits", {"sigma": "timesteps"}),
    "bd3lm": ("bd3lm", "sample_input_ids", "sample_logits", {"sigma": "timesteps"}),
    "bd3lm, told the time, twice": ("bd3lm-bs8-timecond", "input_ids_2l", "logits", {"sigma": "timesteps"}),
    "bd3lm, told the time": ("bd3lm-bs8-timecond", "sample_input_ids", "sample_logits", {"sigma": "timesteps"}),
    "sedd, mask": ("sedd-absorb", "input_ids", "log_score", {"sigma": "sigma"}),
    "sedd, uniform": ("sedd-uniform", "input_ids", "log_score", {"sigma": "sigma"}),
    "duo": ("duo", "input_ids", "logits", {"sigma": "timesteps"}),
    **{name: (name, "input_ids", "logits", {}) for name in ("llama", "llama3-rope", "qwen2", "qwen3", "gpt2")},
    **{
        f"{name}, padded": (name, "input_ids", "logits_padded", {"attention_mask": "attention_mask"})
        for name in ("llama", "llama3-rope", "qwen2", "qwen3", "gpt2")
    },
}  # fmt: skip
FAMILY = {
    "llada": "llada", "llada-variant": "llada", "llada-moe": "llada_moe", "llada-moe-bias": "llada_moe",
    "llada2": "llada2", "llada21": "llada2", "dream": "dream", "sdar": "sdar", "mdlm": "mdlm", "mdlm-timecond": "mdlm",
    "bd3lm": "bd3lm", "bd3lm-bs8-timecond": "bd3lm", "sedd-absorb": "sedd", "sedd-uniform": "sedd", "duo": "duo",
    "llama": "llama", "llama3-rope": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gpt2": "gpt2",
}  # fmt: skip
AUTOREGRESSIVE = ["llama", "llama3-rope", "qwen2", "qwen3", "gpt2"]


def reference(name):
    return load_file(FIXTURES / name / "io.safetensors")


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@torch.no_grad()
def test_logits(case):
    name, inputs, outputs, arguments = case
    io, denoiser = reference(name), unmask.load_denoiser(FIXTURES / name)
    found = denoiser.raw_logits(io[inputs], **{key: io[tensor] for key, tensor in arguments.items()})
    expected = io[outputs]
    if name == "dream" and "attention_mask" in arguments:  # nothing is defined where a row of its mask is all padding
        there = io["attention_mask"].bool()
        found, expected = found[there], expected[there]
    torch.testing.assert_close(found, expected, **CLOSE)


@torch.no_grad()
def test_logits_of_mixed_embeddings():
    io, denoiser = reference("duo"), unmask.load_denoiser(FIXTURES / "duo")
    found = denoiser.raw_logits(io["soft_input_logits"], sigma=io["timesteps"][:2])
    torch.testing.assert_close(found, io["soft_input_output_logits"], **CLOSE)


@torch.no_grad()
def test_a_noisy_text_beside_its_clean_one():
    """SDAR's training pass is ours of block diffusion."""
    io, denoiser = reference("sdar"), unmask.load_denoiser(FIXTURES / "sdar")
    twice = io["train_input_ids_2l"]
    position = io["train_position_ids"].expand(len(twice), -1)
    clean = (torch.arange(twice.shape[1]) >= twice.shape[1] // 2).expand(twice.shape)
    hidden = denoiser.network(twice, Places(position, clean=clean), BlockCausal(4))
    torch.testing.assert_close(denoiser.network.head(hidden)[:, :32], io["train_logits_noisy_half"], **CLOSE)


@pytest.mark.parametrize("name", ["mdlm", "mdlm-timecond"])
@torch.no_grad()
def test_beliefs_are_subs(name):
    io, denoiser = reference(name), unmask.load_denoiser(FIXTURES / name)
    x = io["input_ids"]
    t = -torch.expm1(-io["timesteps"].double()) / (1 - 1e-3)
    t = torch.where(x == denoiser.mask_id, t[:, None], 0.0)
    if denoiser.network.config.timed:  # only rows that have a mask are told their level
        t = t.masked_fill((x != denoiser.mask_id).all(1, keepdim=True), 0.0)
    mu = denoiser(x, t).mu().view(*x.shape, -1)
    found, expected = denoiser.process.beliefs(x, mu, t.float()), io["log_probs_subs"]
    masked = x == denoiser.mask_id
    torch.testing.assert_close(found[masked][:, :-1], expected[masked][:, :-1], rtol=0, atol=1e-4)
    assert torch.equal(found[~masked].argmax(-1), x[~masked])


@torch.no_grad()
def test_the_shift_of_dream():
    io, denoiser = reference("dream"), unmask.load_denoiser(FIXTURES / "dream")
    found = denoiser(io["input_ids"]).logits().view_as(io["logits_shifted"])
    keep = torch.arange(found.shape[-1]) != denoiser.mask_id
    torch.testing.assert_close(found[..., keep], io["logits_shifted"][..., keep], **CLOSE)


@pytest.mark.parametrize("cache", ["exact", "none"])
@pytest.mark.parametrize("name", AUTOREGRESSIVE)
def test_greedy_text(name, cache):
    io = reference(name)
    found = unmask.sample(unmask.load_denoiser(FIXTURES / name), io["greedy_prompt"], length=12, cache=cache)
    assert torch.equal(found.tokens, io["greedy_output"])
    assert (found.stats.forwards, found.stats.written, found.exact) == (12, 12, True)
    assert found.stats.queries == (8 + 11 if cache == "exact" else 12 * 20)


@pytest.mark.parametrize("name", ["llada", "dream", "gpt2", "sdar", "mdlm", "llada2"])
def test_a_padded_row_gets_what_it_gets_alone(name):
    denoiser = unmask.load_denoiser(FIXTURES / name)
    prompt = torch.randint(0, 250, (2, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(prompt)
    mask[0, :4] = 0
    both = unmask.sample(denoiser, prompt, attention_mask=mask, length=8, trace=True)
    alone = unmask.sample(denoiser, prompt[:1, 4:], length=8, trace=True)
    assert torch.equal(both.tokens[0, 4:], alone.tokens[0])
    assert torch.equal(both.tokens[:, :9], prompt)
    assert both.canvases.shape[1:] == (2, 17)
    assert torch.equal(both.canvases[-1], both.tokens)
    assert torch.equal(both.canvases[: len(alone.canvases), 0, 4:], alone.canvases[:, 0])


def test_a_published_block_model_sees_blocks_of_the_size_asked_for():
    denoiser = unmask.load_denoiser(FIXTURES / "llada2")
    prompt = torch.arange(12)[None]
    eight, whole = (unmask.sample(denoiser, prompt, length=20, block=size) for size in (8, 32))
    assert denoiser.rule == BlockCausal(32), "the denoiser itself is left alone"
    assert not torch.equal(eight.tokens, whole.tokens)


@pytest.mark.parametrize(("name", "family"), FAMILY.items())
def test_facts(name, family):
    denoiser = unmask.load_denoiser(FIXTURES / name)
    assert denoiser.family == family
    assert denoiser.config["graph" if family == "sedd" else "architectures"]
    assert denoiser.vocab == denoiser.network.config.vocab
    assert not denoiser.training


def test_dtype_and_mask_on_load():
    denoiser = unmask.load_denoiser(FIXTURES / "llada", dtype="bf16", mask_id=311)
    assert denoiser.network.head.weight.dtype == torch.bfloat16
    assert denoiser.mask_id == 311
    assert unmask.load_denoiser(FIXTURES / "llada", torch.bfloat16, "cpu").mask_id == 310


def test_a_level_that_is_not_given():
    denoiser = unmask.load_denoiser(FIXTURES / "duo")
    with pytest.raises(UserError, match="sigma: this network is told how noisy its text is; give sigma or t"):
        denoiser.raw_logits(torch.zeros(1, 4, dtype=torch.int64))


def test_masks_of_a_wrong_shape():
    denoiser = unmask.load_denoiser(FIXTURES / "llada")
    with pytest.raises(UserError, match=r"attention_mask: has shape \(3, 3\) for tokens of \(1, 4\)"):
        denoiser.raw_logits(torch.zeros(1, 4, dtype=torch.int64), attention_mask=torch.ones(3, 3))
    with pytest.raises(UserError, match="attention_mask: has shape"):
        unmask.sample(denoiser, torch.zeros(1, 4), attention_mask=torch.ones(3, 3), length=2)


# -- DiffusionGemma, through transformers' own class


@pytest.fixture(scope="module")
def gemma():
    transformers = pytest.importorskip("transformers")
    if not hasattr(transformers, "DiffusionGemmaForBlockDiffusion"):
        pytest.skip("this transformers does not know DiffusionGemma")
    return unmask.load_denoiser(FIXTURES / "diffusion-gemma")


@torch.no_grad()
def test_gemma(gemma):
    io = reference("diffusion-gemma")
    close = {"rtol": 0.0, "atol": 2e-5}
    x = torch.cat([io["input_ids"], io["decoder_input_ids"]], 1)
    padded = torch.cat([io["input_ids_padded"], io["decoder_input_ids"]], 1)
    torch.testing.assert_close(gemma.raw_logits(x), io["logits"], **close)
    again = gemma.raw_logits(x, self_conditioning_logits=io["self_conditioning_logits"])
    torch.testing.assert_close(again, io["logits_self_cond"], **close)
    found = gemma.raw_logits(padded, attention_mask=io["attention_mask"])
    torch.testing.assert_close(found, io["logits_padded"], **close)
    where = torch.arange(x.shape[1]).expand(x.shape) >= io["input_ids"].shape[1]
    asked = gemma(x, torch.ones(x.shape), where=where).logits()
    torch.testing.assert_close(asked.view_as(io["logits"]), io["logits"], **close)


def test_gemma_writes(gemma):
    prompt = reference("diffusion-gemma")["input_ids"]
    found = unmask.sample(gemma, prompt, length=12, block_steps=4, seed=1)
    assert found.tokens.shape == (2, 25)
    assert torch.equal(found.tokens[:, :13], prompt)
    alone = unmask.sample(gemma, prompt[1:], length=12, block_steps=4, seed=1)
    assert torch.equal(found.tokens[1], alone.tokens[0])
    with pytest.raises(UserError, match="block: DiffusionGemma writes up to 8 tokens at once"):
        unmask.sample(gemma, prompt, length=12, block=9)
    with pytest.raises(UserError, match="prompt: DiffusionGemma needs a token to begin behind"):
        unmask.sample(gemma, prompt[:, :0], length=8)

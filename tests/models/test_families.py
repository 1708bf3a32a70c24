"""Every family's table is a bijection: out and back to the bit, and what does not fit is named in one sentence.

Sizes are made up and weights random; that the networks are the published ones is shown in `test_published.py`.
"""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from small import text

from unmask.errors import UserError
from unmask.models import checkpoint
from unmask.models.checkpoint import export_model, load_model, save_model
from unmask.models.config import ModelConfig, MoEConfig, RopeScaling
from unmask.models.families import FAMILIES, Raw, family_of, transfer
from unmask.models.transformer import Transformer

LLAMA = {
    "vocab": 40,
    "width": 32,
    "layers": 2,
    "heads": 4,
    "kv_heads": 2,
    "hidden": 48,
    "context": 64,
    "qk_norm": False,
}
QWEN2 = LLAMA | {"qkv_bias": True}
QWEN3 = LLAMA | {"qk_norm": True, "head_width": 12}
MOE = {"experts": 4, "active": 2, "hidden": 8}
DIT = {
    "vocab": 40, "width": 32, "layers": 2, "heads": 4, "hidden": 128, "context": 16, "norm": "layer", "norm_eps": 1e-5,
    "activation": "gelu", "qk_norm": False, "mlp_bias": True, "head_bias": True, "time": "adaln", "time_width": 16,
    "time_scale": 1.0, "time_unit": "sigma", "time_scope": "row",
}  # fmt: skip
SHAPES = {
    "llama": LLAMA | {"rope_scaling": RopeScaling(original=16), "qkv_bias": True, "out_bias": True, "mlp_bias": True},
    "qwen2": QWEN2 | {"tied": True},
    "qwen3": QWEN3,
    "qwen3_moe": QWEN3 | {"moe": MoEConfig(**MOE, normalise=True, dense=(0,))},
    "gpt2": {
        "vocab": 40, "width": 32, "layers": 2, "heads": 4, "hidden": 128, "context": 64, "norm": "layer",
        "norm_bias": True, "norm_eps": 1e-5, "activation": "gelu", "positions": "learned", "qk_norm": False,
        "qkv_bias": True, "out_bias": True, "mlp_bias": True, "tied": True,
    },
    "llada": LLAMA,
    "llada_moe": QWEN3 | {
        "moe": MoEConfig(**MOE, shared=16, bias="weight", dense=(1,)), "clip_qkv": 2.0, "rope_part": 0.5,
    },
    "llada2": LLAMA | {
        "moe": MoEConfig(
            **MOE, shared=8, score="sigmoid", bias="choice", groups=2, kept_groups=1, normalise=True, scale=2.5,
            dense=(0,),
        ),
        "qk_norm": True, "rope_part": 0.5,
    },
    "dream": QWEN2,
    "sdar": QWEN3,
    "sdar_moe": QWEN3 | {"moe": MoEConfig(**MOE, normalise=True)},
    "fast_dllm_v2": QWEN2,
    "mdlm": DIT | {"time": "constant"},
    "bd3lm": DIT | {"time": "constant"},
    "sedd": DIT,
    "duo": DIT,
}  # fmt: skip


def network(name, seed=0, **changes):
    model = Transformer(ModelConfig(**{**SHAPES[name], **changes}))
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=rng) * 0.2 + (p.dim() == 1))
    return model.eval()


@pytest.fixture
def published(tmp_path):
    """A checkpoint of a family, exported from random weights."""

    def make(name="qwen3", **changes):
        export_model(tmp_path / "theirs", network(name, **changes), {}, name, {"mask_token_id": 39})
        (tmp_path / "theirs" / "manifest.json").unlink()  # as from the hub
        return tmp_path / "theirs"

    return make


every_family = pytest.mark.parametrize("name", sorted(FAMILIES))


def test_every_family_has_a_shape_here():
    assert set(SHAPES) == set(FAMILIES)


@every_family
def test_out_and_back(name, published, tmp_path):
    ours, folder = network(name), published(name)
    back, config = load_model(folder)
    assert config["published"]["family"] == name
    for (a, p), (b, q) in zip(ours.named_parameters(), back.named_parameters()):
        assert a == b
        assert torch.equal(p, q), a
    level = torch.full((3, 12), 0.5) if ours.config.timed else None
    assert torch.equal(back.head(back(text(), t=level)), ours.head(ours(text(), t=level)))
    export_model(tmp_path / "again", back, config, name)
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "again" / file).read_bytes() == (folder / file).read_bytes()


@every_family
def test_through_a_folder_of_ours(name, published, tmp_path):
    """What unmask saves of a published model still knows the way back, tensors that are no weights included."""
    folder = published(name)
    if FAMILIES[name].buffers and name not in ("llama", "gpt2"):
        prefix = FAMILIES[name].prefixes[0]
        tensors = load_file(folder / "model.safetensors") | {f"{prefix}rotary_emb.inv_freq": torch.rand(8)}
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    model, config = load_model(folder)
    save_model(tmp_path / "ours", model, {name: config[name] for name in ("method", "published")})
    again, kept = load_model(tmp_path / "ours")
    export_model(tmp_path / "theirs again", again, kept, name)
    assert (tmp_path / "theirs again" / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert json.loads((tmp_path / "theirs again" / "config.json").read_text()) == json.loads(
        (folder / "config.json").read_text()
    )


def test_architectures_decide():
    for name, family in FAMILIES.items():
        for architecture in family.architectures:
            assert family_of({"architectures": [architecture], "model_type": "llada"}).name == name
    with pytest.raises(UserError, match=r"architectures=\['LlamaForCausalLm'\] .* did you mean 'LlamaForCausalLM'"):
        family_of({"architectures": ["LlamaForCausalLm"], "model_type": "llama"})
    with pytest.raises(UserError, match=r"architectures=\[\]"):
        family_of({"model_type": "llama"})


# -- shards


def shard(folder, parts=3):
    """The same weights over several files, with their index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names, where = sorted(tensors), {}
    for i in range(parts):
        file = f"model-{i + 1:05}-of-{parts:05}.safetensors"
        save_file({name: tensors[name] for name in names[i::parts]}, folder / file)
        where |= dict.fromkeys(names[i::parts], file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return folder


@every_family
def test_shards(name, published):
    back, _ = load_model(shard(published(name)))
    assert all(torch.equal(p, q) for p, q in zip(network(name).parameters(), back.parameters()))


def test_what_is_written_is_sharded_when_large(published, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "SHARD_BYTES", 20_000)
    folder = published("llada2")
    assert len(list(folder.glob("model-*.safetensors"))) > 3
    back, _ = load_model(folder)
    assert all(torch.equal(p, q) for p, q in zip(network("llada2").parameters(), back.parameters()))


def test_a_truncated_shard(published):
    folder = shard(published())
    path = folder / "model-00002-of-00003.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match=r"model-00002-of-00003\.safetensors: is not a whole safetensors file"):
        load_model(folder)


def test_a_missing_shard(published):
    folder = shard(published())
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(UserError, match=r"model-00002-of-00003\.safetensors: this shard is missing"):
        load_model(folder)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"weight_map": {"a": "../../secret"}}'])
def test_a_broken_index(content, published):
    folder = shard(published())
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(UserError, match=r"model\.safetensors\.index\.json"):
        load_model(folder)


def test_only_a_pickle(published):
    folder = published()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"only pytorch_model\.bin, a pickle that could run code"):
        load_model(folder)


def change(folder, how):
    tensors = load_file(folder / "model.safetensors")
    how(tensors)
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize(
    ("how", "complaint"),
    [
        (lambda t: t.pop("model.layers.1.self_attn.k_proj.weight"), "1.self_attn.k_proj.weight' is missing"),
        (lambda t: t.update({"model.nrm.weight": torch.ones(32)}), "nrm.weight' has no place.*'model.norm.weight'"),
        (
            lambda t: t.update({"model.layers.0.mlp.up_proj.weight": torch.ones(47, 32)}),
            r"'model.layers.0.mlp.up_proj.weight' has shape \(47, 32\) where config.json asks for \(48, 32\)",
        ),
        (lambda t: t.update({"lm_head.weight": torch.ones(40)}), r"'lm_head.weight' has shape \(40,\)"),
    ],
    ids=["missing", "extra", "shape", "dimensions"],
)  # fmt: skip
def test_tensors_that_do_not_fit(how, complaint, published):
    with pytest.raises(UserError, match=complaint) as caught:
        load_model(change(published(), how))
    assert "\n" not in str(caught.value)


def test_a_fused_tensor_of_another_height(published):
    fused = "model.layers.1.attention.query_key_value.weight"
    folder = change(published("llada2"), lambda t: t.update({fused: t[fused][:-8].clone()}))
    with pytest.raises(UserError, match=r"query_key_value\.weight' has shape \(56, 32\) .* asks for \(64, 32\)"):
        load_model(folder)


def test_a_transposed_tensor(published):
    fused = "transformer.h.0.attn.c_attn.weight"
    folder = change(published("gpt2"), lambda t: t.update({fused: t[fused].T.contiguous()}))
    with pytest.raises(UserError, match=r"c_attn\.weight' has shape \(96, 32\) .* asks for \(32, 96\)"):
        load_model(folder)


def test_a_head_that_is_tied_and_stored_all_the_same(published):
    folder = change(published("qwen2"), lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()}))
    assert load_model(folder)[0].config.tied


def test_the_prefix_of_gpt2_may_be_left_out(published):
    folder = published("gpt2")
    tensors = {n.removeprefix("transformer."): t for n, t in load_file(folder / "model.safetensors").items()}
    save_file(tensors | {"h.0.attn.bias": torch.ones(1, 1, 64, 64)}, folder / "model.safetensors")
    back, config = load_model(folder)
    assert config["published"]["prefix"] == ""
    assert all(torch.equal(p, q) for p, q in zip(network("gpt2").parameters(), back.parameters()))


def test_dtypes(published):
    folder = published("llada2")
    tensors = load_file(folder / "model.safetensors")
    save_file({n: t if "expert_bias" in n else t.bfloat16() for n, t in tensors.items()}, folder / "model.safetensors")
    stored, wide = load_model(folder)[0], load_model(folder, dtype=torch.float32)[0]
    assert stored.blocks[1].attention.q.weight.dtype == torch.bfloat16
    assert stored.blocks[1].mlp.router.bias.dtype == torch.float32
    assert wide.blocks[1].attention.q.weight.dtype == torch.float32
    narrow = load_model(folder, dtype=torch.bfloat16)[0]
    assert narrow.blocks[1].mlp.router.bias.dtype == torch.float32, "a rounded bias would choose other experts"
    assert narrow.blocks[1].mlp.router.weight.dtype == torch.bfloat16


def test_one_shard_is_open_at_a_time(published, monkeypatch):
    folder, opened = shard(published()), []

    class Watched:
        def __init__(self, path, framework):
            self.file = original(path, framework=framework)

        def __enter__(self):
            opened.append(1)
            assert len(opened) == 1
            return self.file.__enter__()

        def __exit__(self, *args):
            opened.pop()
            return self.file.__exit__(*args)

    original = transfer.safe_open
    monkeypatch.setattr(transfer, "safe_open", Watched)
    load_model(folder)


# -- configs


def edit(folder, **fields):
    config = json.loads((folder / "config.json").read_text())
    config = {k: v for k, v in {**config, **fields}.items() if v is not ...}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"hidden_size": ...}, r"config\.json: 'hidden_size' is missing"),
        ({"hidden_act": "gelu"}, r"config\.json: hidden_act='gelu' is not supported, only 'silu'"),
        ({"use_sliding_window": True}, "use_sliding_window=True is not supported"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4}}, "rope_type='yarn' is not supported"),
        ({"num_attention_heads": 5}, "heads=5 is not a multiple of kv_heads=2"),
        ({"architectures": ["Qwen9ForCausalLM"]}, "architectures=.'Qwen9ForCausalLM'. is no model that unmask knows"),
    ],
)
def test_configs_that_are_refused(fields, complaint, published):
    with pytest.raises(UserError, match=complaint) as caught:
        load_model(edit(published(), **fields))
    assert "\n" not in str(caught.value)


def test_rope_as_transformers_5_writes_it(published):
    folder = edit(published(), rope_theta=..., rope_parameters={"rope_theta": 5e5, "rope_type": "default"})
    assert load_model(folder)[0].config.rope_theta == 5e5


def test_a_shape_that_a_family_cannot_have(tmp_path):
    with pytest.raises(UserError, match=r"to: a llama model cannot have model\.qk_norm=True; choose another family"):
        export_model(tmp_path / "m", network("qwen3"), {}, "llama")
    with pytest.raises(UserError, match="to: 'lama' is no family of checkpoints; did you mean 'llama'"):
        export_model(tmp_path / "m", network("llama"), {}, "lama")
    assert not (tmp_path / "m").exists()


def test_what_was_tuned_keeps_its_config(published, tmp_path):
    """Keys that mean nothing to us stay; a grown vocabulary is told."""
    folder = edit(published("llama"), torch_dtype="bfloat16")
    _, config = load_model(folder)
    export_model(tmp_path / "grown", network("llama", vocab=41), config, "llama")
    grown = json.loads((tmp_path / "grown" / "config.json").read_text())
    assert (grown["vocab_size"], grown["torch_dtype"]) == (41, "bfloat16")


def test_no_pickle_and_no_code_is_ever_asked_for():
    assert all(
        pattern.rpartition(".")[2] in ("json", "safetensors", "txt", "model", "jinja")
        for pattern in checkpoint.HUB_FILES
    )


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "qwen3_moe", "gpt2"])
@torch.no_grad()
def test_transformers_reads_what_we_export(name, tmp_path):
    transformers = pytest.importorskip("transformers")
    from unmask.models.attention import Causal

    ours = network(name)
    export_model(tmp_path / name, ours, {}, name)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / name, dtype=torch.float32).eval()
    expected = theirs(text()).logits
    torch.testing.assert_close(ours.head(ours(text(), None, Causal())), expected, rtol=1e-5, atol=2e-5)


def test_raw_configs_are_described_as_they_are_read():
    for name, family in FAMILIES.items():
        c = ModelConfig(**SHAPES[name])
        assert checkpoint._same(family.shape(Raw(family.describe(c))), c) is None, name

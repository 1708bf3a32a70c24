"""A published folder becomes one of ours and goes back to the bit; what is ours goes out as what others read."""

import json

import pytest
import torch

import unmask
from unmask.convert import convert
from unmask.data.tokenizer import bytes_tokenizer
from unmask.errors import UserError
from unmask.models.checkpoint import export_model, load_model, save_model
from unmask.models.config import ModelConfig
from unmask.models.transformer import Transformer

SHAPE = {"width": 32, "layers": 2, "heads": 4, "kv_heads": 2, "hidden": 48, "context": 64}


def network(**changes):
    model = Transformer(ModelConfig(**{**SHAPE, **changes}))
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=rng) * 0.2 + (p.dim() == 1))
    return model


@pytest.fixture
def llama(tmp_path):
    """An autoregressive model of 256 bytes, whose tokenizer has no mask."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    backend = PreTrainedTokenizerFast(tokenizer_object=core, eos_token=letters[0])
    folder = tmp_path / "llama"
    export_model(folder, network(vocab=256, qk_norm=False), {}, "llama", None, lambda f: backend.save_pretrained(f))
    (folder / "manifest.json").unlink()
    return folder


def test_an_autoregressive_model_gets_room_for_a_mask(llama, tmp_path):
    found = convert(str(llama), tmp_path / "ours")
    assert (found["from"], found["to"], found["tokenizer"]) == ("llama", "unmask", True)
    grown, config = load_model(tmp_path / "ours")
    old, _ = load_model(llama)
    assert grown.config.vocab == 257
    assert torch.equal(grown.embed.weight[:256], old.embed.weight)
    torch.testing.assert_close(grown.head.weight[256], old.head.weight.mean(0))
    assert config["method"] == {"kind": "autoregressive"}
    for folder in (llama, tmp_path / "ours"):
        text = unmask.load(folder, dtype="fp32", device="cpu").generate("abc", max_tokens=5, temperature=1.0)
        assert 256 not in text.tokens
    both = [
        unmask.load(f, dtype="fp32", device="cpu").generate("abc", max_tokens=5) for f in (llama, tmp_path / "ours")
    ]
    assert both[0].tokens == both[1].tokens


def test_there_and_back(llama, tmp_path):
    for name in ("special_tokens_map.json", "chat_template.jinja"):
        (llama / name).write_text("{}")
    convert(str(llama), tmp_path / "copy", "llama")
    for name in ("model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"):
        assert (tmp_path / "copy" / name).read_bytes() == (llama / name).read_bytes()


@torch.no_grad()
def test_a_model_of_ours_as_transformers_reads_it(tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer = bytes_tokenizer()
    method = {"method": {"kind": "autoregressive"}}
    save_model(tmp_path / "ours", network(vocab=len(tokenizer)), method, tokenizer.save)
    convert(str(tmp_path / "ours"), tmp_path / "theirs", "qwen3")
    config = json.loads((tmp_path / "theirs" / "config.json").read_text())
    assert config["eos_token_id"] == tokenizer.eos_id
    lm = unmask.load(tmp_path / "ours", dtype="fp32", device="cpu")
    ids = tokenizer.encode("abc")
    written = lm.generate("abc", max_tokens=8).tokens
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "theirs", dtype=torch.float32)
    start = torch.tensor([[tokenizer.eos_id, *ids]])
    greedy = theirs.generate(start, max_new_tokens=8, do_sample=False, bad_words_ids=[[tokenizer.mask_id]])
    assert greedy[0, start.shape[1] :].tolist()[: len(written)] == written


def test_a_masked_model_in_a_published_layout_writes_and_is_measured_as_before(tmp_path):
    tokenizer = bytes_tokenizer()
    method = {"method": {"kind": "masked"}}
    save_model(tmp_path / "ours", network(vocab=len(tokenizer) + 3, qk_norm=False), method, tokenizer.save)
    convert(str(tmp_path / "ours"), tmp_path / "llada", "llada")
    ours, theirs = (unmask.load(tmp_path / name, dtype="fp32", device="cpu") for name in ("ours", "llada"))
    assert theirs.config["published"]["family"] == "llada"
    assert theirs.tokenizer.mask_id == ours.tokenizer.mask_id
    for way in ({}, {"temperature": 1.0, "seed": 3}):
        assert theirs.generate("abc", max_tokens=6, **way).tokens == ours.generate("abc", max_tokens=6, **way).tokens
    assert theirs.score("some text", draws=2).nats == ours.score("some text", draws=2).nats
    theirs.save(tmp_path / "saved")
    assert unmask.load(tmp_path / "saved", dtype="fp32", device="cpu").generate("abc", max_tokens=6).tokens


def test_what_is_ours_has_to_be_told_where_to(tmp_path):
    tokenizer = bytes_tokenizer()
    save_model(tmp_path / "ours", network(vocab=len(tokenizer)), {}, tokenizer.save)
    with pytest.raises(
        UserError, match="in unmask's own layout; name the family to write it for, for example to=llama"
    ):
        convert(str(tmp_path / "ours"), tmp_path / "again")
    with pytest.raises(UserError, match=r"a llama model cannot have model\.qk_norm=True"):
        convert(str(tmp_path / "ours"), tmp_path / "again", "llama")
    assert not (tmp_path / "again").exists()


def test_without_a_tokenizer(llama, tmp_path):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (llama / name).unlink()
    assert convert(str(llama), tmp_path / "ours")["tokenizer"] is False
    denoiser = unmask.load_denoiser(tmp_path / "ours")
    assert denoiser.family == "llama"
    assert torch.equal(
        denoiser.raw_logits(torch.arange(9)[None]), unmask.load_denoiser(llama).raw_logits(torch.arange(9)[None])
    )
    with pytest.raises(UserError, match="has no tokenizer; put the tokenizer files of the model there"):
        unmask.load(tmp_path / "ours")

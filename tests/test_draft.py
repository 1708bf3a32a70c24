"""`draft_for`: two models with one tokenizer, from their folders, and what is refused."""

import pytest
import torch

import unmask
from unmask.data.tokenizer import bytes_tokenizer
from unmask.draft import draft_for
from unmask.errors import UserError
from unmask.lm import load
from unmask.models.checkpoint import save_model
from unmask.models.config import ModelConfig
from unmask.models.transformer import Transformer


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A joint model, an autoregressive one, and a Llama in `transformers`' own layout, all on bytes."""
    from transformers import LlamaConfig, LlamaForCausalLM

    root, tokenizer = tmp_path_factory.mktemp("drafted"), bytes_tokenizer()
    config = ModelConfig(vocab=len(tokenizer), width=16, layers=2, heads=2, context=64)
    for name, method in (("joint", {"kind": "joint", "size": 4}), ("left", {"kind": "autoregressive"})):
        net = Transformer(config).initialise(torch.Generator().manual_seed(0))
        torch.nn.init.normal_(net.head.weight, generator=torch.Generator().manual_seed(1))
        save_model(root / name, net, {"method": method}, tokenizer.save)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=48, initializer_range=0.5, **sizes)
    )
    model.generation_config.eos_token_id = tokenizer.eos_id
    model.save_pretrained(root / "llama")
    tokenizer.save(root / "llama")
    return root


def test_from_folders(folders):
    writer = unmask.draft_for(folders / "llama", folders / "joint")
    greedy = writer.generate("ab", max_tokens=20)
    ids = torch.tensor([writer.tokenizer("ab")["input_ids"]])
    expected = writer.model.generate(ids, do_sample=False, max_new_tokens=20, pad_token_id=0)[0, ids.shape[1] :]
    assert greedy.tokens == [token for token in expected.tolist() if token not in writer.ends]
    assert greedy.counts.forwards == len(greedy.decoded.drafts)
    two = writer.generate("ab", max_tokens=9, temperature=1.0, seed=4, samples=2)
    assert two[1].tokens == writer.generate("ab", max_tokens=9, temperature=1.0, seed=5).tokens
    assert writer.generate("ab", temperature=1.0).finish_reason in ("stop", "length")
    assert writer.context == 48


def test_a_loaded_model_brings_its_tokenizer(folders):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = (kind.from_pretrained(folders / "llama") for kind in (AutoModelForCausalLM, AutoTokenizer))
    with pytest.raises(UserError, match=r"^tokenizer"):
        draft_for(model, folders / "joint")
    writer = draft_for(model, load(folders / "joint"), tokenizer=tokenizer, size=2)
    assert max(drafted for drafted, *_ in writer.generate("a", max_tokens=8).decoded.drafts) == 2


def test_what_is_refused(folders, tmp_path):
    from transformers import AutoTokenizer

    with pytest.raises(UserError, match="a token a pass"):
        draft_for(folders / "llama", folders / "left")
    with pytest.raises(UserError, match="cannot load"):
        draft_for(tmp_path, folders / "joint")
    other = AutoTokenizer.from_pretrained(folders / "llama")
    other.add_tokens(["<new>"])
    with pytest.raises(UserError, match=r"'<new>' is token .* and none of joint"):
        draft_for(folders / "llama", folders / "joint", tokenizer=other)
    writer = draft_for(folders / "llama", folders / "joint")
    for options, word in (({"steps": 4}, "^steps"), ({"max_tokens": 64}, "context of 48")):
        with pytest.raises(UserError, match=word):
            writer.generate("ab", **options)
    with pytest.raises(UserError, match=r"^prompt: is empty"):
        writer.generate("")


def test_from_the_command_line(folders):
    from unmask.writing import write

    options = {"model": str(folders / "joint"), "draft_for": str(folders / "llama"), "max_tokens": 12}
    done = write("generate", options, "ab")
    assert done.texts[0].tokens == draft_for(folders / "llama", folders / "joint").generate("ab", max_tokens=12).tokens
    assert len(write("generate", options | {"samples": 2, "temperature": 1.0}, "ab").texts) == 2
    with pytest.raises(UserError, match="without watch and html"):
        write("fill", {"model": str(folders / "joint"), "draft_for": "x"}, "a<gap>b")

"""A joint model that drafts and checks streams its text as it stands, and its guesses to those who watch."""

import pytest
import torch
from live import Live

import unmask
from unmask.data.tokenizer import bytes_tokenizer
from unmask.models.checkpoint import save_model
from unmask.models.config import ModelConfig
from unmask.models.transformer import Transformer


@pytest.fixture(scope="module")
def joint(tmp_path_factory):
    spelling = bytes_tokenizer()
    network = Transformer(ModelConfig(vocab=len(spelling), width=32, layers=2, heads=4, context=96))
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(torch.randn(p.shape, generator=rng) * 0.2)
    folder = tmp_path_factory.mktemp("joint") / "joint"
    save_model(folder, network, {"method": {"kind": "joint", "size": 4}, "name": "joint"}, spelling.save)
    with Live(unmask.load(folder, device="cpu", dtype="fp32")) as live:
        yield live


def test_text_comes_as_it_stands_and_guesses_in_frames(joint):
    asked = {"prompt": "pack", "max_tokens": 30, "rule": "self_speculation", "block": 4, "temperature": 1.0, "seed": 1}
    pieces, seen, states = [], [""] * 30, set()
    for chunk in joint.events("/v1/completions", **asked, diffusing=True):
        if chunk.get("choices") and chunk["choices"][0]["text"]:
            pieces.append(chunk["choices"][0]["text"])
        for change in chunk.get("unmask", {"changed": []})["changed"]:
            seen[change["at"]] = change["text"]
            states.add(change["state"])
    answer = joint.ask("/v1/completions", **asked)
    assert "".join(pieces) == answer["choices"][0]["text"]
    assert len(pieces) > 3, "not all at the end"
    assert {"draft", "settled"} <= states

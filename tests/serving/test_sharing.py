"""Requests whose prompts begin alike share what is kept of it, and nobody can tell from the text."""

import asyncio

import pytest
import torch
from live import Live
from test_engine import collect, running

import unmask
from unmask.data.tokenizer import bytes_tokenizer
from unmask.decoding.batch import Batch
from unmask.decoding.sampler import decode
from unmask.errors import UserError
from unmask.models.checkpoint import save_model
from unmask.models.config import ModelConfig
from unmask.models.prefixes import Prefixes
from unmask.models.transformer import Transformer
from unmask.serving.served import Served

STEM = "You are a kind and patient helper, who answers every question in one sentence and never in more than two. "


@pytest.fixture(scope="module")
def blocks(tmp_path_factory):
    """A block model of random weights that reads bytes."""
    spelling = bytes_tokenizer()
    network = Transformer(ModelConfig(vocab=len(spelling), width=32, layers=2, heads=4, context=160))
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(torch.randn(p.shape, generator=rng) * 0.2)
    folder = tmp_path_factory.mktemp("blocks") / "blocks"
    save_model(folder, network, {"method": {"kind": "block", "size": 8}, "name": "blocks"}, spelling.save)
    return unmask.load(folder, device="cpu", dtype="fp32")


def test_rows_are_what_they_are_alone(blocks):
    served, prefixes = Served(blocks), Prefixes(1000)
    settings = served.settings({"temperature": 1.0})
    rows = [row for end in "abc" for row in served.after(served.ids(STEM + end), 10, 3)]

    class Sharing(Batch):
        def __init__(self, denoiser, process):
            super().__init__(denoiser, process, prefixes=prefixes)

    async def main():
        async with running(served, Sharing) as engine:
            for row in rows:
                (found,) = (await collect(engine.submit([row], settings))).values()
                (alone,) = decode(served.denoiser, served.process, [row], settings)
                assert found.decoded.canvas == alone.canvas
                assert found.decoded.confidence == alone.confidence
                yielded.append(alone.counts.queries - found.decoded.counts.queries)

    yielded = []
    asyncio.run(main())
    assert yielded == [0, 64, 64]


def test_a_server_tells_what_was_found_and_writes_beyond_the_context_if_it_may(blocks):
    asked = {"prompt": STEM, "max_tokens": 72, "block_steps": 2, "ban": [blocks.tokenizer.eos_id]}
    with Live(blocks, length=400) as live:
        first, again = (live.ask("/v1/completions", **asked) for _ in range(2))
        assert first["choices"][0]["text"] == again["choices"][0]["text"]
        assert again["usage"]["completion_tokens"] == 72
        told = live.client.get("/metrics").text
        for what, count in [("kept", 64), ("sought", 128), ("found", 64)]:
            assert f'unmask_prefix_positions{{what="{what}"}} {count}.0' in told
        assert "context of 400" in live.refused("/v1/completions", prompt=STEM, max_tokens=300)


def test_a_model_that_sees_everything_has_no_length_of_ones_own(lm):
    with pytest.raises(UserError, match="length=400: this model writes no more than its context of 96"):
        Served(lm, longest=400)

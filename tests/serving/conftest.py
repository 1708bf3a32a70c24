"""A small model of random weights that reads bytes, and a live server of it on a port of its own."""

from __future__ import annotations

import pytest
import torch
from live import Live

import unmask
from unmask.data.tokenizer import bytes_tokenizer
from unmask.models.checkpoint import save_model
from unmask.models.config import ModelConfig
from unmask.models.transformer import Transformer

CONTEXT = 96


@pytest.fixture(scope="session")
def lm(tmp_path_factory) -> unmask.LanguageModel:
    """Sure of nothing, and of something else at every position."""
    spelling = bytes_tokenizer()
    network = Transformer(ModelConfig(vocab=len(spelling), width=32, layers=2, heads=4, context=CONTEXT))
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(torch.randn(p.shape, generator=rng) * 0.2)
    folder = tmp_path_factory.mktemp("serving") / "small"
    save_model(folder, network, {"method": {"kind": "masked"}, "name": "small"}, spelling.save)
    return unmask.load(folder, device="cpu", dtype="fp32")


@pytest.fixture(scope="session")
def server(lm):
    with Live(lm) as live:
        yield live


@pytest.fixture
def empty(server):
    """The server, which must have nothing left to write once the test is over."""
    yield server
    server.settles()

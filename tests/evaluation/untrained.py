"""A network of random weights that reads bytes: sure of nothing, but of something else at every position."""

import torch

from unmask.data.tokenizer import Tokenizer, bytes_tokenizer
from unmask.models.config import ModelConfig
from unmask.models.transformer import Transformer


def reader(context: int) -> tuple[Transformer, Tokenizer]:
    spelling = bytes_tokenizer()
    network = Transformer(ModelConfig(vocab=len(spelling), width=32, layers=2, heads=4, context=context))
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(torch.randn(p.shape, generator=rng) * 0.2)
    return network.eval(), spelling

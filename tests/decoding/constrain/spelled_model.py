"""A network with random weights whose tokens are spelled: all bytes, some longer pieces, an end and a mask."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from unmask.decoding.constrain.tokens import Vocabulary
from unmask.decoding.settings import Decoding
from unmask.denoiser import Denoiser, NextToken
from unmask.layout import Whole
from unmask.models.attention import Causal
from unmask.models.config import ModelConfig
from unmask.models.transformer import Transformer

PIECES = [
    b"ab", b"abc", b'{"', b'":', b'": "', b'",', b'", "', b'"}', b"true", b"fal", b"se", b"null", b"12", b"345", b"-",
    b"20", b"2024", b"-0", b"http", b"://", b"www.", b".com", b"  ", b", ", b"yes", b"no", b"may", b"be", b"name",
    b'"name"', b"age", b"}]", b"[{", "é".encode(), "世".encode(), "世".encode()[:2], "😀".encode()[:3], b"[1", b"\\n",
]  # fmt: skip
SPELLED: list[bytes | None] = [*(bytes([byte]) for byte in range(256)), *PIECES, None, None]
END, MASK = len(SPELLED) - 2, len(SPELLED) - 1


def denoiser_of(seed: int, *, forward: bool = False) -> Denoiser:
    net = Transformer(ModelConfig(vocab=len(SPELLED), width=16, layers=1, heads=2, context=96))
    rng = torch.Generator().manual_seed(seed)
    for p in net.initialise(rng).parameters():
        if p.dim() == 2:
            nn.init.normal_(p, std=p.shape[1] ** -0.5, generator=rng)
    nn.init.normal_(net.head.weight, std=1.0, generator=rng)
    if forward:
        return Denoiser(net.eval(), mask_id=MASK, rule=Causal(), head=NextToken(END))
    return Denoiser(net.eval(), mask_id=MASK, rule=Whole().rule)


def read(tokens: Sequence[int]) -> str:
    """Strict: what is no UTF-8 raises."""
    return b"".join(SPELLED[token] or b"<special>" for token in tokens).decode()


def settings_of(vocabulary: Vocabulary, **said: object) -> Decoding:
    return Decoding().saying({"eos_id": END, "vocabulary": vocabulary, **said})

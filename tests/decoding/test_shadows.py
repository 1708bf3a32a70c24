"""Shadows: a draft is read as if it were open, nobody else notices, and WINO takes back what its shadow doubts."""

import pytest
import torch

from unmask.decoding.canvas import Row
from unmask.decoding.sampler import decode
from unmask.decoding.settings import Decoding
from unmask.decoding.shadows import Shadowed
from unmask.denoiser import Denoiser, ShiftedLogits
from unmask.errors import UserError
from unmask.models.config import ModelConfig
from unmask.models.packed import Unkept
from unmask.models.transformer import Transformer
from unmask.noise.tokens import Masking

MASK = 16


def model(layers=2, **more):
    network = Transformer(ModelConfig(vocab=17, width=32, layers=layers, heads=2, hidden=48, context=64))
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(torch.randn(p.shape, generator=rng) * 0.4)
    return Denoiser(network, mask_id=MASK, **more).eval()


def texts():
    x = torch.randint(0, MASK, (2, 10), generator=torch.Generator().manual_seed(1))
    x[:, 6:8] = MASK
    t = torch.zeros(2, 10)
    t[:, 3:5], t[0, 4], t[:, 6:8] = 1e-3, 0.0, 1.0  # one draft in the first row, two in the second
    return x, t


def said(base, x, t):
    feed = torch.ones_like(x, dtype=torch.bool)
    where = t > 0
    with torch.inference_mode():
        memory = Unkept(base.network.config.layers)
        return Shadowed(base)(x, t, where=where, feed=feed, cache=memory).logits(), where


def test_in_one_layer_a_shadow_says_what_is_said_without_the_token():
    base = model(layers=1)
    x, t = texts()
    found, where = said(base, x, t)
    rows, columns = where.nonzero(as_tuple=True)
    for i, (row, column) in enumerate(zip(rows.tolist(), columns.tolist())):
        hidden = x.clone()
        hidden[row, column] = MASK
        alone = torch.zeros_like(where)
        alone[row, column] = True
        with torch.inference_mode():
            expected = base(hidden, t, where=alone).logits()[0]
        torch.testing.assert_close(found[i], expected, rtol=1e-4, atol=1e-4)


def test_open_positions_do_not_notice():
    base = model(layers=3)
    x, t = texts()
    found, where = said(base, x, t)
    with torch.inference_mode():
        plain = base(x, t, where=where).logits()
    open = (x == MASK)[where]
    torch.testing.assert_close(found[open], plain[open], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found[~open], plain[~open], atol=1e-2)


def test_wino_writes_every_text_alone_as_in_a_batch():
    base, process = model(), Masking.over(17, MASK)
    rows = [Row.after([1, 2, 3][: 1 + i], 12 + i, seed=i) for i in range(3)]
    for changes in ({}, {"quota": {"kind": "wide", "threshold": 0.05}, "revise": {"kind": "verify", "threshold": 0.3}}):
        settings = Decoding.preset("wino", **changes)
        together = decode(base, process, rows, settings)
        assert [text.tokens for text in together] == [decode(base, process, [r], settings)[0].tokens for r in rows]
        assert all(MASK not in text.tokens and len(text.tokens) == row.n_open for text, row in zip(together, rows))
    assert any(text.counts.forwards > 3 for text in together), "some drafts were taken back"


def test_passes_are_counted():
    """Of 12 open ones, 8 at most, then the 4 that are left. Where all is doubted, 3, 2 and 1 come back."""
    base, process, row = model(), Masking.over(17, MASK), Row.after([1], 12)
    for doubt, passes in ((1e-9, 2), (1 - 1e-9, 5)):
        more = {"quota": {"kind": "wide", "threshold": 1e-9}, "revise": {"kind": "verify", "threshold": doubt}}
        (text,) = decode(base, process, [row], Decoding.preset("wino", **more))
        assert text.counts.forwards == passes


def test_models_it_does_not_suit_are_refused():
    settings, row = Decoding.preset("wino"), Row.after([1], 4)
    with pytest.raises(UserError, match="shadows need"):
        decode(model(head=ShiftedLogits()), Masking.over(17, MASK), [row], settings)
    with pytest.raises(UserError, match="leave cache out"):
        decode(model(), Masking.over(17, MASK), [row], Decoding.preset("wino", cache="dual"))

"""A text shown twice, noisy and clean: equal to one pass a block, packed or alone, whole or by strips of queries."""

import pytest
import torch
from small import SWITCHES, network, text

from unmask.denoiser import Denoiser, NextTokenOrBlock
from unmask.layout import Blocks, BlocksAfterText, Whole
from unmask.models import attention, strips
from unmask.models.attention import BlockCausal, Causal, CausalContext, Everything, Places, Visibility

MASK = 36
DOCUMENTS = torch.tensor([[0] * 7 + [1] * 5 + [2] * 2, [0] * 3 + [1] * 9 + [-1] * 2])
sizes = pytest.mark.parametrize("size", [1, 2, 4, 5, 14, 50])


def noised(clean, seed=0):
    masked = torch.rand(clean.shape, generator=torch.Generator().manual_seed(seed)) < 0.5
    return clean.masked_fill(masked, MASK), masked


def doubled(denoiser, clean, noisy, masked, places, size):
    view = Blocks(size).view(clean, noisy, masked.float(), places, masked)
    return denoiser(view.x, view.t, places=view.places, where=view.where).mu()


def block_after_block(denoiser, clean, noisy, masked, size):
    """What BD3-LM means: each block by itself, after the clean text before it. One document a row."""
    out = torch.zeros(*clean.shape, denoiser.vocab)
    for start in range(0, clean.shape[1], size):
        end = min(start + size, clean.shape[1])
        x, where = torch.cat([clean[:, :start], noisy[:, start:end]], 1), masked[:, :end].clone()
        where[:, :start] = False
        t = masked[:, :end].float() * where
        out[:, :end][where] = denoiser(x, t, where=where).mu()
    return out[masked]


@pytest.mark.parametrize("switches", SWITCHES.values(), ids=SWITCHES)
@torch.no_grad()
def test_one_doubled_pass_is_all_the_blocks(switches):
    denoiser, clean = Denoiser(network(**switches), mask_id=MASK, rule=BlockCausal(4)), text(3, 14)
    noisy, masked = noised(clean)
    said = doubled(denoiser, clean, noisy, masked, Places.of(clean), 4)
    torch.testing.assert_close(said, block_after_block(denoiser, clean, noisy, masked, 4), rtol=1e-5, atol=1e-5)


@sizes
@torch.no_grad()
def test_every_block_size(size):
    denoiser, clean = Denoiser(network(), mask_id=MASK, rule=BlockCausal(size)), text(3, 14)
    noisy, masked = noised(clean)
    said = doubled(denoiser, clean, noisy, masked, Places.of(clean), size)
    torch.testing.assert_close(said, block_after_block(denoiser, clean, noisy, masked, size), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_single_block_is_the_bidirectional_model():
    clean = text(2, 14)
    noisy, masked = noised(clean)
    block, whole = (Denoiser(network(), mask_id=MASK, rule=rule) for rule in (BlockCausal(14), Everything()))
    view = Blocks(14).view(clean, noisy, masked.float(), Places.of(clean), masked)
    assert view.x is noisy
    expected = whole(noisy, masked.float(), where=masked).mu()
    torch.testing.assert_close(block(view.x, view.t, places=view.places, where=view.where).mu(), expected)


@pytest.mark.parametrize("size", [1, 3, 4])
@torch.no_grad()
def test_packed_documents_are_as_if_alone(size):
    """Blocks are counted from where a document begins, and nobody sees another document."""
    denoiser, clean = Denoiser(network(), mask_id=MASK, rule=BlockCausal(size)), text(2, 14)
    noisy, masked = noised(clean)
    masked &= DOCUMENTS >= 0
    starts = torch.tensor([[0] * 7 + [7] * 5 + [12] * 2, [0] * 3 + [3] * 9 + [12] * 2])
    said = doubled(denoiser, clean, noisy, masked, Places(torch.arange(14) - starts, DOCUMENTS), size)
    alone = torch.zeros(2, 14, denoiser.vocab)
    for row, a, b in ((0, 0, 7), (0, 7, 12), (0, 12, 14), (1, 0, 3), (1, 3, 12)):
        part = (slice(row, row + 1), slice(a, b))
        alone[part][masked[part]] = block_after_block(denoiser, clean[part], noisy[part], masked[part], size)
    torch.testing.assert_close(said, alone[masked], rtol=1e-5, atol=1e-5)


def test_blocks_are_numbered_through_a_row():
    starts = torch.tensor([[0] * 7 + [7] * 5 + [12] * 2, [0] * 3 + [3] * 9 + [12] * 2])
    places = Places(torch.arange(14) - starts, DOCUMENTS)
    numbers = Blocks(4).numbers(places)
    assert numbers[0].tolist() == [0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 3, 4, 4]
    assert numbers[1].tolist() == [0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 4, 4]
    assert not Whole().numbers(places).any()


RULES = {"causal": Causal(), "blocks": BlockCausal(4), "everything": Everything(), "own": lambda q, k: None}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("packed", [False, True], ids=["alone", "packed"])
@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
def test_by_strips_is_the_same_attention(rule, packed, twice, monkeypatch):
    """Forward and backward, with fewer key heads, from all queries and from a few."""
    rng = torch.Generator().manual_seed(0)
    places = Places(torch.arange(14).expand(2, 14), DOCUMENTS if packed else None)
    if twice:
        places = Blocks(4).view(*[DOCUMENTS] * 2, DOCUMENTS.float(), places, DOCUMENTS > 9).places
    wide = places.position.shape[1]
    index = torch.stack([torch.randperm(wide, generator=rng)[:11].sort().values for _ in range(2)])
    q, (k, v) = torch.randn(2, 4, wide, 8, generator=rng), torch.randn(2, 2, 2, wide, 8, generator=rng)
    some = q.gather(2, index[:, None, :, None].expand(-1, 4, -1, 8))
    monkeypatch.setattr(strips, "STRIP", 3)
    for queries, see in ((q, Visibility(rule, places, places)), (some, Visibility(rule, places, places).only(index))):
        results = []
        for limit in (1, 1000):
            monkeypatch.setattr(attention, "STRIP", limit)
            leaves = [x.clone().requires_grad_() for x in (queries, k, v)]
            out = attention.attend(*leaves, see)
            results.append([out, *torch.autograd.grad((out * torch.arange(8)).sum(), leaves)])
        for fast, plain in zip(*results):
            torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-5)


def test_strips_leave_out_what_nobody_sees():
    places = Places.of(torch.zeros(1, 2048))
    areas = {}
    for name, rule, view in (("causal", Causal(), places), ("blocks", BlockCausal(16), doubled_places(places))):
        parts = Visibility(rule, view, view).strips
        areas[name] = sum(part.seen.shape[2] * part.seen.shape[3] for part in parts) / view.position.shape[1] ** 2
    assert areas["causal"] < 0.54
    assert areas["blocks"] < 0.3


def doubled_places(places):
    nothing = torch.zeros(places.position.shape)
    return Blocks(16).view(nothing, nothing, nothing, places, nothing > 0).places


@pytest.mark.parametrize("offset", [None, 0, 2])
@torch.no_grad()
def test_a_joint_model_reads_one_context_in_both_ways(offset):
    """From one doubled pass: the next tokens are those of the autoregressive pass; each block is that of a pass over
    the text before it, read left to right, and the block, wherever blocks begin."""
    size, clean, head = 4, text(2, 14), NextTokenOrBlock(3)
    joint = Denoiser(network(), mask_id=MASK, rule=CausalContext(size), head=head)
    noisy, masked = noised(clean)
    layout = BlocksAfterText(size, None if offset is None else torch.full((2, 1), offset))
    view = layout.view(clean, noisy, masked.float(), Places.of(clean), masked)
    said = joint(view.x, view.t, places=view.places).mu().view(2, 28, -1)
    torch.testing.assert_close(said[:, 14:].flatten(0, 1), joint(clean).mu(), rtol=1e-5, atol=1e-5)
    plain = Denoiser(network(), mask_id=MASK, rule=CausalContext())
    numbers = layout.numbers(Places.of(clean))[0]
    for block in numbers.unique():
        here = (numbers == block).nonzero()[:, 0]
        start = torch.full((2, 1), 3) if offset is None or block > 0 else clean[:, :0]  # a block begun before its text
        before = torch.cat([start, clean[:, : here[0]]], 1)
        x, is_clean = (
            torch.cat([before, noisy[:, here]], 1),
            torch.arange(before.shape[1] + len(here)) < before.shape[1],
        )
        places = Places(torch.arange(x.shape[1]).expand(x.shape), None, is_clean.expand(x.shape))
        alone = plain(x, places=places, where=~places.clean).mu().view(2, len(here), -1)
        torch.testing.assert_close(said[:, here], alone, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_joint_models_context_may_be_kept():
    """The text from a cache, then a block in the same pass as the last token of the text."""
    clean = text(2, 9)
    denoiser = Denoiser(network(), mask_id=MASK, rule=CausalContext())
    x = torch.cat([clean, torch.full((2, 4), MASK)], 1)
    places = Places(torch.arange(13).expand(2, 13), None, (torch.arange(13) < 9).expand(2, 13))
    expected = denoiser(x, places=places).mu().view(2, 13, -1)
    cache = denoiser.network.cache(2, 16)
    feed = torch.zeros(2, 13, dtype=torch.bool)
    feed[0, :8], feed[1, :6] = True, True
    denoiser(x, places=places, where=feed, cache=cache, feed=feed)
    rest = denoiser(x, places=places, where=~feed, cache=cache, feed=~feed).mu()
    torch.testing.assert_close(rest, expected[~feed], rtol=1e-5, atol=1e-5)

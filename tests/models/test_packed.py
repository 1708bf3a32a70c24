"""Rows fed together say what they say alone, to the last bit: with caches, without, and of unequal lengths."""

import random

import pytest
import torch
from small import SWITCHES, network, text

from unmask.models.attention import STRIPPED, BlockCausal, Causal, Everything, Places
from unmask.models.packed import Together, Unkept, neighbours

LENGTHS = [5, 12, 1, 12, 12, 3]


def fed(lengths, width):
    return torch.arange(width) < torch.tensor(lengths)[:, None]


@pytest.mark.parametrize("rule", [Everything(), Causal(), BlockCausal(4)], ids=str)
@pytest.mark.parametrize("switches", SWITCHES.values(), ids=SWITCHES)
@torch.no_grad()
def test_rows_of_every_kind_in_one_pass(switches, rule):
    """Three rows that keep nothing, three with a cache of their own or shared; outputs are asked for at some places."""
    model, x, rng = network(**switches), text(rows=6, length=12), random.Random(0)
    t = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) if model.config.time == "adaln" else None
    feed = fed(LENGTHS, 12)
    where = feed & torch.tensor([[rng.random() < 0.5 for _ in range(12)] for _ in x])
    where[:, 0] = True
    none = Unkept(model.config.layers)
    places = Places.of(x)

    def said(rows, memory):
        level = None if t is None else t[rows]
        return model(x[rows], Places(places.position[rows]), rule, level, where[rows], cache=memory, feed=feed[rows])

    together = said(slice(0, 6), Together([(2, none), (2, model.cache(2, 12)), (1, none), (1, model.cache(1, 12))]))
    alone = [said(slice(i, i + 1), none if i in (0, 1, 4) else model.cache(1, 12)) for i in range(6)]
    assert torch.equal(together, torch.cat(alone))
    dense = model(x, Places.of(x, feed.long() - 1), rule, t, where)
    torch.testing.assert_close(together, dense, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_cache_goes_on_beside_others():
    """A row's later passes are the same whoever was fed with the earlier ones."""
    model, x, rule = network(), text(rows=2, length=12), BlockCausal(4)
    mine, own = model.cache(1, 12), model.cache(1, 12)
    model(x, None, rule, cache=Together([(1, mine), (1, Unkept(model.config.layers))]), feed=fed([8, 12], 12))
    model(x[:1], None, rule, cache=own, feed=fed([8], 12))
    rest = fed([12], 12) & ~fed([8], 12)
    assert torch.equal(model(x[:1], None, rule, cache=mine, feed=rest), model(x[:1], None, rule, cache=own, feed=rest))


def test_rows_share_a_call_where_they_ask_alike():
    cpu = torch.device("cpu")

    def runs(asks, keys):
        return [(rows.start, rows.stop) for rows in neighbours([[size] for size in asks], keys, cpu)]

    assert runs([4, 4, 4, 2, 2], [9, 9, 8, 8, 8]) == [(0, 2), (2, 3), (3, 5)]
    assert runs([STRIPPED, STRIPPED], [STRIPPED, STRIPPED]) == [(0, 1), (1, 2)]
    assert runs([1, 1], [7, 7]) == [(0, 2)]
    assert runs([], []) == []
    torch.set_num_threads(2)
    try:
        assert runs([1, 1, 2, 2], [7, 7, 7, 7]) == [(0, 1), (1, 2), (2, 4)]
    finally:
        torch.set_num_threads(1)

"""Blocks: times are spread evenly, constant inside a block; the rule follows from the size."""

import pytest
import torch

from unmask.layout import EARLIEST, Blocks, Whole
from unmask.models.attention import BlockCausal, Everything, Places


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def places(rows, length):
    return Places.of(torch.zeros(rows, length))


@pytest.mark.parametrize("layout", [Whole(), Blocks(1), Blocks(3)], ids=repr)
def test_times_are_one_in_each_stratum_of_the_batch(layout):
    t = layout.times(places(16, 10), rng())
    assert t.shape == (16, 10)
    assert (t >= EARLIEST).all()
    assert (t <= 1).all()
    strata = (t * 16).floor().sort(0).values
    assert (strata == torch.arange(16)[:, None]).all()


def test_times_are_constant_in_a_block_and_differ_between_blocks():
    t = Blocks(4).times(places(8, 10), rng())
    assert (t[:, :4] == t[:, :1]).all()
    assert (t[:, 4:8] == t[:, 4:5]).all()
    assert not torch.equal(t[:, 0], t[:, 4])
    whole = Whole().times(places(8, 10), rng())
    assert (whole == whole[:, :1]).all()


def test_times_are_uniform_over_many_seeds():
    t = torch.cat([Whole().times(places(1, 2), rng(s))[:, 0] for s in range(3000)])
    assert abs(t.mean() - 0.5) < 4.5 * (1 / 12 / 3000) ** 0.5
    assert abs((t < 0.25).float().mean() - 0.25) < 4.5 * (0.1875 / 3000) ** 0.5


def test_rules():
    assert Blocks(1).rule == BlockCausal(1)
    assert Blocks(4).rule == BlockCausal(4)
    assert Whole().rule == Everything()

"""The search for mask rates whose loss varies least: its arithmetic, its choice, and that it is remembered."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from unmask.data.packing import Batch
from unmask.errors import UserError
from unmask.layout import Blocks
from unmask.methods.block import Block
from unmask.methods.method import Symbols
from unmask.noise.draws import seeded
from unmask.noise.tokens import Masking
from unmask.objectives.clipping import BINS, NARROWEST, Clipped, block_losses, variances_between
from unmask.objectives.masked import MaskedBound
from unmask.objectives.objective import Adaptive, places_of

MASK, SIZE = 9, 8


class Wild(nn.Module):
    """A denoiser whose cross-entropy is 1 a token, but far from it in blocks that are masked in few places."""

    mask_id, echo = MASK, None

    def forward(self, x, t=None, *, places=None, where=None):
        length = where.shape[1] // 2
        masked = where[:, :length].unflatten(1, (-1, SIZE))
        few = masked.sum(2, keepdim=True) <= SIZE // 4
        sign = torch.where(torch.arange(len(x)) % 2 == 0, 1.0, -1.0)[:, None, None]
        nll = (1 + 3 * few * sign).expand(masked.shape)[masked]
        return SimpleNamespace(cross_entropy=lambda targets, weights: ((weights * nll).sum(), nll))


def batch(rows=8, length=64):
    tokens = torch.zeros(rows, length, dtype=torch.int64)
    return Batch(tokens, tokens, torch.arange(length).expand(rows, length), tokens == 0)


def bound(**options):
    return MaskedBound(Masking.over(10, MASK), Blocks(SIZE), masks="counted", **options)


def test_variances_are_those_of_the_losses_inside():
    rng = torch.Generator().manual_seed(0)
    levels, losses = torch.rand(2, 500, generator=rng, dtype=torch.float64)
    found = variances_between(levels, losses)
    grid = [(a / BINS, b / BINS) for a, b in itertools.combinations(range(BINS + 1), 2) if b - a >= NARROWEST]
    assert set(found) == set(grid)
    for low, high in grid[::7]:
        inside = losses[(levels >= low) & (levels < high)]
        assert found[low, high] == pytest.approx(float(inside.var(unbiased=False)), rel=1e-9)


def test_the_search_leaves_out_what_varies():
    objective = Clipped(bound())
    assert isinstance(objective, Adaptive)
    assert not isinstance(bound(), Adaptive)
    found = objective.adapt(Wild(), [batch(), batch()], seeded(0))
    assert objective.bound.clip == (found["clip_low"], found["clip_high"])
    assert found["clip_low"] >= 0.25
    assert found["clip_variance"] < 1e-9 < found["full_variance"]
    again = Clipped(bound())
    again.load_state_dict(objective.state_dict())
    assert again.bound.clip == objective.bound.clip


def test_a_blocks_loss_is_its_share_of_the_bound():
    """Summed over blocks and tokens it is what the objective gives on the same draw."""
    levels, losses = block_losses(bound(), Wild(), batch(), seeded(3))
    assert float(losses.sum() * SIZE) == pytest.approx(float(bound()(Wild(), batch(), seeded(3)).total), rel=1e-6)
    assert len(levels) == 8 * 8


@pytest.mark.parametrize("masks", ["independent", "counted"])
def test_times_are_drawn_in_the_interval(masks):
    objective = MaskedBound(Masking.over(10, MASK), Blocks(64), masks=masks, clip=(0.5, 0.75))
    levels = 0.5 + 0.25 * objective.layout.levels(places_of(batch()), torch.Generator())
    masked, _ = objective.masks_at(levels, batch(), seeded(0))
    shares = masked.float().mean(1)
    if masks == "counted":
        assert ((shares >= 0.5) & (shares <= 0.75 + 1 / 64)).all()
    assert abs(shares.mean() - 0.625) < 0.06


def test_a_clip_in_a_recipe():
    symbols = Symbols(10, MASK, 0)
    assert Block().objective(symbols).clip == (0.0, 1.0)
    assert Block(clip=(0.3, 0.8)).objective(symbols).clip == (0.3, 0.8)
    assert isinstance(Block(clip="auto").tuning(symbols), Clipped)
    with pytest.raises(UserError, match=r"method\.clip: \[0\.8, 0\.3\]"):
        Block(clip=(0.8, 0.3))
    with pytest.raises(UserError, match=r"method\.size: a block of 0"):
        Block(size=0)
    with pytest.raises(UserError, match=r"method\.shifted"):
        Block(shifted=True).objective(symbols)

"""Block diffusion with the true conditionals: the bound is -log p(x) for every x and every block size.

All mask patterns are enumerated, so nothing here is random but the draws that training and scoring make themselves.
"""

import math

import pytest
import torch
from toy import MASK, SYMBOLS, ByBlocks, Toy

from unmask.evaluation.likelihood import FixedCount, masked_nats, score_batches
from unmask.layout import EARLIEST, Blocks
from unmask.noise.draws import seeded
from unmask.noise.schedule import Cosine, Linear
from unmask.noise.tokens import Masking
from unmask.objectives.masked import MaskedBound

LENGTH = 4
TOY = Toy(LENGTH)
every_size = pytest.mark.parametrize("size", [1, 2, 3, LENGTH, 7])


def counted_bound(toy, size):
    """Each block's k uniform on 1..n and its subset uniform among those of k: the mean over all patterns, (T,)."""
    total = torch.zeros(len(toy.texts), dtype=torch.float64)
    blocks = torch.arange(toy.length).split(size)
    for mask in toy.masks:
        counts = [int(mask[block].sum()) for block in blocks]
        if 0 in counts:
            continue
        sizes = [len(block) for block in blocks]
        chance = math.prod(1 / (n * math.comb(n, k)) for n, k in zip(sizes, counts))
        weights = torch.cat([torch.full((n,), n / k, dtype=torch.float64) for n, k in zip(sizes, counts)])
        where = mask.expand(len(toy.texts), -1)
        nats = masked_nats(ByBlocks(toy, size), toy.batch(toy.texts), where, weights.expand(where.shape), Blocks(size))
        total += chance * nats
    return total


@every_size
def test_the_bound_is_tight_for_every_text(size):
    assert (counted_bound(TOY, size) - TOY.nats).abs().max() < 1e-6


def test_another_distributions_denoiser_gives_that_distribution():
    other = Toy(LENGTH, seed=2)
    total = torch.zeros(len(TOY.texts), dtype=torch.float64)
    where = torch.ones_like(TOY.texts, dtype=torch.bool)
    total += masked_nats(ByBlocks(other, 1), TOY.batch(TOY.texts), where, torch.ones(where.shape).double(), Blocks(1))
    assert (total - other.nats).abs().max() < 1e-6


def test_blocks_of_one_token_leave_nothing_to_chance():
    """AR up to the estimator: one pass is exact, in training and in scoring."""
    batch = TOY.batch(TOY.texts)
    loss = MaskedBound(Masking.over(SYMBOLS, MASK), Blocks(1), masks="counted")(ByBlocks(TOY, 1), batch, seeded(3))
    assert float(loss.total) == pytest.approx(float(TOY.nats.sum()), rel=1e-6)
    score = score_batches(ByBlocks(TOY, 1), [batch], FixedCount(2, layout=Blocks(1)))
    assert (score.exact, score.stderr) == (True, 0.0)
    assert score.nats == pytest.approx(float(TOY.nats.sum()), rel=1e-6)


@every_size
def test_the_score_is_unbiased_and_knows_its_error(size):
    copies, text = 60, TOY.joint.argmin()
    batch = TOY.batch(TOY.texts[text].expand(copies, -1))
    scores = [
        score_batches(ByBlocks(TOY, size), [batch], FixedCount(4, layout=Blocks(size)), seed=s) for s in range(24)
    ]
    means = torch.tensor([s.nats / copies for s in scores], dtype=torch.float64)
    claimed = torch.tensor([s.stderr / copies for s in scores], dtype=torch.float64)
    assert abs(means.mean() - TOY.nats[text]) < 4 * means.std() / 24**0.5 + 1e-6
    if size > 1:
        assert 0.5 < means.std() / claimed.square().mean().sqrt() < 1.7


@pytest.mark.parametrize(
    ("masks", "schedule"), [("counted", Linear()), ("independent", Linear()), ("independent", Cosine())], ids=repr
)
def test_training_minimises_the_bound(masks, schedule):
    """Over many draws, with times no earlier than EARLIEST; blocks of 3 and 1 tokens."""
    text = TOY.texts[TOY.joint.argmin()]
    objective = MaskedBound(Masking.over(SYMBOLS, MASK, schedule), Blocks(3), masks=masks)
    batch, copies, draws = TOY.batch(text.expand(64, -1)), 64, 60
    losses = [float(objective(ByBlocks(TOY, 3), batch, seeded(s)).total) / copies for s in range(draws)]
    mean, error = torch.tensor(losses).mean(), torch.tensor(losses).std() / draws**0.5
    slack = 20 * EARLIEST if masks == "independent" else 1e-5
    assert abs(mean - TOY.nats[TOY.joint.argmin()]) < 4 * error + slack


def test_counted_masks_vary_less():
    text, spreads = TOY.texts[TOY.joint.argmin()], []
    for masks in ("independent", "counted"):
        objective = MaskedBound(Masking.over(SYMBOLS, MASK), Blocks(2), masks=masks)
        batch = TOY.batch(text.expand(64, -1))
        losses = [float(objective(ByBlocks(TOY, 2), batch, seeded(s)).total) for s in range(60)]
        spreads.append(torch.tensor(losses).std())
    assert spreads[1] < 0.7 * spreads[0]

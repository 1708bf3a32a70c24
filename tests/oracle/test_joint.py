"""A joint model's two sides with the true conditionals: the blocks' bound and the next tokens are both -log p(x)."""

import math

import pytest
import torch
from toy import MASK, SYMBOLS, ByBlocks, Looked, Toy

from unmask.denoiser import NextTokenOrBlock
from unmask.errors import UserError
from unmask.evaluation.likelihood import Exact, FixedCount, masked_nats, score_batches
from unmask.layout import BlocksAfterText
from unmask.methods.joint import Joint
from unmask.methods.method import Symbols
from unmask.noise.draws import seeded
from unmask.noise.tokens import Masking
from unmask.objectives.joint import JointBound
from unmask.objectives.masked import MaskedBound

LENGTH, START = 4, 2
TOY = Toy(LENGTH)


class BothWays(ByBlocks):
    """What a joint network is fed, it reads here: noisy tokens with the clean ones at smaller positions, clean tokens
    what they are fed and stand behind."""

    def forward(self, x, t=None, *, places=None, where=None):
        fed, clean = NextTokenOrBlock(START).inputs(x, places), places.clean
        if clean is None:
            return Looked(self._next(fed)[where])
        noisy_at, clean_at = places.position[:, :LENGTH], places.position[:, LENGTH:]
        scores = torch.zeros(len(x), LENGTH, SYMBOLS, dtype=torch.float64)
        for column in range(LENGTH):  # each with what the rule lets it see
            block = noisy_at // self.size == noisy_at[:, column : column + 1] // self.size
            first = noisy_at[:, column] // self.size * self.size
            known = torch.where(block, fed[:, :LENGTH], MASK)
            seen = (clean_at < first[:, None]).roll(-1, 1)  # the input at column j is token j - 1
            seen[:, -1] = False
            known = torch.where(seen & ~block, fed[:, LENGTH:].roll(-1, 1), known)
            scores[:, column] = self.toy.mu(known)[:, column]
        return Looked(torch.cat([scores, self._next(fed[:, LENGTH:])], 1)[where])

    def _next(self, fed):
        assert (fed[:, 0] == START).all()
        text, after = fed.roll(-1, 1), torch.ones(LENGTH, LENGTH).triu().bool()
        return torch.stack([self.toy.mu(text.masked_fill(after[i], MASK))[:, i] for i in range(LENGTH)], 1)


@pytest.mark.parametrize("size", [1, 2, 3, LENGTH])
@pytest.mark.parametrize("offset", [None, 0, 1])
def test_the_blocks_bound_is_tight_wherever_blocks_begin(size, offset):
    layout = BlocksAfterText(size, None if offset is None else torch.full((1, 1), offset % size))
    batch, total = TOY.batch(TOY.texts), torch.zeros(len(TOY.texts), dtype=torch.float64)
    numbers = layout.numbers(type("P", (), {"position": batch.positions, "document": None})())[0]
    blocks = [(numbers == b).nonzero()[:, 0] for b in numbers.unique()]
    for mask in TOY.masks:
        counts = [int(mask[block].sum()) for block in blocks]
        if 0 in counts:
            continue
        chance = math.prod(1 / (len(b) * math.comb(len(b), k)) for b, k in zip(blocks, counts))
        weights = torch.cat([torch.full((len(b),), len(b) / k, dtype=torch.float64) for b, k in zip(blocks, counts)])
        where = mask.expand(len(TOY.texts), -1)
        total += chance * masked_nats(BothWays(TOY, size), batch, where, weights.expand(where.shape), layout)
    assert (total - TOY.nats).abs().max() < 1e-6


def test_the_next_tokens_are_exact():
    score = score_batches(BothWays(TOY, 2), [TOY.batch(TOY.texts)], Exact())
    assert score.nats == pytest.approx(float(TOY.nats.sum()), rel=1e-9)


def test_both_losses_are_in_the_one_that_is_minimised():
    """Blocks of one token leave nothing to chance: (1 + weight) times -log p, for every text."""
    layout = BlocksAfterText(1)
    bound = MaskedBound(Masking.over(SYMBOLS, MASK), layout, masks="counted")
    for weight in (0.0, 0.3):
        loss = JointBound(bound, layout, weight)(BothWays(TOY, 1), TOY.batch(TOY.texts), seeded(0))
        assert float(loss.total) == pytest.approx(float((1 + weight) * TOY.nats.sum()), rel=1e-6)


def test_its_mean_is_the_bound_with_random_places():
    layout, text, copies = BlocksAfterText(3), TOY.joint.argmin(), 64
    objective = JointBound(MaskedBound(Masking.over(SYMBOLS, MASK), layout, masks="counted"), layout, 0.5)
    batch = TOY.batch(TOY.texts[text].expand(copies, -1))
    losses = torch.tensor([float(objective(BothWays(TOY, 3), batch, seeded(s)).total) / copies for s in range(40)])
    assert abs(losses.mean() - 1.5 * TOY.nats[text]) < 4 * losses.std() / 40**0.5


def test_the_score_of_its_blocks_is_unbiased():
    text, estimator = TOY.joint.argmin(), FixedCount(8, layout=BlocksAfterText(2))
    score = score_batches(BothWays(TOY, 2), [TOY.batch(TOY.texts[text].expand(200, -1))], estimator)
    assert abs(score.nats / 200 - TOY.nats[text]) < 4 * score.stderr / 200


def test_blocks_can_be_trained_where_drafts_begin():
    """clip=(1, 1): every block is nothing but masks, wherever it begins."""
    seen = []

    class Watched(BothWays):
        def forward(self, x, t=None, **how):
            seen.append(x[:, :LENGTH])
            return super().forward(x, t, **how)

    method, layout = Joint(size=3, clip=(1.0, 1.0)), BlocksAfterText(3)
    bound = MaskedBound(Masking.over(SYMBOLS, MASK), layout, masks="counted", clip=method.clip)
    for seed in range(5):
        JointBound(bound, layout)(Watched(TOY, 3), TOY.batch(TOY.texts), seeded(seed))
    assert (torch.cat(seen) == MASK).all()
    assert method.objective(Symbols(SYMBOLS, MASK, START)).diffusion.clip == (1.0, 1.0)
    with pytest.raises(UserError, match=r"method\.clip: \[0\.8, 0\.3\]"):
        Joint(clip=(0.8, 0.3))

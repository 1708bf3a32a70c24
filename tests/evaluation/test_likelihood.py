"""Scores add up, do not depend on how rows are batched, and a real network's score is what its definition says."""

import math

import pytest
import torch

from unmask.data.packing import windows
from unmask.denoiser import Denoiser, NextToken
from unmask.errors import UserError
from unmask.evaluation.likelihood import Exact, FixedCount, Score, masked_nats, score_batches
from unmask.models.attention import Causal
from unmask.models.config import ModelConfig
from unmask.models.transformer import Transformer

V, MASK = 12, 11


@pytest.fixture(scope="module")
def network():
    model = Transformer(ModelConfig(vocab=V, width=16, layers=2, heads=2, dropout=0.3))
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=rng) * 0.3)
    return model


@pytest.fixture
def masked(network):
    return Denoiser(network, mask_id=MASK)


@pytest.fixture
def autoregressive(network):
    return Denoiser(network, mask_id=MASK, rule=Causal(), head=NextToken(start=0))


def rows(n=50, length=10, batch=5):
    tokens = torch.randint(0, MASK, (n,), generator=torch.Generator().manual_seed(1)).tolist()
    return windows(tokens, length, batch=batch)


@pytest.mark.parametrize("estimator", [Exact(), FixedCount(6)], ids=["exact", "fixed count"])
def test_grouping_does_not_matter(masked, autoregressive, estimator):
    denoiser = autoregressive if estimator.exact else masked
    scores = [score_batches(denoiser, rows(47, batch=b), estimator, seed=3) for b in (1, 2, 5)]
    for score in scores[1:]:
        assert score.nats == pytest.approx(scores[0].nats, rel=1e-5)
        assert score.stderr == pytest.approx(scores[0].stderr, rel=1e-3)
        assert score.tokens == 47


def test_the_seed_decides(masked):
    first, again, other = (score_batches(masked, rows(), FixedCount(4), seed=s) for s in (1, 1, 2))
    assert first == again
    assert first.nats != other.nats
    assert abs(first.nats - other.nats) < 5 * math.hypot(first.stderr, other.stderr)


def test_dropout_is_off_while_scoring_and_the_mode_comes_back(autoregressive):
    autoregressive.train()
    one, two = (score_batches(autoregressive, rows(), Exact()) for _ in range(2))
    assert one == two
    assert autoregressive.training
    autoregressive.eval()
    score_batches(autoregressive, rows(), Exact())
    assert not autoregressive.training


def test_exact_is_the_sum_of_next_token_cross_entropies(autoregressive):
    batch = next(rows(10))
    autoregressive.eval()
    with torch.no_grad():
        mu = autoregressive(batch.tokens).mu()
    expected = -mu.gather(1, batch.tokens.flatten()[:, None]).double().sum()
    assert score_batches(autoregressive, [batch], Exact()).nats == pytest.approx(float(expected), rel=1e-5)


def test_many_draws_approach_the_enumerated_bound(masked):
    """Four tokens: all 15 masks enumerated, each count k weighing n / k over its subsets."""
    batch, expected = next(rows(4, length=4, batch=1)), 0.0
    masked.eval()
    for code in range(1, 16):
        mask = torch.tensor([[bool(code >> i & 1) for i in range(4)]])
        k = int(mask.sum())
        with torch.no_grad():
            nats = masked_nats(masked, batch, mask, torch.full((1, 4), 4 / k))
        expected += float(nats) / (4 * math.comb(4, k))
    score = score_batches(masked, [batch], FixedCount(draws=320, replicates=16))
    assert abs(score.nats - expected) < 4 * score.stderr
    assert score.stderr < 0.04 * expected


def test_padding_and_prompts_are_not_counted(masked):
    batch = next(rows(7))
    assert score_batches(masked, [batch], FixedCount(2)).tokens == 7
    unscored = type(batch)(batch.tokens, batch.documents, batch.positions, torch.zeros_like(batch.scored))
    nothing = score_batches(masked, [unscored], FixedCount(2))
    assert (nothing.nats, nothing.stderr, nothing.tokens) == (0.0, 0.0, 0)
    assert math.isnan(nothing.perplexity)


def test_progress_is_told_the_sum_so_far(autoregressive):
    seen = []
    score = score_batches(autoregressive, rows(batch=2), Exact(), n_bytes=50, progress=seen.append)
    assert [s.tokens for s in seen] == [20, 40, 50]
    assert seen[-1] == score


def test_rates():
    score = Score(nats=math.log(2) * 30, stderr=math.log(2) * 3, tokens=10, bytes=20, exact=False)
    assert score.bits_per_token == pytest.approx(3)
    assert score.bits_per_byte == pytest.approx(1.5)
    assert score.bits_per_byte_stderr == pytest.approx(0.15)
    assert score.perplexity == pytest.approx(8)
    both = score + Score(nats=0.0, stderr=math.log(2) * 4, tokens=5, bytes=0, exact=True)
    assert (both.tokens, both.bytes, both.exact) == (15, 20, False)
    assert both.stderr == pytest.approx(math.log(2) * 5)
    assert math.isnan(Score(1.0, 0.0, 0, 0, True).bits_per_byte)
    assert Score(math.inf, 0.0, 1, 1, True).perplexity == math.inf


@pytest.mark.parametrize(("options", "complaint"), [({"draws": 0}, "draws: 0"), ({"replicates": 1}, "replicates: 1")])
def test_too_few(options, complaint):
    with pytest.raises(UserError, match=complaint):
        FixedCount(**options)

"""Left to right with the true conditionals, the next-token objective and the exact score are -log p(x) for every x."""

import pytest
import torch
from toy import LeftToRight, Table, Toy

from unmask.evaluation.likelihood import Exact, FixedCount, score_batches
from unmask.noise.draws import seeded
from unmask.objectives.next_token import NextToken


@pytest.fixture(params=[3, 4], ids=["L=3", "L=4"], scope="module")
def toy(request):
    return Toy(request.param)


def test_next_token_is_exact_for_every_text(toy):
    for text, nats in zip(toy.texts, toy.nats):
        loss = NextToken()(LeftToRight(toy), toy.batch(text[None]), seeded(0))
        assert float(loss.total) == pytest.approx(float(nats), abs=1e-6)
        assert loss.count == toy.length


def test_the_exact_score_is_exact(toy):
    for text, nats in zip(toy.texts[::5], toy.nats[::5]):
        score = score_batches(LeftToRight(toy), [toy.batch(text[None])], Exact(), n_bytes=6)
        assert score.nats == pytest.approx(float(nats), abs=1e-9)
        assert (score.stderr, score.exact, score.tokens, score.bytes) == (0.0, True, toy.length, 6)


def test_an_answer_given_its_prompt(toy):
    scored = torch.arange(toy.length) >= 1
    first = torch.stack([toy.joint[toy.texts[:, 0] == v].sum() for v in range(3)])
    score = score_batches(LeftToRight(toy), [toy.batch(toy.texts, scored.expand(toy.texts.shape))], Exact())
    assert score.nats == pytest.approx(float((toy.nats + first[toy.texts[:, 0]].log()).sum()), abs=1e-8)


@pytest.mark.parametrize("draws", [2, 5, 8])
def test_the_fixed_count_score_is_unbiased_and_knows_its_error(draws):
    """Over many seeds the mean is -log p(x), and the reported error is the spread that is seen."""
    toy, copies = Toy(4), 400
    text = toy.joint.argmin()
    batch = toy.batch(toy.texts[text].expand(copies, -1))
    scores = [score_batches(Table(toy), [batch], FixedCount(draws), seed=s) for s in range(30)]
    means = torch.tensor([s.nats / copies for s in scores], dtype=torch.float64)
    claimed = torch.tensor([s.stderr / copies for s in scores], dtype=torch.float64)
    assert abs(means.mean() - toy.nats[text]) < 4 * means.std() / 30**0.5
    assert 0.6 < means.std() / claimed.square().mean().sqrt() < 1.6


def test_more_draws_and_strata_lessen_the_error():
    toy = Toy(4)
    batch = toy.batch(toy.texts.repeat(5, 1))
    few, many = (score_batches(Table(toy), [batch], FixedCount(draws)) for draws in (2, 16))
    assert many.stderr < few.stderr / 3  # eight times the passes alone would give 2.8

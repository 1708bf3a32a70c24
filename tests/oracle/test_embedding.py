"""Given the true posterior mean, the bound of embedding diffusion is -log p(x)."""

import numpy as np
import pytest
import torch
from gaussian import PosteriorMean, Told, oracle

from unmask.evaluation.gaussian import DiscretisedBound
from unmask.evaluation.likelihood import score_batches
from unmask.noise.draws import seeded
from unmask.noise.embeddings import EmbeddingNoise
from unmask.noise.schedule import Cosine, Linear, Sqrt
from unmask.objectives.embedding import EmbeddingBound


@pytest.mark.parametrize("schedule", [Sqrt(), Linear(), Cosine()], ids=repr)
@pytest.mark.parametrize("length", [1, 2])
def test_the_bound_by_quadrature(length, schedule):
    """One number a position (D = 1), two tokens: integrated over z and t it is -log p(x), for each text."""
    table = torch.tensor([[1.0], [-1.0]], dtype=torch.float64) * 2.5
    process = EmbeddingNoise(table, schedule)
    joint = torch.tensor([0.3, 0.7] if length == 1 else [0.4, 0.1, 0.3, 0.2], dtype=torch.float64)
    texts = torch.cartesian_prod(*[torch.arange(2)] * length).view(-1, length)
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    noise = torch.cartesian_prod(*[torch.tensor(nodes)] * length).view(-1, length)
    chance = torch.cartesian_prod(*[torch.tensor(weights / weights.sum())] * length).view(-1, length).prod(-1)
    shares, steps = np.polynomial.legendre.leggauss(60)
    bound = torch.zeros(len(texts), dtype=torch.float64)
    for u, step in zip(torch.tensor(shares) / 2 + 0.5, torch.tensor(steps) / 2):
        t = process.time(u).expand(len(noise), length)
        a, n = process.signal(t)
        for i, text in enumerate(texts):
            x = a * process.table[text] + n * noise[..., None]  # (Z, L, 1)
            like = process.log_likelihood(x, t)
            each = torch.stack([like[:, l, texts[:, l]] for l in range(length)], -1)  # (Z, T, L)
            weight = (joint.log() + each.sum(-1)).softmax(-1)  # p(text | z)
            mean = torch.stack([weight @ process.table[texts[:, l], 0] for l in range(length)], -1)
            gap = process.gap(mean[..., None], text)
            bound[i] += step * (chance @ (process.weight(t) * gap).sum(-1))
    start = torch.zeros(len(nodes), dtype=torch.float64)
    a, n = process.signal(start)
    for i, text in enumerate(texts):
        for token in text:
            x = a * process.table[token] + n * torch.tensor(nodes)[:, None]
            nll = -process.log_likelihood(x, start).log_softmax(-1)[:, token]
            bound[i] += torch.tensor(weights / weights.sum()) @ nll
        bound[i] += process.prior_nats(text).sum()
    torch.testing.assert_close(bound, -joint.log(), rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("schedule", [Sqrt(), Cosine()], ids=repr)
def test_the_estimator_knows_the_bound_and_its_error(schedule):
    """Texts drawn from p, scored: their entropy, to one part in a hundred, within four standard errors."""
    toy, process, model = oracle(2, schedule)
    rows = toy.joint.multinomial(10_000, replacement=True, generator=torch.Generator().manual_seed(0))
    estimator = DiscretisedBound(noise=lambda _: process, draws=16, steps=10_000)
    score = score_batches(model, [toy.batch(toy.texts[rows])], estimator)
    truth = float(toy.nats[rows].sum())
    assert score.stderr < 0.01 * score.nats
    assert abs(score.nats - truth) < 4 * score.stderr + 2e-3 * truth
    assert not score.exact


def test_fewer_steps_cost_more():
    toy, process, model = oracle()
    batch = toy.batch(toy.texts.repeat(60, 1))
    few, many = (
        score_batches(model, [batch], DiscretisedBound(noise=lambda _: process, draws=8, steps=n)).nats
        for n in (4, 1000)
    )
    assert few > 1.05 * many


def test_an_answer_given_its_prompt():
    toy, process, model = oracle()
    scored = torch.arange(2) >= 1
    batch = toy.batch(toy.texts.repeat(200, 1), scored.expand(200 * len(toy.texts), -1))
    score = score_batches(model, [batch], DiscretisedBound(noise=lambda _: process, draws=8, steps=10_000))
    first = torch.stack([toy.joint[toy.texts[:, 0] == v].sum() for v in range(3)])
    truth = 200 * float((toy.nats + first[toy.texts[:, 0]].log()).sum())
    assert score.tokens == 200 * len(toy.texts)
    assert abs(score.nats - truth) < 4 * score.stderr + 2e-3 * truth


def test_training_on_the_bound_has_its_mean():
    toy, process, model = oracle()
    objective = EmbeddingBound(lambda _: process, given=0.0)
    text, copies = toy.joint.argmin(), 2000
    losses = [
        float(objective(model, toy.batch(toy.texts[text].expand(copies, -1)), seeded(s)).total) for s in range(30)
    ]
    means = np.array(losses) / copies
    assert abs(means.mean() - float(toy.nats[text])) < 4 * means.std(ddof=1) / 30**0.5 + 0.01


def test_knowing_nothing_costs_log_v_a_token():
    """mu uniform: the position's own vector is still read, so the bound is the entropy of a fair choice of three."""
    toy, process, _ = oracle()
    model = PosteriorMean(toy, process)
    flat = torch.tensor([1 / 3, 1 / 3, 1 / 3, 0.0], dtype=torch.float64).log()
    model.forward = lambda x, t, places=None, where=None, feedback=None: Told(flat.expand(int(where.sum()), -1))
    batch = toy.batch(toy.texts.repeat(300, 1))
    score = score_batches(model, [batch], DiscretisedBound(noise=lambda _: process, draws=8, steps=10_000))
    assert score.nats / score.tokens == pytest.approx(float(np.log(3)), abs=4 * score.stderr / score.tokens + 2e-3)

"""Uniform and hybrid noise: given the Bayes-optimal denoiser the bound is -log p(x) for every x, and the ancestral
sampler draws from p.

All noisy texts are enumerated and time is integrated by Gauss-Legendre. A schedule that stops short of its ends leaves
KL(q_t(. | x) || p_t) at them, which is what the integral must make up the difference of: D(0) - D(1), with D(0) =
-log p(x) where alpha(0) = 1 and D(1) = 0 where alpha(1) = 0.
"""

import numpy as np
import pytest
import torch
from noisy import Bayes, Enumerated, as_many, drawn, fitting, p_value
from toy import MASK, SYMBOLS, Toy

from unmask.decoding.settings import Decoding
from unmask.evaluation.integral import Integral
from unmask.evaluation.likelihood import score_batches
from unmask.noise.draws import seeded
from unmask.noise.schedule import Cosine, Geometric, Linear, LogLinear
from unmask.noise.tokens import TokenNoise, resting
from unmask.objectives.bound import Bound

RESTS = {"uniform": resting(SYMBOLS, [MASK]), "hybrid": resting(SYMBOLS, [MASK], MASK, 0.3)}
SCHEDULES = [LogLinear(), Geometric(), Cosine(), Linear()]
every_rest = pytest.mark.parametrize("pi", RESTS.values(), ids=RESTS)


@pytest.mark.parametrize("length", [2, 3])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
@every_rest
def test_the_bound_is_tight_for_every_text(pi, schedule, length):
    toy = Toy(length)
    process = TokenNoise(pi, schedule)
    all = Enumerated(process, toy)
    exact = all.divergence(0.0) - all.divergence(1.0)
    assert (all.integral(process.nelbo) - exact).abs().max() < 1e-4
    if isinstance(schedule, (Cosine, Linear)):
        assert (exact - toy.nats).abs().max() < 1e-6


@every_rest
def test_another_distributions_denoiser_gives_that_distribution(pi):
    toy, other = Toy(3), Toy(3, seed=2)
    process = TokenNoise(pi, Linear())
    bound = Enumerated(process, toy).integral(process.nelbo, knows=other)
    assert (bound - other.nats).abs().max() < 1e-4
    assert (bound - toy.nats).abs().max() > 0.5


@every_rest
@pytest.mark.parametrize("power", [1.0, 2.0, 3.0])
def test_training_has_the_enumerated_mean(pi, power):
    toy, process, copies, seeds = Toy(3), TokenNoise(pi, LogLinear()), 256, 25
    objective = Bound(process, power=power)
    all = Enumerated(process, toy)
    expected = all.integral(process.nelbo)
    for text in (toy.joint.argmax(), toy.joint.argmin()):
        batch = toy.batch(toy.texts[text].expand(copies, -1))
        losses = [float(objective(Bayes(process, toy), batch, seeded(s)).total) / copies for s in range(seeds)]
        assert abs(np.mean(losses) - expected[text].item()) < 4 * np.std(losses, ddof=1) / seeds**0.5 + 5e-3


@pytest.mark.parametrize("schedule", [LogLinear(), Geometric(low=0.05), Linear()], ids=repr)
@every_rest
def test_the_score_is_unbiased_and_knows_its_error(pi, schedule):
    """Prior term, integral and the last guess together: the bound of the model that evaluation reports."""
    toy, process, copies = Toy(3), TokenNoise(pi, schedule), 100
    all, text = Enumerated(process, toy), toy.joint.argmin()
    zero = torch.zeros(all.noisy.shape, dtype=torch.float64)
    mu = Bayes(process, toy)(all.noisy, zero).logits().view(*all.noisy.shape, -1)
    last = process.beliefs(all.noisy, mu, zero).repeat(len(toy.texts), 1, 1).gather(-1, all.x0[..., None])
    expected = all.divergence(0.0) - all.divergence(1.0) + all.mean(0.0, -last.sum((1, 2)))
    expected = (expected + process.prior_nats(toy.texts).sum(1))[text]
    batch = toy.batch(toy.texts[text].expand(copies, -1))
    estimator = Integral(draws=16, bound=lambda denoiser: Bound(process))
    scores = [score_batches(Bayes(process, toy), [batch], estimator, seed=s) for s in range(16)]
    means = torch.tensor([s.nats / copies for s in scores], dtype=torch.float64)
    claimed = torch.tensor([s.stderr / copies for s in scores], dtype=torch.float64)
    assert abs(means.mean() - expected) < 4 * means.std() / 16**0.5
    assert means.std() / 16**0.5 < 0.01 * expected
    assert 0.5 < means.std() / claimed.square().mean().sqrt() < 2
    assert abs(expected - toy.nats[text]) < 0.02 if isinstance(schedule, LogLinear) else True
    assert not scores[0].exact


@pytest.mark.parametrize("known", [(None, None, None), (None, 1, None)], ids=["all", "infill"])
@every_rest
@as_many
def test_the_ancestral_sampler_draws_from_the_data(pi, known, draws):
    toy, process = Toy(3), TokenNoise(pi, Cosine())
    settings = Decoding(rule="ancestral", temperature=1.0, steps=160 if draws > 4000 else 64)
    assert p_value(drawn(process, toy, settings, list(known), draws), fitting(toy, known)) > 1e-3


@every_rest
def test_one_step_is_not_enough(pi):
    """The chi-square would notice."""
    toy, process = Toy(3), TokenNoise(pi, LogLinear())
    texts = drawn(process, toy, Decoding(rule="ancestral", temperature=1.0, steps=1), [None] * 3, 5000)
    assert p_value(texts, toy.joint) < 1e-6

"""Gaussian noise on embeddings against its closed forms: marginals, one step in two, posteriors, Bayes' rule, ends."""

import pytest
import torch

from unmask.errors import UserError
from unmask.noise.draws import seeded
from unmask.noise.embeddings import EmbeddingNoise
from unmask.noise.schedule import Cosine, Linear, LogLinear, Sqrt

V, D, RADIUS, SQRT = 6, 3, 2.0, Sqrt()
every = pytest.mark.parametrize("schedule", [Sqrt(), Linear(), Cosine(2.0), LogLinear()], ids=repr)


def process(schedule=SQRT, jitter=0.1):
    weight = torch.randn(V, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return EmbeddingNoise(EmbeddingNoise.over(weight, schedule, RADIUS, jitter).table.double(), schedule, jitter)


def at(*times):
    return torch.tensor(times, dtype=torch.float64)


def test_embeddings_have_one_length():
    assert torch.allclose(process().table.norm(dim=-1), at(RADIUS))


@every
def test_marginals(schedule):
    """Mean sqrt(alpha) e and variance alpha jitter^2 + 1 - alpha in every coordinate."""
    p, n = process(schedule), 40_000
    for t in (0.0, 0.03, 0.4, 1.0):
        x = p.corrupt(torch.full((n, 1), 2), torch.full((n, 1), t, dtype=torch.float64), seeded(1))[:, 0]
        alpha = float(schedule.alpha(at(t)))
        variance = alpha * 0.01 + 1 - alpha
        assert (x.mean(0) - alpha**0.5 * p.table[2]).abs().max() < 4.5 * (variance / n) ** 0.5
        assert (x.var(0) / variance - 1).abs().max() < 4.5 * (2 / n) ** 0.5
        assert float(p.noise_power(at(t))) == pytest.approx(variance)


@every
def test_a_move_is_the_gaussian_posterior(schedule):
    """q(z_s | z_t, e) by the product of the two Gaussians q(z_t | z_s) q(z_s | e), mean and variance."""
    p, t, s = process(schedule), at(0.5), at(0.2)
    x, clean = torch.randn(2, 1, D, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    (a_t, n_t), (a_s, n_s) = p.signal(t), p.signal(s)
    ratio = a_t / a_s
    between = n_t.square() - ratio.square() * n_s.square()
    precision = ratio.square() / between + 1 / n_s.square()
    mean = (ratio * x / between + a_s * clean / n_s.square()) / precision
    zero = torch.zeros_like(x)
    torch.testing.assert_close(p.move(x, clean, t, s, zero), mean)
    spread = p.move(x, clean, t, s, zero + 1) - mean
    torch.testing.assert_close(spread.square(), (1 / precision).expand_as(x))


@every
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_moves_keep_the_marginals(schedule, eta):
    """Moved with the true embedding, q_t becomes q_s whatever the eta: variances add up exactly."""
    p, t, s = process(schedule), at(0.6), at(0.25)
    zero, one = torch.zeros(1, D, dtype=torch.float64), torch.ones(1, D, dtype=torch.float64)
    (a_t, n_t), (a_s, n_s) = p.signal(t), p.signal(s)
    e = p.table[:1]
    torch.testing.assert_close(p.move(a_t * e, e, t, s, zero, eta), a_s * e)
    old = p.move(a_t * e + one, e, t, s, zero, eta) - a_s * e
    fresh = p.move(a_t * e, e, t, s, one, eta) - a_s * e
    torch.testing.assert_close((old * n_t).square() + fresh.square(), n_s.square().expand(1, D))
    assert (eta == 0) == bool((fresh == 0).all())


@every
def test_beliefs_are_bayes_rule(schedule):
    p, t = process(schedule), at(0.05, 0.3, 0.9)
    x = torch.randn(3, D, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    mu = torch.randn(3, V, generator=torch.Generator().manual_seed(5), dtype=torch.float64).log_softmax(-1)
    mu[:, 4] = -torch.inf
    a, n = p.signal(t)
    density = torch.distributions.Normal(a[:, :, None] * p.table, n[:, :, None]).log_prob(x[:, None]).sum(-1)
    torch.testing.assert_close(p.beliefs(x, mu, t), (mu + density).log_softmax(-1))
    torch.testing.assert_close(p.estimate(x, mu, t), (mu + density).softmax(-1) @ p.table)


@every
def test_times_are_even_in_the_power_of_the_noise(schedule):
    p = process(schedule)
    share = torch.linspace(0, 1, 201, dtype=torch.float64)
    t = p.time(share)
    assert t[0] == pytest.approx(0, abs=1e-9)
    assert bool((t.diff() > 0).all())
    gaps = p.noise_power(t).diff()
    torch.testing.assert_close(gaps, gaps.mean().expand_as(gaps), rtol=1e-4, atol=0)


@every
def test_the_weight_is_the_integrands_jacobian(schedule):
    """weight(time(u)) du = -d snr / 2, by finite differences."""
    p, u, step = process(schedule), torch.linspace(0.05, 0.95, 19, dtype=torch.float64), 1e-6
    fall = (p.snr(p.time(u - step)) - p.snr(p.time(u + step))) / (4 * step)
    torch.testing.assert_close(p.weight(p.time(u)), fall, rtol=1e-5, atol=0)


def test_the_prior_term_is_the_divergence():
    p = process(LogLinear(0.1))
    a, n = (float(part) for part in p.signal(at(1.0)))
    end = torch.distributions.Normal(a * p.table, n)
    kl = torch.distributions.kl_divergence(end, torch.distributions.Normal(at(0.0), at(1.0))).sum(-1)
    torch.testing.assert_close(p.prior_nats(torch.arange(V)), kl)
    assert float(process(Sqrt()).prior_nats(torch.tensor(0))) == pytest.approx(0, abs=1e-12)


def test_writing_and_reading():
    p = process()
    tokens = torch.tensor([[1, 2, 5], [0, 0, 3]])
    blank = p.prior(tokens, seeded(0))
    assert torch.equal(p.read(p.write(blank, tokens, torch.ones_like(tokens).bool())), tokens)
    where = torch.tensor([[True, False, True], [False, False, True]])
    x = p.write(blank, tokens, where)
    assert torch.equal(x[~where], blank[~where])
    held, t = p.hold(x, torch.zeros(2, 3, V).log_softmax(-1), where.logical_not().double() * 0.7, at(0.4), seeded(1))
    assert torch.equal(held[where], x[where])
    assert torch.equal(t, where.logical_not().double())
    assert not p.certain(x).any()


def test_the_first_latent_needs_noise():
    for jitter in (0.0, 1.0, -0.1):
        with pytest.raises(UserError, match="jitter"):
            process(Linear(), jitter)

"""The fast masked process is its obvious parent with all rest on the mask; the parent obeys Bayes' rule."""

import pytest
import torch
import torch.nn.functional as F

from unmask.noise.draws import seeded
from unmask.noise.schedule import Cosine, Geometric, Linear, LogLinear, Polynomial
from unmask.noise.tokens import Masking, TokenNoise

V, MASK, B, L = 5, 4, 64, 6
SCHEDULES = [Linear(), Cosine(), Polynomial(), LogLinear(), Geometric()]
every = pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
MIXED = torch.tensor([0.1, 0.2, 0.3, 0.0, 0.4])


@pytest.fixture
def case():
    """x0, mu without the mask, t well inside (0, 1): float64, as the comparisons are about formulas, not rounding."""
    rng = torch.Generator().manual_seed(0)
    x0 = torch.randint(0, MASK, (B, L), generator=rng)
    mu = torch.randn(B, L, V, generator=rng, dtype=torch.float64)
    mu[..., MASK] = -torch.inf
    t = torch.rand(B, L, generator=rng, dtype=torch.float64).clamp(0.1, 0.9)
    return x0, mu.log_softmax(-1), t


def both(schedule):
    fast = Masking.over(V, MASK, schedule)
    return fast, TokenNoise(fast.pi.double(), schedule)


@every
def test_corruption_is_its_parents(schedule, case):
    fast, slow = both(schedule)
    x0, _, t = case
    x = fast.corrupt(x0, t, seeded(1))
    assert torch.equal(x, slow.corrupt(x0, t, seeded(1)))
    assert torch.equal(fast.prior(x0, seeded(2)), slow.prior(x0, seeded(2)))
    assert ((x == x0) | (x == MASK)).all()
    assert 0 < (x == MASK).double().mean() < 1


@every
def test_bound_and_beliefs_are_its_parents(schedule, case):
    fast, slow = both(schedule)
    x0, mu, t = case
    x = fast.corrupt(x0, t, seeded(1))
    torch.testing.assert_close(fast.nelbo(mu, x0, x, t), slow.nelbo(mu, x0, x, t), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(fast.beliefs(x, mu, t), slow.beliefs(x, mu, t))
    seen = x != MASK
    assert torch.equal(fast.beliefs(x, mu, t)[seen].exp(), F.one_hot(x[seen], V).double())


@every
def test_reverse_law_is_its_parents(schedule):
    """The same law, from other uniforms: frequencies of one position's draws, and of the parent's, in one table."""
    fast, slow = both(schedule)
    n = 40_000
    mu = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.0], dtype=torch.float64).log().expand(n, 1, V)
    x, t, s = torch.full((n, 1), MASK), torch.full((n, 1), 0.8).double(), torch.full((n, 1), 0.5).double()
    a_t, a_s = schedule.alpha(t[0, 0]), schedule.alpha(s[0, 0])
    stays = (1 - a_s) / (1 - a_t)
    law = torch.cat([(1 - stays) * mu[0, 0, :MASK].exp(), stays[None]])
    for process in (fast, slow):
        seen = torch.bincount(process.reverse(x, mu, t, s, seeded(3)).flatten(), minlength=V) / n
        assert (seen - law).abs().max() < 4.5 * 0.5 / n**0.5


@every
def test_settled_positions_stay(schedule, case):
    fast, slow = both(schedule)
    x0, mu, t = case
    for process in (fast, slow):
        assert torch.equal(process.reverse(x0, mu, t, t / 2, seeded(1)), x0)
    zero = torch.zeros_like(t)
    if schedule.alpha(zero).eq(1).all():
        assert torch.equal(fast.corrupt(x0, zero, seeded(1)), x0)
        assert torch.equal(slow.corrupt(x0, zero, seeded(1)), x0)
        assert (fast.nelbo(mu, x0, x0, zero) == 0).all()


def test_flat_slices_give_what_rows_give(case):
    fast, slow = both(Cosine())
    x0, mu, t = case
    x = fast.corrupt(x0, t, seeded(1))
    for process in (fast, slow):
        flat = process.nelbo(mu.flatten(0, 1), x0.flatten(), x.flatten(), t.flatten())
        torch.testing.assert_close(flat.view(B, L), process.nelbo(mu, x0, x, t))


def test_to_leave_at_once_or_in_two_steps_is_the_same():
    """q_t = q_s followed by q_{t|s}: what `reverse` and `marginal` both stand on."""
    noise = TokenNoise(MIXED.double(), Cosine())
    s, t = torch.tensor([0.3]).double(), torch.tensor([0.7]).double()
    step = noise.schedule.alpha(t) / noise.schedule.alpha(s)
    middle = noise.marginal(torch.eye(V).double(), s)
    torch.testing.assert_close(step * middle + (1 - step) * noise.pi, noise.marginal(torch.eye(V).double(), t))


def test_the_reverse_law_is_bayes_rule():
    """sum over x_s of reverse = 1 by hand, and its law equals q(x_s | x_t, x0) averaged over p(x0 | x_t)."""
    noise, n = TokenNoise(MIXED.double(), Linear()), 60_000
    mu = torch.tensor([0.4, 0.3, 0.2, 0.1, 0.0], dtype=torch.float64).log()
    s, t = torch.tensor(0.3).double(), torch.tensor(0.7).double()
    for x in range(V):
        if MIXED[x] == 0:
            continue
        posterior = noise.beliefs(torch.tensor(x), mu, t).exp()
        step = noise.schedule.alpha(t) / noise.schedule.alpha(s)
        arrive = step * F.one_hot(torch.tensor(x), V) + (1 - step) * noise.pi[x]
        clean = noise.marginal(torch.eye(V).double(), s)  # (x0, x_s)
        each = clean * arrive
        law = (posterior[:, None] * each / each.sum(1, keepdim=True)).sum(0)
        full = torch.full((n, 1), x)
        drawn = noise.reverse(full, mu.expand(n, 1, V), t.expand(n, 1), s.expand(n, 1), seeded(x))
        assert (torch.bincount(drawn.flatten(), minlength=V) / n - law).abs().max() < 4.5 * 0.5 / n**0.5


def test_holding_returns_open_positions_to_pure_noise(case):
    fast, _ = both(Linear())
    x0, mu, t = case
    t = t * (torch.arange(L) % 2)
    x, honest = fast.hold(x0, mu, t, t / 2, seeded(1))
    assert torch.equal(x[:, ::2], x0[:, ::2])
    assert (x[:, 1::2] == MASK).all()
    assert torch.equal(honest, (t > 0).double())


@pytest.mark.parametrize("t", [1e-3, 0.01, 0.5, 1.0])
def test_the_weight_is_precise_in_single_precision(t):
    """1 - alpha(t) cancels near t = 0, where the weight is largest."""
    t = torch.tensor(t)
    torch.testing.assert_close(Masking.over(V, MASK).weight(t), 1 / t, rtol=3e-7, atol=0)


def test_writing_and_reading():
    fast, _ = both(Linear())
    x = torch.full((1, 3), MASK)
    written = fast.write(x, torch.tensor([[1, 2, 3]]), torch.tensor([[True, False, True]]))
    assert fast.read(written).tolist() == [[1, MASK, 3]]

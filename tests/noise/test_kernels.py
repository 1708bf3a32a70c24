"""Any Markov kernel: against the matrix exponential, and equal to `TokenNoise` where its matrix has equal rows."""

import pytest
import torch
from torch import Tensor

from unmask.errors import UserError
from unmask.noise.draws import categorical, inverse, seeded
from unmask.noise.kernels import KernelNoise
from unmask.noise.schedule import Cosine, Geometric, Linear, LogLinear
from unmask.noise.tokens import LEAST_SCORE, Masking, TokenNoise, resting

V, B, L = 5, 64, 6
RESTS = {
    "uniform": resting(V, [4]),
    "hybrid": resting(V, [4], mask_id=4, uniform_share=0.3),
    "mask": resting(V, [4], mask_id=4, uniform_share=0.0),
    "lopsided": torch.tensor([0.1, 0.2, 0.3, 0.0, 0.4], dtype=torch.float64),
}
SCHEDULES = [LogLinear(), Geometric(), Cosine(), Linear()]
every_rest = pytest.mark.parametrize("pi", RESTS.values(), ids=RESTS)
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)


def some_moves(size: int = V, seed: int = 0) -> Tensor:
    return torch.rand(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).softmax(1)


def of_rows(pi: Tensor, schedule) -> KernelNoise:
    """The kernel that jumps to pi from anywhere: `TokenNoise` by the longest way."""
    return KernelNoise(pi, schedule, torch.arange(V), torch.ones(V).double(), pi.expand(V, V))


def case(noise: TokenNoise, low: float = 0.05, high: float = 0.95):
    rng = torch.Generator().manual_seed(0)
    mu = torch.randn(B, L, V, generator=rng, dtype=torch.float64)
    mu[..., 4] = -torch.inf
    t = low + (high - low) * torch.rand(B, 1, generator=rng, dtype=torch.float64).expand(B, L)
    x0 = torch.randint(0, 4, (B, L), generator=rng)
    return x0, noise.corrupt(x0, t, seeded(1)), mu.log_softmax(-1), t


def by_definition(noise: TokenNoise, log_score: Tensor, x0: Tensor, x: Tensor, t: Tensor) -> Tensor:
    """The sum over symbols that SEDD's eq. 5 is, with every tensor in full."""
    one_hot = torch.eye(noise.vocab, dtype=torch.float64)
    true = noise.marginal(one_hot[x0], t)
    true = true / true.gather(-1, x[..., None])
    gap = log_score.exp() - true * log_score.clamp(min=LEAST_SCORE) + torch.xlogy(true, true) - true
    return noise.speed(t) * (noise.rates(x) * gap * (1 - one_hot[x])).sum(-1)


@every_rest
@every_schedule
def test_the_closed_forms_are_the_definition(pi, schedule):
    noise = TokenNoise(pi, schedule)
    x0, x, mu, t = case(noise)
    full = by_definition(noise, noise.log_score(x, mu, t), x0, x, t)
    torch.testing.assert_close(noise.score_entropy(noise.log_score(x, mu, t), x0, x, t), full, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(noise.nelbo(mu, x0, x, t), full, rtol=1e-9, atol=1e-9)
    scores = torch.randn(B, L, V, generator=torch.Generator().manual_seed(3), dtype=torch.float64)  # no mu has these
    torch.testing.assert_close(
        noise.score_entropy(scores, x0, x, t), by_definition(noise, scores, x0, x, t), rtol=1e-9, atol=1e-9
    )


@every_rest
@every_schedule
def test_a_kernel_of_equal_rows_is_token_noise(pi, schedule):
    fast, slow = TokenNoise(pi, schedule), of_rows(pi, schedule)
    x0, x, mu, t = case(fast)
    s = t / 2
    torch.testing.assert_close(slow.marginal(mu.exp(), t), fast.marginal(mu.exp(), t))
    torch.testing.assert_close(slow.likelihood(x, t), fast.likelihood(x, t))
    torch.testing.assert_close(slow.arrival(x, t, s), fast.arrival(x, t, s))
    torch.testing.assert_close(slow.nelbo(mu, x0, x, t), fast.nelbo(mu, x0, x, t), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(slow.beliefs(x, mu, t), fast.beliefs(x, mu, t))
    assert torch.equal(slow.certain(x), fast.certain(x))
    assert torch.equal(slow.reverse(x, mu, t, s, seeded(2)), fast.reverse(x, mu, t, s, seeded(2)))


@pytest.mark.parametrize("where", [1e-3, 0.5, 0.999])
@every_rest
def test_single_precision_keeps_its_digits(pi, where):
    noise = TokenNoise(pi, LogLinear())
    x0, x, mu, t = case(noise, where, where)
    exact = noise.nelbo(mu, x0, x, t)
    low = noise.nelbo(mu.float(), x0, x, t.float())
    torch.testing.assert_close(low.double(), exact, rtol=2e-4, atol=1e-6)
    torch.testing.assert_close(low.double().sum(), exact.sum(), rtol=1e-5, atol=1e-6)


@every_rest
def test_gradients_are_finite_and_true(pi):
    noise = TokenNoise(pi, LogLinear())
    x0, x, mu, t = case(noise)
    found = []
    for cost in (noise.nelbo, lambda m, *rest: by_definition(noise, noise.log_score(rest[1], m, rest[2]), *rest)):
        logits = mu.clone().requires_grad_()
        cost(logits.log_softmax(-1), x0, x, t).sum().backward()
        found.append(logits.grad)
    assert found[0].isfinite().all()
    torch.testing.assert_close(found[0][..., :4], found[1][..., :4], rtol=1e-7, atol=1e-8)
    for late in (torch.ones(B, L), torch.full((B, L), 1e-6)):
        logits = mu.float().requires_grad_()
        noise.nelbo(logits.log_softmax(-1), x0, x, late).sum().backward()
        assert logits.grad.isfinite().all()


@every_schedule
def test_marginals_are_the_matrix_exponential(schedule):
    moves, t = some_moves(), torch.tensor([0.05, 0.4, 0.95], dtype=torch.float64)
    noise = KernelNoise.over(moves, schedule, rate=1.5)
    for one in t:
        sigma = -1.5 * schedule.alpha(one).log()
        kernel = torch.matrix_exp(sigma * (moves - torch.eye(V).double()))
        torch.testing.assert_close(noise.marginal(torch.eye(V).double(), one.expand(V)), kernel)
        torch.testing.assert_close(noise.likelihood(torch.arange(V), one.expand(V)), kernel.T)
    assert noise.pi.sum() == pytest.approx(1)


def test_a_kernel_over_classes_is_its_full_matrix():
    """R (V, V) spelt out: the class by row, the symbol inside by `within`; the last symbol is barred."""
    classes, moves = torch.tensor([0, 1, 0, 1, 2, 0]), some_moves(3)
    noise = KernelNoise.over(moves, Cosine(), classes, barred=[5])
    spelt = moves[classes][:, classes] * noise.within
    full = KernelNoise(noise.pi, Cosine(), torch.arange(6), (noise.within > 0).double(), spelt)
    rng = torch.Generator().manual_seed(1)
    mu = torch.randn(B, L, 6, generator=rng, dtype=torch.float64).index_fill(-1, torch.tensor([5]), -torch.inf)
    mu, x0 = mu.log_softmax(-1), torch.randint(0, 5, (B, L), generator=rng)
    t = torch.rand(B, L, generator=rng, dtype=torch.float64).clamp(0.1, 0.9)
    x = noise.corrupt(x0, t, seeded(0))
    assert (x < 5).all()
    for name in ("marginal", "likelihood", "nelbo", "beliefs"):
        given = {"marginal": (mu.exp(), t), "likelihood": (x, t), "nelbo": (mu, x0, x, t), "beliefs": (x, mu, t)}[name]
        one, other = getattr(noise, name)(*given), getattr(full, name)(*given)
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(noise.prior_nats(x0), full.prior_nats(x0))


@pytest.mark.parametrize("t", [0.2, 0.8])
def test_corruption_follows_the_marginal(t):
    classes, n = torch.tensor([0, 1, 0, 1, 2, 0]), 40_000
    noise = KernelNoise.over(some_moves(3), LogLinear(), classes, barred=[5])
    for x0 in (0, 4):
        law = noise.marginal(torch.eye(6).double()[x0], torch.tensor(t))
        drawn = noise.corrupt(torch.full((n, 1), x0), torch.full((n, 1), t), seeded(x0))
        assert (torch.bincount(drawn.flatten(), minlength=6) / n - law).abs().max() < 4.5 * 0.5 / n**0.5


def test_two_steps_are_one():
    noise = KernelNoise.over(some_moves(), Linear(), rate=2.0)
    x, t, s = torch.arange(V), torch.tensor(0.7).double().expand(V), torch.tensor(0.3).double().expand(V)
    clean = noise.marginal(torch.eye(V).double(), s)  # (x0, x_s)
    torch.testing.assert_close(clean @ noise.arrival(x, t, s).T, noise.likelihood(x, t).T)


@every_rest
def test_the_prior_term_is_the_divergence_from_evenly_drawn_texts(pi):
    noise = TokenNoise(pi, LogLinear(eps=0.1))
    rows = noise.marginal(torch.eye(V).double(), torch.ones(V).double())
    expected = (torch.xlogy(rows, rows) - torch.xlogy(rows, rows.mean(0))).sum(1)
    torch.testing.assert_close(noise.prior_nats(torch.arange(V)), expected)
    assert (TokenNoise(pi, Linear()).prior_nats(torch.arange(V)) == 0).all()


@every_rest
def test_scores_convert_both_ways(pi):
    noise = TokenNoise(pi, LogLinear())
    _, x, mu, t = case(noise)
    mu = mu.masked_fill(mu < -20, -torch.inf)
    back = noise.mu_of(noise.log_score(x, mu, t), t)
    open = ~noise.certain(x)
    torch.testing.assert_close(back[open].exp(), mu[open].exp(), rtol=1e-6, atol=1e-8)


def test_masking_and_its_scores_agree_with_its_parent():
    fast, slow = Masking.over(V, 4, LogLinear()), TokenNoise(RESTS["mask"], LogLinear())
    x0, x, mu, t = case(slow)
    torch.testing.assert_close(fast.nelbo(mu, x0, x, t), slow.nelbo(mu, x0, x, t), rtol=1e-8, atol=1e-8)


def test_one_law_for_all_draws_what_many_equal_ones_draw():
    pi = torch.tensor([0.0, 0.2, 0.0, 0.5, 0.3, 0.0])
    u = torch.rand(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(inverse(pi, u), categorical(pi.expand(1000, -1), u))
    assert set(inverse(pi, u).tolist()) == {1, 3, 4}


@pytest.mark.parametrize(
    ("moves", "classes", "word"),
    [
        (torch.rand(3, 4), None, "square"),
        (torch.rand(3, 3) + 1, None, "sum to 1"),
        (some_moves(3), torch.tensor([0, 3]), "numbered"),
        (some_moves(3), torch.tensor([0, 1]), "without a symbol"),
    ],
)
def test_matrices_that_are_none(moves, classes, word):
    with pytest.raises(UserError, match=word):
        KernelNoise.over(moves, Linear(), classes)

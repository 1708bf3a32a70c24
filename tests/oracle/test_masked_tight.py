"""Given the Bayes-optimal denoiser, the masked bound is -log p(x) for every single x, whatever the schedule.

All mask patterns are enumerated and time is integrated by Gauss-Legendre, so nothing here is random.

A schedule that stops short of its ends, alpha(0) < 1 or alpha(1) > 0 (Geometric, LogLinear), leaves two pieces of the
path out of the integral. The bound's own end terms are these pieces, exactly:
  prior:           E over z at t = 1 of -log p(visible tokens of z)                   (0 where alpha(1) = 0)
  reconstruction:  E over z at t = 0 of -log p(masked tokens of z | its visible ones) (0 where alpha(0) = 1)
"""

import numpy as np
import pytest
import torch
from toy import MASK, SYMBOLS, Table, Toy

from unmask.evaluation.likelihood import masked_nats
from unmask.layout import EARLIEST, Whole
from unmask.noise.draws import seeded
from unmask.noise.schedule import Cosine, Geometric, Linear, LogLinear, Polynomial
from unmask.noise.tokens import Masking, TokenNoise
from unmask.objectives.masked import MaskedBound, counted_masks

SCHEDULES = [Linear(), Cosine(), Polynomial(), LogLinear(), Geometric()]
STOPS_SHORT = (LogLinear, Geometric)
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)


@pytest.fixture(params=[3, 4], ids=["L=3", "L=4"], scope="module")
def toy(request):
    return Toy(request.param)


def mean_over_masks(toy, process, t, values):
    """E over z ~ q_t(. | x0) of values (T * 2 ** L,): (T,)."""
    times = torch.full(toy.noisy.shape, t, dtype=torch.float64)
    like = process.likelihood(toy.noisy, times).gather(-1, toy.clean[..., None])[..., 0]
    return (like.prod(1) * values).view(len(toy.texts), -1).sum(1)


def integrand(toy, process, t, mu):
    """E over masks of the package's nelbo, summed over positions: (T,)."""
    times = torch.full(toy.noisy.shape, t, dtype=torch.float64)
    return mean_over_masks(toy, process, t, process.nelbo(mu, toy.clean, toy.noisy, times).sum(1))


def integral(toy, process, first=0.0, last=1.0, nodes=96, knows=None):
    points, weights = np.polynomial.legendre.leggauss(nodes)
    points = first + (points + 1) / 2 * (last - first)
    mu = (knows or toy).mu(toy.noisy)
    parts = [w * integrand(toy, process, float(t), mu) for t, w in zip(points, weights)]
    return torch.stack(parts).sum(0) * (last - first) / 2


def end_terms(toy, process):
    visible = toy.given(toy.noisy)
    whole = toy.joint.log().repeat_interleave(len(toy.masks))
    return mean_over_masks(toy, process, 1.0, -visible) + mean_over_masks(toy, process, 0.0, visible - whole)


@every_schedule
def test_the_bound_is_tight_for_every_text(toy, schedule):
    process = Masking.over(SYMBOLS, MASK, schedule)
    bound = integral(toy, process) + end_terms(toy, process)
    assert (bound - toy.nats).abs().max() < 1e-4
    ends = end_terms(toy, process).abs().max()
    assert ends > 1e-5 if isinstance(schedule, STOPS_SHORT) else ends < 1e-12


@every_schedule
def test_the_bound_of_the_general_token_noise_is_tight_too(schedule):
    """Score entropy over all symbols, with all rest on the mask: the parent's `nelbo`."""
    toy = Toy(3)
    process = Masking.over(SYMBOLS, MASK, schedule)
    parent = TokenNoise(process.pi.double(), schedule)
    bound = integral(toy, parent, nodes=48) + end_terms(toy, parent)
    assert (bound - toy.nats).abs().max() < 1e-4


def test_another_distributions_denoiser_gives_that_distribution(toy):
    """Not tight by accident: the bound is -log q(x) where the denoiser is Bayes-optimal for q."""
    other = Toy(toy.length, seed=2)
    bound = integral(toy, Masking.over(SYMBOLS, MASK), nodes=32, knows=other)
    assert (bound - other.nats).abs().max() < 1e-4
    assert (bound - toy.nats).abs().max() > 0.5


def subsets(toy, k):
    return toy.masks[toy.masks.sum(1) == k]


def counted_bound(toy):
    """Mean over k = 1..n of n / k times the mean over all subsets of k, through the scorer's own function: (T,)."""
    total, n = torch.zeros(len(toy.texts), dtype=torch.float64), toy.length
    for k in range(1, n + 1):
        for mask in subsets(toy, k):
            where = mask.expand(len(toy.texts), n)
            weights = torch.full(where.shape, n / k, dtype=torch.float64)
            total += masked_nats(Table(toy), toy.batch(toy.texts), where, weights) / (n * len(subsets(toy, k)))
    return total


def test_the_counted_form_is_the_same_bound(toy):
    assert (counted_bound(toy) - toy.nats).abs().max() < 1e-6


@pytest.mark.parametrize("n", [1, 3, 4])
def test_counted_masks_draw_every_count_and_subset_alike(n):
    """At levels spread over (0, 1) each k comes equally often, each subset of k equally often, weighing n / k."""
    rows = 24_000
    scored = torch.tensor([False] + [True] * n + [False]).expand(rows, n + 2)
    levels = (torch.arange(rows).double() + 0.5) / rows
    masks, weights = counted_masks(scored, levels[:, None], seeded(1), torch.zeros(scored.shape, dtype=torch.int64))
    assert not (masks & ~scored).any()
    counts = masks.sum(1)
    assert torch.equal(counts.bincount(minlength=n + 1)[1:], torch.full((n,), rows // n))
    torch.testing.assert_close(weights[:, 0], n / counts)
    code = (masks[:, 1:-1] * 2 ** torch.arange(n)).sum(1)
    for k in range(1, n + 1):
        seen = code[counts == k].bincount()
        seen = seen[seen > 0].double()
        expected = rows / n / len(seen)
        assert ((seen - expected).abs() < 4.5 * expected**0.5).all()


def clamped(toy, process):
    """What training minimises: times below EARLIEST are drawn as EARLIEST."""
    return integral(toy, process, EARLIEST, 1.0) + EARLIEST * integrand(toy, process, EARLIEST, toy.mu(toy.noisy))


def mean_loss(objective, toy, text, seeds, copies=256):
    batch = toy.batch(text.expand(copies, -1))
    losses = [float(objective(Table(toy), batch, seeded(s)).total) / copies for s in range(seeds)]
    return np.mean(losses), np.std(losses, ddof=1) / seeds**0.5


@every_schedule
def test_training_on_independent_masks_has_the_enumerated_mean(schedule):
    toy, process = Toy(4), Masking.over(SYMBOLS, MASK, schedule)
    expected = clamped(toy, process)
    objective = MaskedBound(process, Whole(), masks="independent")
    for text in (toy.joint.argmax(), toy.joint.argmin()):
        mean, error = mean_loss(objective, toy, toy.texts[text], seeds=60)
        assert abs(mean - expected[text].item()) < 4 * error + 1e-4


def test_training_on_counted_masks_has_the_exact_mean_and_less_variance():
    toy, process = Toy(4), Masking.over(SYMBOLS, MASK)
    text = toy.joint.argmin()
    mean, error = mean_loss(MaskedBound(process, masks="counted"), toy, toy.texts[text], seeds=60)
    assert abs(mean - toy.nats[text].item()) < 4 * error + 1e-5
    _, independent = mean_loss(MaskedBound(process, masks="independent"), toy, toy.texts[text], seeds=60)
    assert error < independent


@every_schedule
def test_drawing_times_no_earlier_than_the_earliest_costs_little(toy, schedule):
    process = Masking.over(SYMBOLS, MASK, schedule)
    assert (clamped(toy, process) - integral(toy, process)).abs().max() < 5e-3


def test_an_answer_given_its_prompt_costs_its_conditional(toy):
    """Only the end is scored: the counted bound, enumerated, is -log p(answer | prompt) for every text."""
    start, n = 2, toy.length - 2
    prompt = torch.arange(toy.length) < start
    total = torch.zeros(len(toy.texts), dtype=torch.float64)
    for mask in toy.masks[(~toy.masks[:, prompt].any(1)) & toy.masks.any(1)]:
        k = int(mask.sum())
        ways = sum(1 for m in toy.masks if not m[prompt].any() and m.sum() == k)
        where = mask.expand(len(toy.texts), -1)
        weights = torch.full(where.shape, n / k, dtype=torch.float64)
        total += masked_nats(Table(toy), toy.batch(toy.texts), where, weights) / (n * ways)
    exact = toy.given(toy.texts.masked_fill(~prompt, MASK)) - toy.joint.log()
    assert (total - exact).abs().max() < 1e-6

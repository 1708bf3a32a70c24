"""Score entropy: given the true scores it is the bound and the bound is -log p(x) for every x; both samplers tend to p
as steps grow, also where text is given."""

from itertools import pairwise

import pytest
import torch
from noisy import Bayes, Enumerated, drawn, fitting, leave_one_out, p_value
from toy import MASK, SYMBOLS, Toy

from unmask.decoding.canvas import Row
from unmask.decoding.propose import Proposal
from unmask.decoding.sampler import decode
from unmask.decoding.scores import END, Analytic, Euler, clean
from unmask.decoding.settings import Decoding
from unmask.evaluation.integral import Integral
from unmask.evaluation.likelihood import FixedCount, score_batches
from unmask.methods.sedd import Sedd
from unmask.noise.schedule import Geometric, LogLinear
from unmask.objectives.bound import ScoreEntropy

GRAPHS = ["absorb", "uniform"]
every_graph = pytest.mark.parametrize("graph", GRAPHS)


def noise(graph, schedule=None):
    return Sedd(graph, schedule).noise(SYMBOLS, MASK, [MASK])


@pytest.mark.parametrize("schedule", [LogLinear(), Geometric(low=1e-4)], ids=repr)
@every_graph
def test_score_entropy_is_tight_for_every_text(graph, schedule):
    process = noise(graph, schedule)

    def cost(mu, x0, x, t):
        return process.score_entropy(process.log_score(x, mu, t), x0, x, t)

    all = Enumerated(process, Toy(3))
    assert (all.integral(cost) - (all.divergence(0.0) - all.divergence(1.0))).abs().max() < 1e-4


@every_graph
def test_wrong_scores_cost_more(graph):
    process = noise(graph, LogLinear())

    def cost(mu, x0, x, t):
        return process.score_entropy(process.log_score(x, mu, t) + 0.3, x0, x, t)

    all = Enumerated(process, Toy(2))
    found, exact = all.integral(cost), all.divergence(0.0) - all.divergence(1.0)
    assert (all.toy.joint * (found - exact)).sum() > 0.01


@every_graph
def test_the_score_is_unbiased(graph):
    toy, process, copies = Toy(3), noise(graph, LogLinear()), 100
    all, text = Enumerated(process, toy), toy.joint.argmin()
    expected = all.divergence(0.0) - all.divergence(1.0) + process.prior_nats(toy.texts).sum(1)
    batch = toy.batch(toy.texts[text].expand(copies, -1))
    estimator = Integral(draws=32, bound=lambda denoiser: ScoreEntropy(process))
    scores = [score_batches(Bayes(process, toy), [batch], estimator, seed=s) for s in range(12)]
    means = torch.tensor([s.nats / copies for s in scores], dtype=torch.float64)
    assert abs(means.mean() - expected[text]) < 4 * means.std() / 12**0.5
    assert means.std() / 12**0.5 < 0.01 * expected[text]


def test_through_mu_a_score_model_is_a_masked_one():
    """The scores' own mu under LLaDA's counted masks, which need no schedule."""
    toy, process = Toy(3), noise("absorb", LogLinear())
    batch = toy.batch(toy.texts.repeat_interleave(20, 0))
    score = score_batches(Bayes(process, toy), [batch], FixedCount(draws=8))
    assert abs(score.nats - 20 * toy.nats.sum()) < 4 * score.stderr


@pytest.mark.parametrize("known", [(None, None, None), (1, None, None), (None, 0, None), (None, None, 2)], ids=repr)
@pytest.mark.parametrize("rule", ["euler", "analytic"])
@every_graph
def test_samplers_draw_from_the_data(graph, rule, known):
    """Also with a beginning, a middle or an end given. What they draw from to the last digit: below."""
    toy, process = Toy(3), noise(graph, LogLinear())
    settings = Decoding(rule=rule, temperature=1.0, steps=160 if rule == "euler" else 80)
    texts = drawn(process, toy, settings, list(known), 4000)
    assert p_value(texts, fitting(toy, known)) > 1e-3


def distance(stepper, process, toy, steps):
    """Total variation between the data and what so many steps write, from products of whole transition matrices."""
    noisy = Enumerated(process, toy).noisy
    texts = (noisy < MASK).all(1)
    chance = process.pi.double()[noisy].prod(1)

    def forward(chance, law):
        law = law.nan_to_num(0).clamp(min=0)  # of states that cannot be there is no law
        each = (law / law.sum(-1, keepdim=True).clamp(min=1e-300)).view(*noisy.shape, SYMBOLS)
        every = torch.stack([each[:, l][:, noisy[:, l]] for l in range(toy.length)]).prod(0)  # (from, to)
        return chance @ every

    def score(time):
        mu = leave_one_out(process, toy, noisy, time.expand(noisy.shape)).nan_to_num(-torch.inf)
        return process.log_score(noisy, mu, time.expand(noisy.shape)).exp().flatten(0, 1)

    times = torch.linspace(1, END, steps, dtype=torch.float64)
    at, flat = (lambda time: time.expand(noisy.numel())), noisy.flatten()
    for t, s in pairwise(times):
        chance = forward(chance, stepper.law(process, score(t), flat, at(t), at(s)))
    chance = forward(chance, clean(process, score(times[-1]), flat, at(times[-1])))
    assert abs(chance.sum() - 1) < 1e-9
    return float((chance[texts] - toy.joint).abs().sum() / 2)


@pytest.mark.parametrize("rule", [Euler, Analytic])
@every_graph
def test_their_law_tends_to_the_data_as_steps_grow(graph, rule):
    """Twice the steps, half the distance: the order of both, exactly and for every text at once."""
    toy, process = Toy(3), noise(graph, LogLinear())
    coarse, middle, fine = (distance(rule(Proposal(1.0)), process, toy, steps) for steps in (40, 80, 160))
    assert 1.8 < coarse / middle < 2.6
    assert 1.8 < middle / fine < 2.6
    assert fine < 0.02


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("rule", ["euler", "analytic"])
@every_graph
def test_the_last_pass_leaves_no_noise(graph, rule, steps):
    toy, process = Toy(3), noise(graph)
    for temperature in (0.0, 0.7, 1.0):
        settings = Decoding(rule=rule, temperature=temperature, steps=steps)
        assert (drawn(process, toy, settings, [None] * 3, 200) < MASK).all()


@pytest.mark.parametrize("rule", ["euler", "analytic"])
@every_graph
def test_a_row_is_written_as_if_it_were_alone(graph, rule):
    toy, process = Toy(3), noise(graph)
    settings = Decoding(rule=rule, temperature=1.0, steps=9)
    together = drawn(process, toy, settings, [None, 1, None], 12)

    alone = [decode(Bayes(process, toy), process, [Row.gaps([None, 1, None], s)], settings)[0] for s in range(12)]
    assert [text.tokens for text in alone] == together.tolist()


def test_the_best_answer_has_no_scores_of_its_own():
    """`leave_one_out` under masking is p(x_l | the visible tokens), whatever the time."""
    toy, process = Toy(3), noise("absorb", LogLinear())
    x = torch.tensor([[0, MASK, 2], [MASK, MASK, MASK]])
    for t in (0.2, 0.9):
        times = torch.where(x == MASK, t, 0.0).double()
        open = x == MASK
        torch.testing.assert_close(leave_one_out(process, toy, x, times)[open], toy.mu(x)[open])

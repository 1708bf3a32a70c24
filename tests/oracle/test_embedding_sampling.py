"""Given the true posterior, the reverse process in many small steps draws from p; with a prompt, from p given it."""

import pytest
import torch
from gaussian import oracle
from scipy.stats import chi2

from unmask.decoding.canvas import Row
from unmask.decoding.sampler import decode
from unmask.decoding.settings import Decoding
from unmask.noise.schedule import Cosine, Sqrt

TEXTS = 4000
RULES = {
    "ancestral": {"rule": "ancestral", "temperature": 1.0},
    "ddpm": {"rule": "ddpm", "temperature": 1.0},
    "clamped to draws": {"rule": {"kind": "ddpm", "clamp": True}, "temperature": 1.0},
}


def draws(rows, schedule=None, **settings):
    toy, process, model = oracle(2, schedule or Sqrt())
    done = decode(model, process, rows, Decoding(**settings))
    return toy, torch.tensor([text.canvas for text in done])


def surprise(tokens, toy, expected):
    """The probability of counts as far off as these, were they drawn from expected (T,)."""
    counts = torch.stack([(tokens == text).all(1).sum() for text in toy.texts]).double()
    likely = expected > 0
    assert not counts[~likely].any()
    wanted = expected[likely] * len(tokens)
    return chi2.sf(float(((counts[likely] - wanted).square() / wanted).sum()), int(likely.sum()) - 1)


@pytest.mark.parametrize(
    ("rule", "schedule"),
    [("ancestral", Sqrt()), ("ddpm", Sqrt()), ("ddpm", Cosine()), ("clamped to draws", Sqrt())],
    ids=repr,
)
def test_it_draws_from_the_data(rule, schedule):
    rows = [Row([0, 0], [True, True], seed=i) for i in range(TEXTS)]
    toy, tokens = draws(rows, schedule, steps=120, **RULES[rule])
    assert surprise(tokens, toy, toy.joint) > 1e-3


def test_ddim_adds_no_noise_and_is_near_the_data():
    """Its law is that of the flow it follows: exact in the limit, and the noise it starts from decides everything."""
    rows = [Row([0, 0], [True, True], seed=i) for i in range(TEXTS)]
    toy, tokens = draws(rows, steps=120, rule="ddim")
    counts = torch.stack([(tokens == text).all(1).sum() for text in toy.texts]).double()
    assert (counts / TEXTS - toy.joint).abs().sum() / 2 < 0.04
    assert torch.equal(tokens, draws(rows, steps=120, rule="ddim", temperature=1.0)[1])


def test_a_prompt_is_a_condition():
    rows = [Row([1, 0], [False, True], seed=i) for i in range(TEXTS)]
    toy, tokens = draws(rows, steps=120, **RULES["ddpm"])
    expected = toy.joint * (toy.texts[:, 0] == 1)
    assert surprise(tokens, toy, expected / expected.sum()) > 1e-3


@pytest.mark.parametrize("rule", ["entropy", "random"])
def test_policies_made_for_masks_draw_from_the_data_too(rule):
    """One token a step: what is written is a clean embedding for what is not yet."""
    rows = [Row([0, 0], [True, True], seed=i) for i in range(TEXTS)]
    toy, tokens = draws(rows, steps=2, rule=rule, temperature=1.0)
    assert surprise(tokens, toy, toy.joint) > 1e-3

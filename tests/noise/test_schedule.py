"""Every schedule falls from one to zero (or nearly), its slope is its derivative and its inverse leads back."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.noise.schedule import (
    Cosine,
    Exponential,
    Geometric,
    Linear,
    Logarithmic,
    LogLinear,
    LogUniform,
    Polynomial,
    Sine,
    Sqrt,
    Within,
)
from unmask.noise.tokens import Masking

SCHEDULES = [
    Linear(), Cosine(), Cosine(2.0), Sine(), Polynomial(), Polynomial(0.5), LogLinear(), Geometric(), Sqrt(),
    Exponential(), Logarithmic(), LogUniform(), Within(Cosine(), 0.99, 1e-3),
]  # fmt: skip
ENDS = {  # where not (1, 0)
    LogLinear: (1.0, 1e-3),
    Geometric: (0.99900, 2.061e-9),
    Sqrt: (0.99, 0.0),
    Exponential: (1.0, 4.53999298e-5),
    LogUniform: (0.999, 0.0),
    Within: (0.99, 1e-3),
}
every = pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
few = settings(max_examples=60, deadline=None)
inside = st.floats(0.001, 0.999)


def at(t):
    return torch.tensor([t], dtype=torch.float64)


@every
@few
@given(a=st.floats(0, 1), b=st.floats(0, 1))
def test_alpha_never_rises(schedule, a, b):
    early, late = schedule.alpha(at(min(a, b))), schedule.alpha(at(max(a, b)))
    assert late <= early
    assert late >= 0
    assert early <= 1


@every
def test_the_ends(schedule):
    first, last = ENDS.get(type(schedule), (1.0, 0.0))
    assert schedule.alpha(at(0.0)).item() == pytest.approx(first, abs=1e-6)
    assert schedule.alpha(at(1.0)).item() == pytest.approx(last, abs=1e-10)


@every
@few
@given(t=inside)
def test_slope_is_the_derivative(schedule, t):
    step = 1e-6
    rise = (schedule.alpha(at(t + step)) - schedule.alpha(at(t - step))) / (2 * step)
    torch.testing.assert_close(schedule.slope(at(t)), rise, rtol=1e-4, atol=1e-6)
    assert schedule.slope(at(t)) <= 0


@every
@few
@given(t=inside)
def test_time_is_the_inverse(schedule, t):
    torch.testing.assert_close(schedule.alpha(schedule.time(schedule.alpha(at(t)))), schedule.alpha(at(t)))
    if schedule.alpha(at(t)) > 1e-6:  # below, t itself is lost in rounding
        torch.testing.assert_close(schedule.time(schedule.alpha(at(t))), at(t), rtol=1e-6, atol=1e-6)


@every
def test_shapes_and_precision_are_kept(schedule):
    t = torch.rand(2, 3, generator=torch.Generator().manual_seed(0))
    for method in (schedule.alpha, schedule.slope, schedule.time):
        assert method(t).shape == t.shape
        assert method(t).dtype == torch.float32
        assert method(t.double()).dtype == torch.float64


def test_a_log_uniform_schedule_weighs_every_masked_token_alike():
    weight = Masking.over(4, 3, LogUniform(0.01)).weight(torch.linspace(0, 1, 9))
    torch.testing.assert_close(weight, torch.full_like(weight, 4.605170))  # - log 0.01


def test_log_linear_is_a_line_that_stops_short():
    t = torch.linspace(0, 1, 9).double()
    torch.testing.assert_close(Within(Linear(), last=0.01).alpha(t), LogLinear(0.01).alpha(t))
    torch.testing.assert_close(Within(Linear(), last=0.01).slope(t), LogLinear(0.01).slope(t))

"""What is drafted is what pays: at any price, with any luck."""

import random

import pytest

from unmask.decoding.branches import Plan
from unmask.decoding.budget import Thrift, Whole


def run(budget, chance, cycles=400, seed=0):
    """Cycles in which a draft stays with this chance -> seconds a token, and the plans of the later half."""
    rng, sure, plans, seconds, tokens = random.Random(seed), [], [], 0.0, 0
    for cycle in range(cycles):
        plan = budget.plan([sure])
        stayed = next((i for i in range(plan.checked) if rng.random() > chance), plan.checked)
        budget.learn(plan, [sure], [stayed])
        sure = [chance] * plan.guesses[stayed]
        if cycle >= cycles // 2:
            plans.append(plan)
            seconds, tokens = seconds + budget.base + budget.slope * plan.queries, tokens + stayed + 1
    return seconds / tokens, plans


def test_free_tokens_are_all_fed_and_dear_ones_are_not():
    plan = Thrift(6, 1.0, 0.0).plan([[0.9] * 5])
    assert plan == Whole(6).plan([[0.9] * 5]) == Plan(5, (6,) * 6)
    assert plan.queries == 1 + 5 + 36
    _, plans = run(Thrift(6, 0.0, 1.0), 0.9)
    assert all(plan.queries == 1 for plan in plans)


@pytest.mark.parametrize("chance", [0.02, 0.4, 0.7, 0.95])
@pytest.mark.parametrize("slope", [0.002, 0.02, 0.1])
def test_it_costs_no_more_than_fixed_plans(chance, slope):
    """Against no drafts at all, and every draft and every block of any size: hardly worse than the best of them where
    trying is in vain, and far better where it is not."""
    took, _ = run(Thrift(8, 1.0, slope), chance)
    alone, fixed = 1.0 + slope, []
    for size in range(2, 9):
        drafts = sum(chance**i for i in range(1, size))
        fixed.append((1.0 + slope * Whole(size).plan([[1.0] * (size - 1)]).queries) / (1 + drafts))
    assert took < 1.15 * min(alone, *fixed)
    if chance == 0.95 and slope > 0.01:
        assert took < 0.8 * min(alone, *fixed)


def test_what_is_sure_gets_one_block_and_what_is_not_gets_several():
    budget = Thrift(8, 1.0, 0.02)
    certain, doubtful = budget.plan([[0.99] * 7]), budget.plan([[0.3] * 7])
    assert certain.checked == 7
    assert certain.masks[-1] == max(certain.masks)
    assert doubtful.checked < 7
    assert doubtful.masks[0] > 0


def test_rows_share_a_plan():
    budget = Thrift(4, 1.0, 0.05)
    plan = budget.plan([[0.9, 0.9, 0.9], [0.0, 0.0, 0.0]])
    assert plan.masks[0] > 0
    assert budget.plan([[], []]).checked == 0

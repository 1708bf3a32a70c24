"""What is drafted is what pays: at any price, with any luck."""

import random

import pytest

from unmask.decoding.branches import Plan
from unmask.decoding.budget import BINS, NONE, Thrift, Whole, by_chance, by_match, is_looked_up


def run(budget, chance, cycles=400, seed=0):
    """Cycles in which a draft stays with this chance -> seconds a token, and the plans of the later half."""
    rng, sorts, plans, seconds, tokens = random.Random(seed), [], [], 0.0, 0
    for cycle in range(cycles):
        plan = budget.plan([sorts])
        stayed = next((i for i in range(plan.checked) if rng.random() > chance), plan.checked)
        budget.learn(plan, [sorts], [stayed])
        sorts = [by_chance(chance)] * plan.guesses[stayed]
        if cycle >= cycles // 2:
            plans.append(plan)
            seconds, tokens = seconds + budget.base + budget.slope * plan.queries, tokens + stayed + 1
    return seconds / tokens, plans


def test_free_tokens_are_all_fed_and_dear_ones_are_not():
    plan = Thrift(6, 1.0, 0.0).plan([[by_chance(0.9)] * 5])
    assert plan == Whole(6).plan([[by_chance(0.9)] * 5]) == Plan(5, (6,) * 6)
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
    certain, doubtful = budget.plan([[by_chance(0.99)] * 7]), budget.plan([[by_chance(0.3)] * 7])
    assert certain.checked == 7
    assert certain.masks[-1] == max(certain.masks)
    assert doubtful.checked < 7
    assert doubtful.masks[0] > 0


def test_rows_share_a_plan():
    budget = Thrift(4, 1.0, 0.05)
    plan = budget.plan([[by_chance(0.9)] * 3, [NONE] * 3])
    assert plan.masks[0] > 0
    assert budget.plan([[], []]).checked == 0


def test_every_guess_has_a_sort():
    drafted = [by_chance(i / 1000) for i in range(1001)]
    found = [by_match(length) for length in range(1, 100)]
    assert sorted(drafted) == drafted
    assert sorted(found) == found
    assert {*drafted, *found} == set(range(2 * BINS))
    assert not any(map(is_looked_up, [NONE, *drafted]))
    assert all(map(is_looked_up, found))


@pytest.mark.parametrize("stays", [True, False])
def test_guesses_that_are_looked_up_are_checked_where_they_stay(stays):
    """Where they do, the model drafts less; where they do not, its own drafts are preferred again."""
    budget, found, own = Thrift(8, 1.0, 0.05), [by_match(3 + i) for i in range(20)], [by_chance(0.6)] * 3
    for _ in range(300):
        sorts = found if budget.better(found, own) else own
        plan = budget.plan([sorts])
        budget.learn(plan, [sorts], [min(plan.checked, 1 if sorts is own else 99 if stays else 0)])
    assert bool(budget.better(found, own)) == stays
    assert budget.better([], own) == budget.better([], []) == []
    plan = budget.plan([found])
    assert plan.queries <= budget.most
    if stays:
        assert plan.checked > 10
        assert sum(plan.masks) < 3
    else:
        assert budget.plan([own]).checked >= 1

"""Variety by hand-counted examples."""

import math

import pytest

from unmask.evaluation.samples import Variety, distinct, entropy, repeats


def test_entropy_is_that_of_the_texts_own_frequencies():
    assert entropy([7, 7, 8, 8]) == pytest.approx(math.log(2))
    assert entropy([5, 5, 5]) == 0
    assert entropy(range(10)) == pytest.approx(math.log(10)), "the most that ten tokens can have"
    assert entropy([]) == 0


def test_distinct_counts_pairs():
    assert distinct([1, 2, 1, 2, 1]) == 2 / 4
    assert distinct([1, 2, 3]) == 1
    assert distinct([1, 1, 1, 1], n=3) == 1 / 2
    assert math.isnan(distinct([1]))


def test_repeats_counts_tokens_said_twice_in_a_row():
    assert repeats([4, 4, 5, 4]) == 1 / 3
    assert repeats([1, 2, 1, 2]) == 0
    assert math.isnan(repeats([1]))


def test_variety_is_a_mean_over_texts_that_have_one():
    found = Variety.of([[1, 1, 1], [1, 2, 3], [9]])
    assert found.entropy == pytest.approx((0 + math.log(3) + 0) / 3)
    assert found.distinct == pytest.approx((1 / 2 + 1) / 2), "a single token has no pairs, and is left out"
    assert found.repeats == pytest.approx((1 + 0) / 2)

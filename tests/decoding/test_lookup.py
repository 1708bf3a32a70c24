"""A guess is what followed the longest ending that the text had before, where it had it last."""

from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.decoding.lookup import LONGEST, Lookup


def slowly(text, most):
    """The same by looking everywhere."""
    for n in range(min(LONGEST, len(text)), 0, -1):
        for place in range(len(text) - 1, n - 1, -1):
            if text[place - n : place] == text[-n:]:
                grown = list(text)
                for i in range(most):
                    grown.append(grown[place + i])
                return grown[len(text) :], n
    return [], 0


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), max_size=9), max_size=5), st.integers(1, 30))
def test_the_longest_ending_where_it_last_stood(parts, most):
    lookup, text = Lookup(), []
    for part in parts:
        lookup.read(part)
        text += part
        assert lookup.guess(most) == slowly(text, most)


def test_nothing_is_guessed_where_nothing_is_known_or_wanted():
    assert Lookup().guess(3) == ([], 0)
    assert Lookup([1, 2, 3]).guess(3) == ([], 0)
    assert Lookup([1, 2, 1]).guess(0) == Lookup([1, 2, 1]).guess(-1) == ([], 0)


def test_what_is_repeated_is_guessed_to_go_on():
    assert Lookup([7, 1, 2, 1, 2]).guess(5) == ([1, 2, 1, 2, 1], 2)

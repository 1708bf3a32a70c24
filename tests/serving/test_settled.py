"""What a client has been given is never taken back, and does not depend on the portions in which tokens settle."""

from hypothesis import given
from hypothesis import strategies as st

from unmask.serving.settled import Settled, beginning_of, stop_in

LETTERS = st.text(alphabet="abé€😀", max_size=12)
STOPS = st.lists(st.text(alphabet="abé", min_size=1, max_size=4), max_size=3)


def spell(tokens):
    """One token a byte."""
    return bytes(tokens).decode("utf-8", "replace")


@given(LETTERS, STOPS, st.lists(st.integers(0, 40)))
def test_portions_add_up_to_the_text(text, stops, cuts):
    tokens = list(text.encode())
    whole = Settled(spell, stops)
    whole.grow(tokens, last=True)
    settled, given = Settled(spell, stops), ""
    for cut in sorted(cuts):
        given += settled.grow(tokens[:cut])
        assert whole.text.startswith(given)
        assert "\ufffd" not in given
    given += settled.grow(tokens, last=True)
    assert given == settled.text == whole.text
    assert settled.stopped == whole.stopped == any(stop in text for stop in stops)


@given(st.lists(st.integers(0, 255), max_size=12), st.lists(st.integers(0, 12)))
def test_bytes_that_are_no_text_come_too(tokens, cuts):
    settled = Settled(spell)
    given = "".join(settled.grow(tokens[:cut]) for cut in sorted(cuts))
    assert given + settled.grow(tokens, last=True) == spell(tokens)


def test_the_stop_that_is_complete_first_counts():
    assert stop_in("abcd", ["abcd", "bc"]) == 1
    assert stop_in("abc", ["abc", "bc"]) == 0
    assert stop_in("xyz", ["a"]) is None


def test_what_may_begin_a_stop_is_held_back():
    settled = Settled(spell, ["END"])
    assert settled.grow(list(b"say E")) == "say "
    assert settled.grow(list(b"say EN")) == ""
    assert settled.grow(list(b"say ENT")) == "ENT"
    assert beginning_of("xEN", ["END", "Nx"]) == 2

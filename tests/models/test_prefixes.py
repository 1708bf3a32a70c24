"""What is kept of beginnings: found by what they are, bounded, the oldest gone first and a text's end before its
beginning; and a unit's keys and values are the same to the last bit however much is fed beside it."""

import pytest
import torch
from small import SWITCHES, network, text

from unmask.models.attention import BlockCausal, Causal
from unmask.models.cache import unit_of
from unmask.models.prefixes import Prefixes

UNIT = 4
TIMELESS = {name: one for name, one in SWITCHES.items() if one.get("time") != "adaln"}


def part(slots):
    """Says which stretch it was made for."""
    return [(torch.full((1, slots.stop - slots.start, 2), float(slots.start)), torch.zeros(1, 4, 2))]


def starts(units):
    return [int(unit[0][0][0, 0, 0]) for unit in units]


def test_a_beginning_is_found_as_far_as_it_goes():
    kept = Prefixes(100)
    kept.keep(list(range(14)), UNIT, part)
    assert kept.kept == 12, "whole units"
    assert starts(kept.find(list(range(14)), UNIT)) == [0, 4, 8]
    assert starts(kept.find([*range(9), 77, 78, 79, 80], UNIT)) == [0, 4]
    assert kept.find([77, *range(1, 14)], UNIT) == []
    assert kept.find([4, 5, 6, 7, 8, 9, 10, 11], UNIT) == [], "a unit is what stands before it, too"
    assert (kept.sought, kept.found) == (12 + 12 + 12 + 8, 12 + 8)


def test_no_more_is_kept_than_was_allowed():
    kept = Prefixes(10)
    kept.keep(list(range(40)), UNIT, part)
    assert kept.kept == 8
    assert starts(kept.find(list(range(40)), UNIT)) == [0, 4], "of a long text its beginning"
    none = Prefixes(0)
    none.keep(list(range(40)), UNIT, part)
    assert (none.kept, none.find(list(range(40)), UNIT)) == (0, [])


def test_what_was_needed_longest_ago_goes_and_a_texts_end_before_its_beginning():
    kept = Prefixes(16)
    old, stem = [50] * 8, [*range(4)]
    kept.keep(old, UNIT, part)
    kept.keep([*stem, *[60] * 4], UNIT, part)
    assert len(kept.find(old, UNIT)) == 2, "needed again"
    kept.keep([*stem, *[70] * 4], UNIT, part)
    assert kept.kept == 16
    assert len(kept.find([*stem, *[60] * 4], UNIT)) == 1, "the end of the text that nobody has asked for since"
    assert len(kept.find([*stem, *[70] * 4], UNIT)) == 2
    assert len(kept.find(old, UNIT)) == 2
    kept.keep([80] * 16, UNIT, part)
    assert kept.kept == 16
    assert kept.find(old, UNIT) == kept.find(stem, UNIT) == []


def test_nothing_is_made_twice():
    kept, made = Prefixes(100), []

    def noted(slots):
        made.append(slots.start)
        return part(slots)

    for tail in (5, 6, 5):
        kept.keep([*range(8), *[tail] * 4], UNIT, noted)
    assert made == [0, 4, 8, 8]


@pytest.mark.parametrize("rule", [Causal(), BlockCausal(4), BlockCausal(24)], ids=str)
@pytest.mark.parametrize("switches", TIMELESS.values(), ids=TIMELESS)
@torch.no_grad()
def test_a_unit_is_the_same_to_the_last_bit_whatever_is_fed_beside_it(switches, rule):
    """All at once, unit by unit, and from what another text has left."""
    size = 1 if isinstance(rule, Causal) else rule.size
    unit = unit_of(size)
    length = 3 * unit + size
    model, x = network(**{"context": length} | switches), text(rows=2, length=length)
    at = torch.arange(length)
    whole, bit_by_bit, lent = (model.cache(2, length) for _ in range(3))
    last = (at >= 3 * unit).expand(x.shape)
    said = model(x, None, rule, where=last, cache=whole)
    for start in range(0, length, unit):
        feed = ((at >= start) & (at < start + unit)).expand(x.shape)
        again = model(x, None, rule, where=feed & last, cache=bit_by_bit, feed=feed)
    assert torch.equal(said, again)
    for a, b in zip(whole.layers, bit_by_bit.layers):
        assert torch.equal(a.keys, b.keys)
        assert torch.equal(a.values, b.values)
    for row in range(2):
        lent.put(row, slice(0, 2 * unit), whole.part(row, slice(0, 2 * unit)))
    feed = (at >= 2 * unit).expand(x.shape)
    assert torch.equal(model(x, None, rule, where=last, cache=lent, feed=feed), said)

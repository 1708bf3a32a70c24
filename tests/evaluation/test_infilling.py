"""Which stretches are taken, what is cut out of them, and what counts as right."""

from collections import Counter

import pytest
from untrained import reader

from unmask.data.store import TokenStore
from unmask.decoding.settings import Decoding
from unmask.denoiser import Denoiser, NextToken
from unmask.errors import UserError
from unmask.evaluation.infilling import Filled, Gap, fill, gaps, stretches
from unmask.evaluation.subject import Subject
from unmask.models.attention import Causal
from unmask.noise.tokens import Masking

SIZES = (3, 9, 5, 40, 6)
DOCUMENTS = [[100 * d + i for i in range(size)] for d, size in enumerate(SIZES)]
STORE = TokenStore.from_documents(DOCUMENTS)


@pytest.mark.parametrize("length", [1, 5, 6, 40])
def test_stretches_lie_in_one_document_each(length):
    for found in stretches(STORE, length, n=50, seed=1):
        assert len(found) == length
        assert found == list(range(found[0], found[0] + length)), "consecutive tokens of a single document"


def test_every_stretch_is_as_likely():
    """Document 1 has 4 places for six tokens, document 3 has 35, document 4 one."""
    found = Counter(s[0] // 100 for s in stretches(STORE, 6, n=400, seed=3))
    assert {d: n / 10 for d, n in found.items()} == pytest.approx({1: 4, 3: 35, 4: 1}, abs=0.11)
    assert stretches(STORE, 6, 7, seed=3) == stretches(STORE, 6, 7, seed=3)


def test_no_document_is_long_enough():
    with pytest.raises(UserError, match="no held-out document has 41 tokens"):
        stretches(STORE, 41, 1, seed=0)


def test_a_gap_is_in_the_middle():
    for gap in gaps(STORE, n=4, size=3, length=9):
        assert (gap.start, gap.end, len(gap.tokens)) == (3, 6, 9)
        assert gap.row.open == [False] * 3 + [True] * 3 + [False] * 3
        assert [t for t, open in zip(gap.row.tokens, gap.row.open) if open] == [0, 0, 0], "the truth is not handed on"
    with pytest.raises(UserError, match="gap_tokens=9"):
        gaps(STORE, n=1, size=9, length=9)


def test_what_is_right_and_what_the_judge_reads():
    gap = Gap([1, 2, 3, 4, 5, 6], 2, 4)
    half, whole = Filled(gap, [3, 9]), Filled(gap, [3, 4])
    assert (half.right, half.exact) == (0.5, False)
    assert (whole.right, whole.exact) == (1.0, True)
    ours, true = half.pairs
    assert ours == ([1, 2], [3, 9, 5, 6]), "what follows the gap is judged too: it must fit"
    assert true == ([1, 2], [3, 4, 5, 6])


def subject(**parts) -> Subject:
    net, spelling = reader(context=24)
    denoiser = Denoiser(net, mask_id=spelling.mask_id, **parts)
    noise = Masking.over(len(spelling), spelling.mask_id)
    return Subject(denoiser, noise, spelling, Decoding(rule="confidence", temperature=1.0), batch=3)


def test_gaps_are_filled_and_the_rest_is_kept():
    cut = [Gap([(7 * i + j) % 200 for j in range(10)], 4, 7) for i in range(5)]
    done = fill(subject(), cut)
    assert [f.gap for f in done] == cut, "in the order they were given, whatever the batches"
    assert all(len(f.wrote) == 3 for f in done)
    assert [f.wrote for f in fill(subject(), cut)] == [f.wrote for f in done], "greedily"


def test_what_sees_one_side_only_says_so():
    with pytest.raises(UserError, match="infilling"):
        fill(subject(rule=Causal(), head=NextToken(0)), [Gap([1, 2, 3], 1, 2)])

"""Rows that speculate, as those see them who watch: what stands, what is guessed, what is still open."""

from __future__ import annotations

import pytest
from stand_ins import MASK
from test_batch import MASKING, joint

from unmask.decoding.canvas import Row
from unmask.decoding.outcome import Event, Frame
from unmask.decoding.sampler import Sampler
from unmask.decoding.settings import Decoding

ROWS = [Row.after([1, 2, 3], 17, 5), Row.after([], 9, 6), Row.after([4], 1, 7), Row.after([4], 0, 8)]


@pytest.mark.parametrize(
    "said", [{}, {"block": 4}, {"temperature": 1.0, "block": 4}, {"eos_id": 8, "block": 4}], ids=str
)
def test_every_pass_is_shown(said: dict) -> None:
    story: list[Event] = []
    settings = Decoding(rule="self_speculation", **said)
    texts = Sampler(joint(), MASKING, settings, story.append)(ROWS)
    guessed = 0
    for number, (row, text) in enumerate(zip(ROWS, texts)):
        frames = [frame for event in story for frame in event.frames if frame.row == number]
        assert [frame.step for frame in frames] == list(range(text.counts.forwards))
        for frame in frames:
            guessed += check(frame, row, text.canvas, text.settled_at)
        if frames:
            assert not any(frames[-1].open)
            assert frames[-1].tokens == text.canvas
            assert frames[-1].confidence == pytest.approx(text.confidence)
    assert guessed or "block" not in said, "how much is guessed may be a matter of time"


def check(frame: Frame, row: Row, canvas: list[int], settled_at: list[int]) -> int:
    """How many guesses it shows. What stands is what stands in the end; behind it are guesses, then masks."""
    assert len(frame.tokens) == len(frame.open) == len(frame.settled) == len(frame.confidence) == len(row.tokens)
    stands = frame.open.index(True) if any(frame.open) else len(frame.open)
    assert not any(frame.open[:stands])
    assert all(frame.open[stands:])
    assert frame.tokens[:stands] == canvas[:stands]
    assert frame.settled == [at == frame.step for at in settled_at]
    guesses = [token for token in frame.tokens[stands:] if token != MASK]
    assert frame.tokens[stands + len(guesses) :] == [MASK] * (len(row.tokens) - stands - len(guesses))
    assert [p > 0 for p in frame.confidence] == [token != MASK for token in frame.tokens]
    return len(guesses)

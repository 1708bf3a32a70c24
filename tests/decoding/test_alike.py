"""A prompt that begins as another did costs less, and its text is the same to the last bit."""

from __future__ import annotations

import random
from typing import Any

import pytest
from stand_ins import MASK, network
from test_batch import MASKING, forward, in_blocks, joint, masked, timed
from test_sampler import bare

from unmask.decoding.batch import Batch
from unmask.decoding.canvas import Row
from unmask.decoding.sampler import Decoded, decode
from unmask.decoding.settings import Decoding
from unmask.denoiser import Denoiser, ShiftedLogits
from unmask.models.attention import BlockCausal
from unmask.models.cache import UNIT
from unmask.models.prefixes import Prefixes

STEM = [random.Random(0).randrange(MASK) for _ in range(3 * UNIT)]


def shifted() -> Denoiser:
    return Denoiser(network(6), mask_id=MASK, rule=BlockCausal(8), head=ShiftedLogits())


def through(model: Denoiser, prefixes: Prefixes, row: Row, settings: Decoding) -> Decoded:
    batch = Batch(model, MASKING, prefixes=prefixes)
    batch.join(row, settings)
    done: dict[int, Decoded] = {}
    while len(batch):
        done |= batch.step().done
    return done[0]


def same(text: Decoded, alone: Decoded) -> bool:
    """In all but what it cost."""
    *mine, (passes, _, written), exact = bare(text)
    *other, (most, _, wrote), whole = bare(alone)
    return (mine, passes, written, exact) == (other, most, wrote, whole)


CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "blocks": (in_blocks, {"temperature": 1.0}),
    "threshold": (in_blocks, {"threshold": 0.4}),
    "shifted": (shifted, {"temperature": 1.0}),
    "left to right": (forward, {"temperature": 1.0}),
    "joint": (joint, {"rule": "left_to_right"}),
    "guided": (in_blocks, {"guidance": 1.0}),
    "growing": (in_blocks, {"temperature": 1.0, "grow": {"kind": "blocks", "piece": 4}}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_text_is_the_same_with_what_others_have_left(case: str) -> None:
    """To the last bit, and what was found was not fed again: two units are common, or all that stand before the first
    output that is wanted."""
    model, prefixes = CASES[case][0](), Prefixes(10**6)
    settings, views = Decoding(**CASES[case][1]), 2 if case == "guided" else 1
    before = 2 * UNIT if case == "shifted" else 3 * UNIT  # its first output stands within the prompt
    blind = before if case == "guided" else 0  # masks, whatever the prompt
    prompts = {  # and how many positions of each are known by then
        (*STEM,): 0,
        (*STEM[: 2 * UNIT], 1, 2, 3): 2 * UNIT + min(blind, 2 * UNIT),
        (*STEM, 5): views * 3 * UNIT if case != "shifted" else 2 * UNIT,
        (7, *STEM): blind,
        (*STEM[: UNIT - 1],): 0,
    }
    for seed, (prompt, known) in enumerate(prompts.items()):
        row, found = Row.after(prompt, 9, seed), prefixes.found
        text, alone = through(model, prefixes, row, settings), decode(model, MASKING, [row], settings)[0]
        assert same(text, alone)
        assert prefixes.found - found == known == alone.counts.queries - text.counts.queries


@pytest.mark.parametrize("case", range(20))
def test_whatever_was_kept_and_forgotten_meanwhile(case: int) -> None:
    """Rows that join at any time, their prompts of a few stems, with little room for what they leave."""
    rng = random.Random(case)
    model = [in_blocks, forward][case % 2]()
    prefixes = Prefixes(rng.choice([0, UNIT, 3 * UNIT, 100 * UNIT]))
    stems = [[rng.randrange(MASK) for _ in range(2 * UNIT + 9)] for _ in range(2)]
    batch, alone, done = Batch(model, MASKING, prefixes=prefixes), {}, {}
    for _ in range(6):
        prompt = [*rng.choice(stems)[: rng.randrange(2 * UNIT + 9)], *[rng.randrange(MASK)] * rng.randrange(5)]
        row, settings = Row.after(prompt, rng.randrange(1, 6), case), Decoding(temperature=rng.choice([0.0, 1.0]))
        (alone[batch.join(row, settings)],) = decode(model, MASKING, [row], settings)
        for _ in range(rng.randrange(4)):
            done |= batch.step().done
        assert prefixes.kept <= prefixes.most
    while len(batch):
        done |= batch.step().done
    assert all(same(done[ticket], text) for ticket, text in alone.items())


@pytest.mark.parametrize("model", [masked, timed])
def test_a_model_that_looks_ahead_leaves_nothing(model: Any) -> None:
    prefixes = Prefixes(10**6)
    through(model(), prefixes, Row.after(STEM, 4), Decoding(cache="dual"))
    assert (prefixes.kept, prefixes.sought) == (0, 0)


def test_nor_does_one_that_is_told_the_noise() -> None:
    shape: dict[str, Any] = {"time": "adaln", "time_width": 16, "norm": "layer"}
    prefixes = Prefixes(10**6)
    told = Denoiser(network(3, **shape), mask_id=MASK, rule=BlockCausal(4))
    through(told, prefixes, Row.after(STEM, 4), Decoding())
    assert prefixes.kept == 0

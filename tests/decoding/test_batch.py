"""A row in a batch is the row alone, to the last bit, whoever joins or leaves beside it; a step is one pass for all."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from stand_ins import MASK, VOCAB, network
from test_sampler import bare, some_prompt, some_row

from unmask.decoding.batch import Batch, NoRoom
from unmask.decoding.canvas import Row
from unmask.decoding.sampler import Decoded, Frame, decode
from unmask.decoding.select import BLIND, LOOKING
from unmask.decoding.settings import Decoding
from unmask.denoiser import CleanLogits, Denoiser, NextToken, NextTokenOrBlock, ShiftedLogits
from unmask.errors import UserError
from unmask.layout import Whole
from unmask.models.attention import BlockCausal, Causal, CausalContext
from unmask.noise.tokens import Masking

MASKING = Masking.over(VOCAB, MASK)
CASES, POOL = 500, 40
EVERY_DAY = 60  # cases that run with every test


@cache
def masked() -> Denoiser:
    return Denoiser(network(), mask_id=MASK, rule=Whole().rule)


@cache
def timed() -> Denoiser:
    shape: dict[str, Any] = {"time": "adaln", "time_width": 16, "norm": "layer", "kv_heads": 1}
    return Denoiser(network(3, **shape), mask_id=MASK, rule=Whole().rule, head=ShiftedLogits())


@cache
def in_blocks() -> Denoiser:
    return Denoiser(network(4, kv_heads=1), mask_id=MASK, rule=BlockCausal(4), head=CleanLogits())


@cache
def forward() -> Denoiser:
    return Denoiser(network(1), mask_id=MASK, rule=Causal(), head=NextToken(0))


@cache
def joint() -> Denoiser:
    return Denoiser(network(5), mask_id=MASK, rule=CausalContext(4), head=NextTokenOrBlock(0))


def usual(rng: random.Random) -> dict[str, Any]:
    return {
        "temperature": rng.choice([0.0, 1.0, 0.7]),
        "top_p": rng.choice([1.0, 0.8]),
        "eos_id": rng.choice([None, 3]),
        "ban": rng.choice([(), (5,)]),
    }


def free(rng: random.Random) -> dict[str, Any]:
    """What a model that sees the whole text may be told."""
    rule = rng.choice([*LOOKING, *BLIND, "ancestral", "remdm_cap", "first_hitting"])
    ranks = rule in LOOKING
    count = rng.choice([{}, {"threshold": 0.4}, {"quota": "entropy_bound"}, {"quota": {"kind": "stable", "kl": 0.3}}])
    more = {"revise": rng.choice([None, {"kind": "edit", "threshold": 0.2}])} if ranks else {}
    return {
        **usual(rng),
        **(count if ranks else {}),
        **more,
        "rule": rule,
        "steps": rng.choice([None, 2, 5]),
        "block": rng.choice([None, 2, 4]),
        "guidance": rng.choice([0.0, 0.0, 1.0]),
        "cache": rng.choice([None, None, "prefix", "dual", "delayed", "interval"]),
    }


def of_blocks(rng: random.Random) -> dict[str, Any]:
    rule = rng.choice(["confidence", "entropy", "random", "ancestral"])
    count = {"threshold": rng.choice([None, 0.4])} if rule == "confidence" else {}
    guided = {"guidance": rng.choice([0.0, 0.0, 1.0]), "cache": rng.choice([None, None, "none"])}
    return {**usual(rng), **count, **guided, "rule": rule, "block_steps": rng.choice([1, 2, 4])}


def of_both(rng: random.Random) -> dict[str, Any]:
    rule = rng.choice(["left_to_right", "self_speculation", "confidence"])
    drafts = {"block": 4} if rule == "self_speculation" else {}
    return {**usual(rng), **drafts, "rule": rule, "ban": ()}


MODELS: dict[str, tuple[Callable[[], Denoiser], Callable[[random.Random], Row], Callable[[random.Random], Any]]] = {
    "masked": (masked, some_row, free),
    "timed": (timed, some_row, free),
    "in blocks": (in_blocks, some_prompt, of_blocks),
    "forward": (forward, some_prompt, usual),
    "joint": (joint, some_prompt, of_both),
}


@cache
def written_alone(name: str, case: int) -> tuple[Row, Decoding, Decoded]:
    """Settings come back in several cases, so that some rows of a batch share theirs."""
    model, row, settings = MODELS[name]
    rng = random.Random(f"{name} {case}")
    one, how = row(rng), Decoding(**settings(random.Random(f"{name} {case % (POOL // 3)}")))
    (alone,) = decode(model(), MASKING, [one], how)
    return one, how, alone


def some_cases() -> list[Any]:
    return [pytest.param(case, marks=[pytest.mark.thorough] if case >= EVERY_DAY else []) for case in range(CASES)]


@pytest.mark.parametrize("case", some_cases())
def test_a_row_in_a_batch_is_the_row_alone(case: int) -> None:
    """One to sixteen rows; each joins at some step, and one in six leaves at some other before it is done."""
    rng, name = random.Random(case), list(MODELS)[case % len(MODELS)]
    batch = Batch(MODELS[name][0](), MASKING)
    coming = [(rng.randrange(6), written_alone(name, rng.randrange(POOL))) for _ in range(rng.randint(1, 16))]
    expected: dict[int, Decoded] = {}
    going: dict[int, int] = {}
    done: dict[int, Decoded] = {}
    for at in range(200):
        for row, settings, alone in [one for when, one in coming if when == at]:
            ticket = batch.join(row, settings)
            expected[ticket] = alone
            if rng.random() < 1 / 6:
                going[ticket] = at + rng.randrange(5)
        for ticket in [ticket for ticket, when in going.items() if when == at]:
            batch.leave(ticket)
        rows = len(batch)
        step = batch.step()
        assert len(batch) == rows - len(step.done)
        assert step.counts.forwards <= (1 if name != "joint" else rows)
        done |= step.done
        if at > 5 and not len(batch):
            break
    assert batch.slots_taken == 0, "all memory is given back"
    assert set(expected) - set(done) <= set(going)
    for ticket, text in done.items():
        assert bare(text) == bare(expected[ticket])
        assert text.drafts == expected[ticket].drafts


def test_a_step_is_one_pass_for_all() -> None:
    """Rules, caches, guidance and lengths differ: there are as many passes as the longest row alone needs."""
    batch = Batch(masked(), MASKING)
    ways: list[dict[str, Any]] = [{}, {"cache": "dual", "block": 3}, {"guidance": 1.0}, {"rule": "random", "steps": 2}]
    rows = [Row.after([1, 2], 5, 1), Row.after([3], 7, 2), Row.gaps([None, 4, None], 3), Row.after([5], 9, 4)]
    tickets = [batch.join(row, Decoding(**way)) for row, way in zip(rows, ways)]
    steps = []
    while len(batch):
        steps.append(batch.step())
    done = {ticket: text for step in steps for ticket, text in step.done.items()}
    assert [step.counts.forwards for step in steps] == [1] * 7
    assert sum(step.counts.queries for step in steps) == sum(done[ticket].counts.queries for ticket in tickets)
    assert [done[ticket].counts.forwards for ticket in tickets] == [5, 7, 2, 2]


def test_the_network_is_called_once_a_step() -> None:
    model, calls = in_blocks(), []
    hook = model.network.register_forward_hook(lambda *_: calls.append(1))
    batch = Batch(model, MASKING)
    for i in range(6):
        batch.join(Row.after([1] * i, 6, i), Decoding(temperature=i % 2, guidance=i % 3))
    steps = 0
    while len(batch):
        batch.step()
        steps += 1
    hook.remove()
    assert len(calls) == steps


def test_frames_carry_tickets_and_end_where_the_text_does() -> None:
    batch, story = Batch(masked(), MASKING), list[Frame]()
    batch.join(Row.after([1], 2), Decoding())
    batch.step()
    late = batch.join(Row.after([2, 3], 3), Decoding())
    while len(batch):
        step = batch.step()
        story += [frame for frame in step.frames if frame.row == late]
        done = step.done
    assert [frame.step for frame in story] == [0, 1, 2]
    assert story[-1].tokens == done[late].canvas
    assert not any(story[-1].open)


def test_nothing_to_write_is_done_without_a_pass() -> None:
    batch = Batch(joint(), MASKING)
    for rule in (None, "self_speculation", "confidence"):
        batch.join(Row.after([1, 2], 0), Decoding(rule=rule))
    step = batch.step()
    assert (len(step.done), step.counts.forwards, len(batch)) == (3, 0, 0)


def test_what_does_not_fit_is_said_before_anything_changes() -> None:
    batch = Batch(masked(), MASKING)
    batch.join(Row.after([1], 3), Decoding())
    for row, fields, message in [
        (Row.after([VOCAB], 3), {}, "not in the model's vocabulary"),
        (Row.after([1], 3), {"cache": "exact"}, "exact needs a model that never looks ahead"),
        (Row.after([1], 3), {"eos_id": 99}, "eos_id=99"),
        (Row.after([1], 3), {"rule": "self_speculation"}, "method=joint"),
    ]:
        with pytest.raises(UserError, match=message):
            batch.join(row, Decoding(**fields))
    assert len(batch) == 1
    assert batch.step().counts.forwards == 1


def test_slots_are_bounded_and_come_back() -> None:
    """A row that will never fit is an error, one that does not fit now may wait; a row that leaves makes room."""
    batch = Batch(in_blocks(), MASKING, slots=20)
    with pytest.raises(UserError, match="needs 24 slots of a cache with 20"):
        batch.join(Row.after([1] * 12, 12), Decoding())
    first = batch.join(Row.after([1] * 4, 8), Decoding())
    with pytest.raises(NoRoom, match="12 of 20 slots are taken, 10 are needed"):
        batch.join(Row.after([1] * 4, 6), Decoding())
    batch.join(Row.after([1] * 4, 6), Decoding(cache="none"))  # keeps nothing
    batch.step()
    batch.leave(first)
    assert batch.slots_taken == 0
    batch.join(Row.after([1] * 4, 6), Decoding(guidance=1.0))  # twice
    assert batch.slots_taken == 20
    while len(batch):
        batch.step()
    assert batch.slots_taken == 0


def test_nobody_elses_cache_is_copied_when_a_row_joins() -> None:
    batch = Batch(in_blocks(), MASKING)
    batch.join(Row.after([1] * 4, 8), Decoding())
    (lane,) = batch._lanes
    (cache,) = lane.contexts[0]._caches
    kept = cache.layers[0].keys.data_ptr()
    batch.step()
    batch.join(Row.after([1] * 9, 30), Decoding())
    batch.step()
    assert lane.contexts[0]._caches[0].layers[0].keys.data_ptr() == kept
    assert len(lane.contexts[0]._caches) == 2


@pytest.mark.parametrize("threads", [2])
def test_threads_change_nothing(threads: int) -> None:
    """Torch splits some sums over threads by how many rows there are: not here."""
    torch.set_num_threads(threads)
    try:
        for model in (forward(), in_blocks(), masked()):
            rows = [Row.after([1] * n, 5, n) for n in (1, 1, 3, 6)]
            together = decode(model, MASKING, rows, Decoding(temperature=1.0))
            for row, text in zip(rows, together):
                assert bare(decode(model, MASKING, [row], Decoding(temperature=1.0))[0]) == bare(text)
    finally:
        torch.set_num_threads(1)

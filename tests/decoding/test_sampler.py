"""The loop: rows do not know their neighbours, passes are counted to the one, no mask is ever written."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from stand_ins import MASK, VOCAB

from unmask.decoding.canvas import Row, shares
from unmask.decoding.sampler import Decoded, Event, Sampler, decode
from unmask.decoding.select import RANKS
from unmask.decoding.settings import RULES, Decoding
from unmask.denoiser import Denoiser
from unmask.errors import UserError
from unmask.noise.tokens import Masking

LOOKING = ["confidence", "entropy", "margin"]
ANY = [name for name in RULES if name not in ("euler", "analytic", "ddpm", "ddim")]  # these need scores, or vectors


def bare(text: Decoded) -> tuple:
    """All but the clock: to the last bit."""
    counts = (text.counts.forwards, text.counts.queries, text.counts.written)
    return text.tokens, text.canvas, text.settled_at, text.confidence, text.finish_reason, counts, text.exact


def some_prompt(rng: random.Random) -> Row:
    prompt = [rng.randrange(MASK) for _ in range(rng.randrange(7))]
    return Row.after(prompt, rng.randrange(1, 9), rng.randrange(1 << 40))


def some_row(rng: random.Random) -> Row:
    if rng.random() < 0.5:
        return some_prompt(rng)
    known = [rng.randrange(MASK) if rng.random() < 0.5 else None for _ in range(rng.randrange(1, 12))]
    return Row.gaps(known, rng.randrange(1 << 40))


def some_selection(rng: random.Random) -> dict[str, Any]:
    quota = rng.choice([None, "entropy_bound", "certain", "proportional", "expected", {"kind": "stable", "kl": 0.3}])
    count = {"threshold": rng.choice([None, 0.4, 0.8])} if quota is None else {"quota": quota}
    revise = rng.choice([None, None, {"kind": "edit", "threshold": 0.2}, {"kind": "take_back", "threshold": 0.3}])
    return count | {"revise": revise, "late": rng.choice([(), (3,)])}


def some_settings(rng: random.Random, rules: list[str]) -> Decoding:
    rule = rng.choice(rules)
    return Decoding(
        rule=rule,
        steps=rng.choice([None, 1, 2, 3, 5, 20]),
        block=rng.choice([None, 1, 2, 3, 4]),
        **(some_selection(rng) if rule in RANKS else {}),
        temperature=rng.choice([0.0, 1.0]),
        top_p=rng.choice([1.0, 0.8]),
        top_k=rng.choice([None, 4]),
        eos_id=rng.choice([None, 3]),
        guidance=rng.choice([0.0, 0.0, 1.0]),
        ban=rng.choice([(), (5,)]),
    )


@pytest.mark.parametrize("case", range(200))
def test_a_row_becomes_the_same_alone_and_in_a_batch(case: int, masked: Denoiser, masking: Masking) -> None:
    rng = random.Random(case)
    rows, settings = [some_row(rng) for _ in range(rng.randrange(2, 6))], some_settings(rng, ANY)
    together = decode(masked, masking, rows, settings)
    for row, text in zip(rows, together):
        (alone,) = decode(masked, masking, [row], settings)
        assert bare(alone) == bare(text)


@pytest.mark.parametrize("case", range(20))
def test_autoregressive_rows_too(case: int, forward: Denoiser, masking: Masking) -> None:
    rng = random.Random(case)
    rows = [some_prompt(rng) for _ in range(4)]
    settings = Decoding(temperature=1.0, block=rng.choice([None, 3]), eos_id=rng.choice([None, 2]))
    for row, text in zip(rows, decode(forward, masking, rows, settings)):
        assert bare(decode(forward, masking, [row], settings)[0]) == bare(text)


def test_autoregressive_text_is_what_a_naive_loop_writes(forward: Denoiser, masking: Masking) -> None:
    import torch

    text = [4, 1, 7]
    while len(text) < 10:
        last = forward(torch.tensor([[*text, MASK]])).logits()[-1]
        text.append(int(last.argmax()))
    assert decode(forward, masking, [Row.after([4, 1, 7], 7)])[0].canvas == text


def test_greedy_text_does_not_depend_on_the_seed(masked: Denoiser, masking: Masking) -> None:
    first, second = (decode(masked, masking, [Row.after([1, 2], 9, seed)])[0] for seed in (0, 99))
    assert first.tokens == second.tokens
    sampled = {
        tuple(decode(masked, masking, [Row.after([1], 9, s)], Decoding(temperature=1.0))[0].tokens) for s in range(5)
    }
    assert len(sampled) == 5


def by_hand(n_open: int, settings: Decoding) -> int:
    """Passes of a schedule without thresholds: every block takes as many as it has steps, or tokens if fewer."""
    size = settings.block or n_open
    sizes = [min(size, n_open - i) for i in range(0, n_open, size)]
    return sum(min(a, b) for a, b in zip(sizes, shares(sizes, settings.steps or n_open)))


@pytest.mark.parametrize("rule", RANKS)
@pytest.mark.parametrize("steps", [None, 1, 3, 4, 7, 12, 40])
@pytest.mark.parametrize("block", [None, 1, 4, 5])
def test_passes_of_an_even_split(
    rule: str, steps: int | None, block: int | None, masked: Denoiser, masking: Masking
) -> None:
    settings = Decoding(rule=rule, steps=steps, block=block)
    sampler = Sampler(masked, masking, settings)
    short, long = sampler([Row.after([1, 2, 3], 5), Row.after([4], 12)])
    assert (short.counts.forwards, long.counts.forwards) == (by_hand(5, settings), by_hand(12, settings))
    assert sampler.counts.forwards == max(short.counts.forwards, long.counts.forwards)
    both = min(short.counts.forwards, long.counts.forwards)
    alone = sampler.counts.forwards - both
    width = 13 if long.counts.forwards >= short.counts.forwards else 8
    assert sampler.counts.queries == both * (8 + 13) + alone * width, "no padding, and a finished row leaves the batch"
    assert sampler.counts.written == 17


@pytest.mark.parametrize("rule", RANKS)
@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("block", [None, 4])
def test_a_threshold_writes_the_sure_and_always_one(
    rule: str, threshold: float, block: int | None, masked: Denoiser, masking: Masking
) -> None:
    (text,) = decode(masked, masking, [Row.after([1, 2], 12)], Decoding(rule=rule, threshold=threshold, block=block))
    for step in range(text.counts.forwards):
        sure = [p for p, at in zip(text.confidence, text.settled_at) if at == step]
        assert len(sure) >= 1, "no pass without a token"
        assert sum(p < threshold for p in sure) <= 1, "only the first in rank may be unsure"
    assert text.counts.forwards == max(text.settled_at) + 1 <= 12


def test_an_ancestral_pass_always_writes(masked: Denoiser, masking: Masking) -> None:
    for seed in range(5):
        settings = Decoding(rule="ancestral", temperature=1.0, steps=100)
        (text,) = decode(masked, masking, [Row.after([1], 6, seed)], settings)
        assert set(text.settled_at) == {-1, *range(text.counts.forwards)}
        assert text.counts.forwards <= 6
    (text,) = decode(masked, masking, [Row.after([1], 6)], replace(settings, steps=1))
    assert text.counts.forwards == 1


@hypothesis_settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_no_mask_is_written_and_given_text_stays(masked: Denoiser, masking: Masking, case: int) -> None:
    rng = random.Random(case)
    rows = [some_row(rng) for _ in range(3)]
    for row, text in zip(rows, decode(masked, masking, rows, some_settings(rng, ANY))):
        assert MASK not in text.tokens
        for token, known, open, at in zip(text.canvas, row.tokens, row.open, text.settled_at):
            assert (at >= 0) == (open and token != MASK)
            assert open or token == known
        assert text.finish_reason == "stop" or text.counts.written == row.n_open
        assert text.counts.forwards == max(text.settled_at) + 1


def test_blocks_are_written_one_after_the_other(masked: Denoiser, masking: Masking) -> None:
    known: list[int | None] = [None, 3, None, None, 4, None, None, None]
    (text,) = decode(masked, masking, [Row.gaps(known)], Decoding(block=2, steps=6))
    at = [step for step, token in zip(text.settled_at, known) if token is None]
    assert [sorted(at[i : i + 2]) for i in (0, 2, 4)] == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize("rule", ANY)
def test_events_tell_the_whole_story(rule: str, masked: Denoiser, masking: Masking) -> None:
    story: list[Event] = []
    rows = [Row.after([1, 2], 6, 5), Row.gaps([None, 3, None], 6)]
    texts = decode(masked, masking, rows, Decoding(rule=rule, temperature=1.0, steps=4, block=4), story.append)
    for i, text in enumerate(texts):
        own = [frame for event in story for frame in event.frames if frame.row == i]
        assert [frame.step for frame in own] == list(range(text.counts.forwards))
        assert own[-1].tokens == text.canvas
        assert not any(own[-1].open)
        assert own[-1].confidence == text.confidence
        for frame in own:
            assert frame.settled == [at == frame.step for at in text.settled_at]
            assert frame.open == [at > frame.step for at in text.settled_at]
    assert [event.counts.forwards for event in story] == list(range(1, len(story) + 1))


def test_an_interrupt_comes_through_and_the_mode_is_put_back(masked: Denoiser, masking: Masking) -> None:
    def interrupt(event: Event) -> None:
        raise KeyboardInterrupt

    masked.train()
    with pytest.raises(KeyboardInterrupt):
        decode(masked, masking, [Row.after([1], 4)], observe=interrupt)
    assert masked.training
    masked.eval()


def test_nothing_to_write_costs_nothing(masked: Denoiser, masking: Masking) -> None:
    sampler = Sampler(masked, masking)
    assert sampler([]) == []
    texts = sampler([Row.after([], 0), Row.after([1, 2], 0), Row.gaps([5, 6])])
    assert [text.tokens for text in texts] == [[], [], [5, 6]]
    assert sampler.counts.forwards == 0


def test_a_wrong_prompt_is_named(masked: Denoiser, masking: Masking) -> None:
    with pytest.raises(UserError, match=f"prompt 1: token {VOCAB} is not in the model's vocabulary of {VOCAB}"):
        decode(masked, masking, [Row.after([1], 1), Row.after([VOCAB], 1)])


@pytest.mark.parametrize("rule", LOOKING)
def test_all_rules_agree_when_one_position_is_left(rule: str, masked: Denoiser, masking: Masking) -> None:
    row = Row.gaps([1, None, 2])
    assert decode(masked, masking, [row], Decoding(rule=rule))[0].tokens == decode(masked, masking, [row])[0].tokens

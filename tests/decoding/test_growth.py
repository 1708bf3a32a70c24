"""Texts that grow as they are written: what stands there is what would stand there anyway, or what the policy says,
pass by pass; who watches sees it."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from stand_ins import MASK, VOCAB, Answer, network
from test_batch import MASKING, forward, in_blocks, joint, masked, timed
from test_sampler import bare
from torch import Tensor, nn

from unmask.decoding.batch import Batch
from unmask.decoding.canvas import Row
from unmask.decoding.outcome import Event, Frame
from unmask.decoding.sampler import Sampler, decode
from unmask.decoding.settings import Decoding
from unmask.denoiser import CleanLogits, Denoiser
from unmask.errors import UserError
from unmask.layout import Whole
from unmask.models.attention import BlockCausal, Places
from unmask.serving.frames import Canvas
from unmask.show.replay import Page
from unmask.show.watch import Written

EOS = 3
DAEDAL = {"kind": "daedal", "initial": 4, "expand": 3, "window": 4}

# -- blocks without limit

IN_BLOCKS: dict[str, tuple[Any, dict[str, Any]]] = {
    "sampled": (in_blocks, {"temperature": 1.0}),
    "threshold": (in_blocks, {"threshold": 0.4}),
    "two blocks at a time": (in_blocks, {"block": 8, "block_steps": 3, "rule": "entropy"}),
    "guided": (in_blocks, {"guidance": 1.0, "temperature": 1.0}),
    "revised": (in_blocks, {"threshold": 0.4, "revise": {"kind": "edit", "threshold": 0.2}}),
    "ancestral": (in_blocks, {"rule": "ancestral", "temperature": 1.0, "block_steps": 3}),
    "left to right": (forward, {"temperature": 1.0}),
    "joint": (joint, {"rule": "left_to_right", "temperature": 1.0}),
    "ends": (in_blocks, {"temperature": 1.0, "eos_id": 9}),
}


@pytest.mark.parametrize("piece", [1, 6, 16])
@pytest.mark.parametrize("case", IN_BLOCKS)
def test_a_text_in_pieces_is_the_text_at_once(case: str, piece: int) -> None:
    """To the last bit, at the same cost; only what was not begun is not there."""
    model, said = IN_BLOCKS[case]
    rows = [Row.after(list(range(given)), new, seed) for seed, (given, new) in enumerate([(3, 27), (8, 9), (1, 0)])]
    grows = Decoding(**said, grow={"kind": "blocks", "piece": piece})
    for whole, grown in zip(decode(model(), MASKING, rows, Decoding(**said)), decode(model(), MASKING, rows, grows)):
        n = len(grown.canvas)
        assert whole.canvas[n:] == [MASK] * (len(whole.canvas) - n)
        for name in ("canvas", "settled_at", "confidence"):
            assert getattr(whole, name)[:n] == getattr(grown, name)
        assert bare(whole)[4:] == bare(grown)[4:]
        assert whole.tokens == grown.tokens


def test_a_text_that_ends_costs_what_it_is_however_long_it_might_be() -> None:
    settings = Decoding(temperature=1.0, eos_id=9, grow={"kind": "blocks", "piece": 8})
    batch = Batch(in_blocks(), MASKING)
    batch.join(Row.after([1, 2], 0, seed=7, room=10**12), settings)
    most, done = 0, None
    while not done:
        (lane,) = batch._lanes
        done = batch.step().done
        most = max(most, *(context.slots for context in lane.contexts))
    (text,) = done.values()
    assert text.finish_reason == "stop"
    assert len(text.canvas) <= most <= 2 * len(text.canvas) + 8
    before = Row.after([1, 2], len(text.canvas) - 2, seed=7)
    assert decode(in_blocks(), MASKING, [before], Decoding(temperature=1.0, eos_id=9))[0].tokens == text.tokens


def test_slots_are_promised_to_the_end() -> None:
    """So that a row that has joined can be written whatever joins later."""
    batch = Batch(in_blocks(), MASKING, slots=100)
    batch.join(Row.after([1, 2], 0, room=60), Decoding(grow={"kind": "blocks", "piece": 4}))
    assert batch.slots_taken == 62
    with pytest.raises(UserError, match="needs 103 slots of a cache with 100"):
        batch.join(Row.after([1], 0, room=102), Decoding(grow="blocks"))


# -- a canvas that grows inside


class Ending(nn.Module):
    """Wants to write 0, 1, 2, 0, ... up to `end` and ends of text from there on, each position as surely as `sure`
    says, and all others as `rest`."""

    def __init__(self, end: int, rest: float = 0.95, sure: dict[int, float] | None = None) -> None:
        super().__init__()
        self.end, self.rest, self.sure = end, rest, sure or {}
        self.head, self.rule, self.network = CleanLogits(), Whole().rule, SimpleNamespace(time=None)
        self.echo, self.vocab, self.banned, self.packs, self.mask_id = None, VOCAB, torch.tensor([MASK]), False, MASK
        self.widths: list[int] = []

    def forward(self, x: Tensor, t: Tensor, *, places: Places, where: Tensor) -> Answer:
        self.widths.append(x.shape[1])
        at = torch.arange(x.shape[1])
        wanted = torch.where(at < self.end, at % 3, EOS)
        p = torch.tensor([self.sure.get(i, self.rest) for i in at.tolist()])[:, None]
        best = torch.nn.functional.one_hot(wanted, VOCAB)
        others = (1 - best).index_fill(1, torch.tensor([MASK]), 0)
        logp = (p * best + (1 - p) * others / others.sum(1, keepdim=True)).log()
        return Answer(logp.expand(len(x), -1, -1)[where])


def story_of(model: Any, row: Row, **said: Any) -> tuple[Any, list[Frame]]:
    events: list[Event] = []
    settings = Decoding(**({"rule": "confidence", "eos_id": EOS, "threshold": 0.9, "grow": DAEDAL} | said))
    (text,) = Sampler(model, MASKING, settings, events.append)([row])
    return text, [event.frames[0] for event in events]


def test_a_canvas_grows_until_the_end_is_in_sight_and_the_last_look_writes() -> None:
    """The end is seen from 11 columns on, at which the tail holds three ends of four: 2 + 4, 9 and 12 columns."""
    model = Ending(end=9)
    text, frames = story_of(model, Row.after([7, 8], 40))
    assert model.widths == [6, 9, 12], "a pass for each step of growth, and one that writes"
    assert (text.counts.forwards, text.counts.written, text.finish_reason) == (3, 7, "stop")
    assert text.canvas == [7, 8, 2, 0, 1, 2, 0, 1, 2, EOS, EOS, EOS]
    assert text.settled_at == [-1, -1] + [2] * 10
    assert [frame.inserted for frame in frames] == [(6, 3), (9, 3), (0, 0)]
    assert [sum(frame.settled) for frame in frames] == [0, 0, 10]


def test_no_text_is_longer_than_it_may_be() -> None:
    model = Ending(end=100)
    text, _ = story_of(model, Row.after([], 12))
    assert model.widths == [4, 7, 10, 12]
    assert (len(text.tokens), text.finish_reason) == (12, "length")
    assert story_of(Ending(end=2), Row.after([], 3))[0].counts.forwards == 1, "and none begins longer"


def test_the_preset_begins_with_64_and_goes_on_in_eights() -> None:
    for end, widths in [(10, [64]), (50, [64, 72]), (100, [64, 72, 80, 88, 96, 104, 112, 120])]:
        model = Ending(end)
        settings = Decoding.preset("daedal", eos_id=EOS)
        (text,) = decode(model, MASKING, [Row.after([], 300)], settings)
        blocks = -(-(end + 1) // 32)  # each of them in one pass, the first in the last that has grown
        assert model.widths == widths + [widths[-1]] * (blocks - 1)
        assert (len(text.tokens), text.counts.forwards) == (end, len(model.widths))


def test_masks_come_where_the_model_is_least_sure() -> None:
    """Position 1 is open to anything, and the end, at 0.6, not certain: two masks come behind it as often as there is
    room for them, and what stood behind moves."""
    model = Ending(end=6, rest=0.95, sure={1: 0.09} | dict.fromkeys(range(6, 40), 0.6))
    grow = DAEDAL | {"initial": 10}
    text, frames = story_of(model, Row.after([], 13), grow=grow)
    assert [frame.inserted for frame in frames][:3] == [(2, 2), (2, 1), (0, 0)]
    assert frames[0].tokens == [0, MASK, MASK, MASK, 2, 0, 1, 2, *[MASK] * 4]
    assert frames[0].open == [False, True, True, True, *[False] * 4, *[True] * 4]
    assert frames[1].tokens[:9] == [0, MASK, MASK, 2, 0, 2, 0, 1, 2]
    assert len(text.canvas) == 13
    assert model.widths[:3] == [10, 12, 13]


def test_the_end_is_listened_for_in_later_blocks_and_by_rules_that_do_not_look() -> None:
    for said in ({"block": 2}, {"rule": "left_to_right", "threshold": None}):
        model = Ending(end=9)
        settings = Decoding(**({"rule": "confidence", "threshold": 0.9, "eos_id": EOS, "grow": DAEDAL} | said))
        (text,) = decode(model, MASKING, [Row.after([], 40)], settings)
        assert text.tokens == [0, 1, 2] * 3
        assert sorted(set(model.widths)) == [4, 7, 10, 13]


@pytest.mark.parametrize("case", range(40))
def test_a_row_that_grows_is_the_row_alone(case: int) -> None:
    """Rows of both kinds, and rows that do not grow, join a batch at any time."""
    rng = random.Random(case)
    model = [masked, timed, in_blocks, forward][case % 4]()
    inside = case % 4 < 2
    batch, alone, done = Batch(model, MASKING), {}, {}
    for _ in range(rng.randint(2, 6)):
        row = Row.after([rng.randrange(MASK) for _ in range(rng.randrange(6))], rng.randrange(1, 30), rng.randrange(99))
        said: dict[str, Any] = {"temperature": rng.choice([0.0, 1.0]), "eos_id": rng.choice([8, 10])}
        if rng.random() < 0.8 and inside:
            few = {"initial": rng.choice([3, 6]), "unsure": rng.choice([0.1, 0.5]), "begins": rng.choice([0.1, 0.5])}
            said |= {"grow": DAEDAL | few, "block": rng.choice([None, 4]), "threshold": rng.choice([None, 0.6])}
        elif rng.random() < 0.8 and not inside:
            said |= {"grow": {"kind": "blocks", "piece": rng.choice([1, 5, 8])}}
        settings = Decoding(**said)
        for _ in range(rng.randrange(4)):
            done |= batch.step().done
        (alone[batch.join(row, settings)],) = decode(model, MASKING, [row], settings)
    while len(batch):
        done |= batch.step().done
    assert {ticket: bare(text) for ticket, text in done.items()} == {at: bare(text) for at, text in alone.items()}


# -- who watches


@pytest.mark.parametrize("seed", range(8))
def test_whoever_follows_the_frames_has_the_text(seed: int) -> None:
    """A stream's changes, applied by position; a replay, in the numbers of the last frame."""
    row = Row.after([1, 2, 3], 30, seed)
    said = {"temperature": 1.0, "threshold": 0.6, "grow": DAEDAL | {"unsure": 0.6, "ends": 1.0}, "eos_id": 9}
    text, frames = story_of(masked(), row, **said)
    assert len({len(frame.tokens) for frame in frames}) > 1, "it grows"

    def pieces(ids: Any) -> list[str]:
        return [f"<{i}>" for i in ids]

    shown, seen = Canvas(row.beginning(0), slice(3, 33), pieces, MASK), []
    for frame in frames:
        change = shown.after(frame)
        seen += [""] * (change["length"] - len(seen))
        for one in change["changed"]:
            seen[one["at"]] = one["text"]
            assert one["state"] != "revised", "what only moves is not revised"
        assert seen == ["" if token == MASK else f"<{token}>" for token in frame.tokens[3:]]
    watched = Written.begin(frames[0], MASK)
    for frame in frames[1:]:
        watched = watched.then(frame)
        assert watched.given == [at < 3 for at in range(len(frame.tokens))]
        assert all(since == frame.step for since, now in zip(watched.since, frame.settled) if now)
    page = Page.of(pieces, frames, text, MASK)
    for state, frame in zip(page.states[1:], frames):
        there = [token for token in state.tokens if token != MASK]
        assert there == [token for token in frame.tokens if token != MASK]
        written = [(at, now) for at, now in enumerate(state.tokens) if now != MASK]
        assert all(text.canvas[at] == now for at, now in written), "no token moves in a replay"
    assert page.states[-1].tokens == text.canvas


# -- what does not go together


@pytest.mark.parametrize(
    ("model", "said", "message"),
    [
        (masked, {"grow": "blocks"}, "this model sees its whole canvas; use daedal"),
        (in_blocks, {"grow": "daedal", "eos_id": EOS}, "this model never looks ahead"),
        (masked, {"grow": "daedal"}, "set eos_id too"),
        (masked, {"grow": "daedal", "eos_id": EOS, "rule": "ancestral"}, "the ancestral rule follows a clock"),
        (joint, {"grow": "blocks", "rule": "self_speculation"}, "self_speculation writes as the model does"),
    ],
)
def test_models_and_rules_that_do_not_suit_are_refused(model: Any, said: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Batch(model(), MASKING).join(Row.after([1], 9), Decoding(**said))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"grow": "blocks", "steps": 4}, "steps=4: nobody knows how many tokens"),
        ({"grow": "daedal", "regex": "a*"}, "regex: .*leave grow out"),
        ({"grow": "daedal", "revise": "take_back"}, "revise: a canvas cannot grow inside"),
        ({"grow": "daedal", "suppress_eos": True, "eos_id": 3}, "suppress_eos: a canvas cannot grow inside"),
        ({"grow": "daedal", "cache": "dual"}, "cache: what stands behind new positions moves"),
        ({"grow": {"kind": "daedal", "expand": 1}}, "grow.expand=1 is no length; use 2 to"),
        ({"grow": {"kind": "blocks", "piece": 10**30}}, "grow.piece=10"),
        ({"grow": {"kind": "daedal", "begins": 1.5}}, "grow.begins=1.5 is no probability"),
        ({"grow": {"kind": "blocks", "block": 3}}, "grow.block: blocks has no such option"),
        ({"grow": "deadal"}, "did you mean 'daedal'"),
    ],
)
def test_settings_that_contradict_are_refused(said: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Decoding(**said)


def test_rows_that_cannot_grow_are_refused() -> None:
    grows = Decoding(grow=DAEDAL, eos_id=EOS)
    with pytest.raises(UserError, match="prompt 0: gaps are as long as they are"):
        decode(masked(), MASKING, [Row.gaps([1, None, 2])], grows)
    with pytest.raises(UserError, match="prompt 0: has room for 5 more tokens but does not grow"):
        decode(masked(), MASKING, [Row.after([1], 2, room=5)], Decoding())


def test_a_network_that_is_told_one_time_a_row_does_not_grow() -> None:
    shape: dict[str, Any] = {"time": "adaln", "time_width": 16, "norm": "layer", "time_scope": "row"}
    rowwise = Denoiser(network(3, **shape), mask_id=MASK, rule=BlockCausal(4))
    with pytest.raises(UserError, match="told how noisy the whole canvas is"):
        decode(rowwise, MASKING, [Row.after([1], 9)], Decoding(grow="blocks"))

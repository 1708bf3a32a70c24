"""Applying the frames of a stream gives the canvas as it stood after each pass."""

import pytest

from unmask.decoding.canvas import Row
from unmask.decoding.outcome import Frame
from unmask.serving.frames import Canvas, in_a_row

MASK = 9


def pieces(ids):
    return [f"<{i}>" for i in ids]


@pytest.fixture
def canvas():
    return Canvas(Row.gaps([1, 2, None, None, 3]), slice(1, 5), pieces, MASK)


def frame(step, tokens, open, settled=(), sure=()):
    marks = [at in settled for at in range(len(tokens))]
    return Frame(
        0, step, tokens, [bool(o) for o in open], marks, [dict(sure).get(at, 0.0) for at in range(len(tokens))]
    )


def test_the_first_frame_lists_every_position(canvas):
    first = canvas.blank()
    assert (first["step"], first["passes"], first["length"]) == (-1, 0, 4)
    assert [(c["at"], c["text"], c["state"]) for c in first["changed"]] == [
        (0, "<2>", "given"), (1, "", "open"), (2, "", "open"), (3, "<3>", "given")
    ]  # fmt: skip


def test_a_frame_lists_what_changed(canvas):
    after = canvas.after(frame(0, [1, 2, MASK, 7, 3], [0, 0, 1, 0, 0], [3], {3: 0.98765}))
    assert after["changed"] == [{"at": 2, "text": "<7>", "p": 0.9877, "state": "settled"}]
    assert canvas.after(frame(1, [1, 2, MASK, 7, 3], [0, 0, 1, 0, 0]))["changed"] == []


def test_drafts_are_revised_settled_or_taken_back(canvas):
    draft = canvas.after(frame(0, [1, 2, 5, 6, 3], [0, 0, 1, 1, 0], [2, 3], {2: 0.5, 3: 0.5}))
    assert [c["state"] for c in draft["changed"]] == ["draft", "draft"]
    then = canvas.after(frame(1, [1, 2, 5, MASK, 3], [0, 0, 0, 1, 0], [2], {2: 0.9}))
    assert [(c["at"], c["state"], c["p"]) for c in then["changed"]] == [(1, "settled", 0.9), (2, "open", None)]
    last = canvas.after(frame(2, [1, 2, 5, 8, 3], [0, 0, 0, 0, 0], [3], {3: float("nan")}))
    assert [(c["at"], c["state"], c["p"]) for c in last["changed"]] == [(2, "revised", None)]


def test_a_character_of_several_tokens_stands_with_the_first():
    """Bytes as tokens, once they are all there; a part of one shows as U+FFFD."""

    def decode(tokens):
        return bytes(tokens).decode("utf-8", "replace")

    spelt = in_a_row(lambda tokens: [decode([token]) for token in tokens], decode)
    assert spelt(list("aé€b".encode())) == ["a", "é", "", "€", "", "", "b"]
    assert spelt([*"é".encode(), 97, "é".encode()[0]]) == ["é", "", "a", "\ufffd"]
    assert spelt([]) == []
    first, second = "é".encode()
    canvas = Canvas(Row.gaps([first, None]), slice(0, 2), spelt, MASK)
    assert [c["text"] for c in canvas.blank()["changed"]] == ["\ufffd", ""]
    after = canvas.after(frame(0, [first, second], [0, 0], [1], {1: 0.5}))
    assert [(c["at"], c["text"], c["state"]) for c in after["changed"]] == [(0, "é", "given"), (1, "", "settled")]

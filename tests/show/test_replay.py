"""The page holds every frame exactly, whatever the tokens spell, and asks nothing of the outside."""

import json
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.decoding.sampler import Counts, Decoded, Event, Frame
from unmask.show.replay import DIGITS, Page, Recorder, State, render, write_replay

MASK = 0
ODD = ["</script>", "<!--", '"', "'", "\\", "\u2028", "\u2029", "\U0001f600", "\ufffd", "\x00", "\ud800", "{{data}}"]
ODD += ["\n        ", "\t", "\r", "&amp;", "<|mask|>", "", "http://example.org", "é"]


def pieces(ids):
    return [f"piece {i}" if i >= len(ODD) else ODD[i] for i in ids]


@st.composite
def histories(draw):
    """Any frames at all: tokens change, masks come back, given text too may be rewritten."""
    length = draw(st.integers(0, 8))

    def each(values):
        return draw(st.lists(values, min_size=length, max_size=length))

    def frame(step):
        sure = each(st.floats(0, 1))
        return Frame(0, step, each(st.integers(0, 40)), each(st.booleans()), each(st.booleans()), sure)

    frames = [frame(step) for step in range(draw(st.integers(0, 6)))]
    canvas = frames[-1].tokens if frames else each(st.integers(0, 40))
    return frames, decoded(canvas, passes=len(frames)), each(st.booleans())


def decoded(canvas, settled_at=None, passes=1):
    settled_at = settled_at or [-1] * len(canvas)
    counts = Counts(passes, passes * len(canvas), len(canvas), 0.5)
    return Decoded(list(canvas), list(canvas), settled_at, [1.0] * len(canvas), "length", counts)


def embedded(page):
    """The data as a browser reads it: the text of the one script element of that id, up to its end tag."""
    found = re.findall(r'<script id="data" type="application/json">(.*?)</script', page, flags=re.DOTALL)
    assert len(found) == 1
    return json.loads(found[0])


def replayed(data):
    """The states in a page's data, by the plainest reading of it."""
    ids = [token for token, _, _ in data["vocabulary"]]
    tokens = [ids[i] for i in data["start"]]
    open = [g == "0" for g in data["given"]]
    sure = [float(g) for g in data["given"]]
    states = [State(-1, list(tokens), list(open), [False] * len(open), list(sure))]
    for change in data["frames"]:
        for i, index in zip(*change.get("token", ((), ()))):
            tokens[i] = ids[index]
        for i in change.get("open", ()):
            open[i] = not open[i]
        for i, value in zip(*change.get("sure", ((), ()))):
            sure[i] = value
        settled = [i in change.get("settled", ()) for i in range(len(open))]
        states.append(State(change["step"], list(tokens), list(open), settled, list(sure)))
    return states


@settings(deadline=None)
@given(histories())
def test_every_frame_comes_back(history):
    frames, done, given_text = history
    page = Page.of(pieces, frames, done, MASK, given=given_text)
    data = embedded(render([page], "title"))[0]
    states = replayed(data)
    assert states == page.states
    assert [state.tokens for state in states[1:]] == [frame.tokens for frame in frames]
    assert [state.open for state in states[1:]] == [frame.open for frame in frames]
    assert [state.settled for state in states[1:]] == [frame.settled for frame in frames]
    for state, frame in zip(states[1:], frames):
        assert state.confidence == pytest.approx(frame.confidence, abs=10**-DIGITS)
    assert all(
        data["vocabulary"][i][1] == pieces([data["vocabulary"][i][0]])[0] for i in range(len(data["vocabulary"]))
    )


def odd_page(**names):
    tokens = list(range(len(ODD)))
    frames = [Frame(0, 0, tokens, [False] * len(ODD), [True] * len(ODD), [0.25] * len(ODD))]
    return Page.of(pieces, frames, decoded(tokens, [0] * len(ODD)), MASK, **names)


def test_odd_pieces_cannot_leave_their_script():
    html = render([odd_page(title="</script><b>", model="{{title}}")], "{{data}} </title> \u2028 \ud800")
    parser = Tags()
    parser.feed(html)
    assert parser.tags.count("script") == 2
    assert "b" not in parser.tags
    assert html.isascii() or "\ud800" in html
    data = embedded(html)[0]
    assert [piece for _, piece, _ in data["vocabulary"]] == ODD
    assert (data["title"], data["model"]) == ("</script><b>", "{{title}}")
    assert "<title>{{data}} &lt;/title&gt; \u2028 \ud800</title>" in html


def test_a_page_is_written_whatever_it_is_called(tmp_path):
    write_replay(tmp_path / "replay.html", [odd_page()], "half a character \ud800 \U0001f600")
    assert "half a character &#55296; \U0001f600" in (tmp_path / "replay.html").read_text(encoding="utf-8")


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.addresses = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset", "action", "poster")]


def test_the_page_needs_nothing_else():
    html = render([], "title")
    parser = Tags()
    parser.feed(html)
    assert parser.addresses == ["data:,"]  # an empty icon, so that a browser asks for none
    for sign in ("http:", "https:", "//cdn", "@import", "url(", "fetch(", "XMLHttpRequest", "import("):
        assert sign not in html
    assert "default-src 'none'" in html
    assert embedded(html) == []


def test_what_was_given_is_found_where_it_is_not_said():
    done = decoded([5, 6, 7, MASK], settled_at=[-1, -1, 0, -1])
    frame = Frame(0, 0, [5, 6, 7, MASK], [False] * 4, [False, False, True, False], [1, 1, 0.5, 0])
    page = Page.of(pieces, [frame], done, MASK)
    assert page.given == [True, True, False, False]
    assert page.states[0].tokens == [5, 6, MASK, MASK]
    assert page.states[0].confidence == [1, 1, 0, 0]


def test_only_what_changed_is_kept():
    length = 200
    tokens, open, frames = [MASK] * length, [True] * length, []
    for i in range(length):
        tokens[i], open[i] = 30, False
        frames.append(Frame(0, i, list(tokens), list(open), [j == i for j in range(length)], [0.5] * length))
    page = Page.of(pieces, frames, decoded(tokens, list(range(length)), length), MASK)
    assert len(json.dumps(page.as_dict()["frames"][1:])) < 100 * length


def test_specials_are_marked():
    data = odd_page(special_ids=[3]).as_dict()
    assert [token for token, _, special in data["vocabulary"] if special] == [3]


def test_the_recorder_keeps_rows_apart_and_begins_anew():
    def frame(row, step):
        return Frame(row, step, [step], [False], [True], [1.0])

    recorder = Recorder()
    assert recorder.frames(0) == []
    for step in range(3):
        recorder(Event((frame(0, step), *([frame(4, step)] if step < 2 else [])), Counts()))
    assert [f.step for f in recorder.frames(0)] == [0, 1, 2]
    assert [f.step for f in recorder.frames(4)] == [0, 1]
    recorder(Event((frame(0, 0),), Counts()))
    assert [f.step for f in recorder.frames()] == [0]

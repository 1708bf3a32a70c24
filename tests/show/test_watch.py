"""The terminal: every pass is drawn, the plain text stays, and nothing that a model writes can steer the terminal."""

import io
import time

import pytest
from rich.console import Console
from rich.segment import Segment

from unmask.decoding.sampler import Counts, Event, Frame
from unmask.show.watch import MASK as BLOCK
from unmask.show.watch import Watcher, printable

MASK, END = 0, 1
PIECES = ["<|mask|>", "<|end|>", "def ", "f(x):", "\n    ", "return ", "x", "[bold]", "\x1b[2J"]


def pieces(ids):
    return [PIECES[i] for i in ids]


def console(width=80, height=24, **options):
    options = {"force_terminal": True, "color_system": "truecolor"} | options
    return Console(file=io.StringIO(), record=True, width=width, height=height, legacy_windows=False, **options)


def event(step, tokens, open, settled=(), row=0):
    frame = Frame(row, step, tokens, open, [i in settled for i in range(len(tokens))], [0.5] * len(tokens))
    return Event((frame,), Counts(step + 1, 0, 0, 0.1 * (step + 1)))


def watch(screen, *events, **options):
    with Watcher(pieces, MASK, console=screen, **options) as watcher:
        for one in events:
            watcher(one)
    return watcher


STORY = (
    event(0, [2, 3, 0, 5, 0, 0, 0], [False, False, True, False, True, True, True], settled=[3]),
    event(1, [2, 3, 4, 5, 0, 0, 0], [False, False, False, False, True, True, True], settled=[2]),
    event(2, [2, 3, 4, 5, 6, 1, 0], [False] * 7, settled=[4, 5]),
)


def test_the_text_stays_plain_and_whole():
    screen = console()
    watcher = watch(screen, *STORY, special_ids=[END])
    shown = screen.export_text()
    assert BLOCK in shown
    last = shown.split("2 passes")[-1]
    assert "def f(x):\n" in last
    assert "    return x\n" in last
    left = last[last.rindex("def f(x)") :]
    assert BLOCK not in left
    assert "<|end|>" not in left
    assert "step 3 · 3 passes · 4 tokens" in left
    assert watcher.live


@pytest.mark.parametrize(("width", "height"), [(80, 24), (20, 5), (3, 1)])
def test_any_screen(width, height):
    screen = console(width, height)
    watcher = Watcher(pieces, MASK, console=screen)
    for one in STORY:
        watcher(one)
        lines = screen.render_lines(watcher, pad=False)
        assert len(lines) <= max(2, height)
        assert max(map(Segment.get_line_length, lines)) <= width
    watcher.close()


def test_nothing_is_shown_where_there_is_no_terminal():
    screen = console(force_terminal=False)
    watcher = watch(screen, *STORY, delay=60.0)
    assert screen.export_text() == ""
    assert not watcher.live


def test_nothing_is_shown_before_anything_is_written():
    screen = console()
    assert not watch(screen).live
    assert screen.export_text() == ""


def test_a_new_token_is_bright_and_fades():
    screen = console()
    watcher = Watcher(pieces, MASK, console=screen)
    seen = []
    for step in range(5):
        watcher(event(step, [2, 6, 0], [False, False, True], settled=[1] if step == 0 else []))
        seen.append(watcher._token(watcher.rows[0], 1, "x")[1])
    watcher.close()
    assert seen == ["bold bright_cyan", "bright_cyan", "cyan", "", ""]


def test_a_token_that_is_masked_again_is_a_mask_again():
    watcher = watch(console(), event(0, [6, 0], [False, True], [0]), event(1, [0, 6], [True, False], [1]))
    watcher.done = False
    assert watcher._token(watcher.rows[0], 0, "<|mask|>")[0] == BLOCK


def test_a_model_cannot_steer_the_terminal():
    screen = console()
    watch(screen, event(0, [7, 8, 6], [False] * 3, settled=[0, 1, 2]))
    assert "[bold]\ufffd[2Jx" in screen.export_text()
    assert printable("a\n\tb\x07\r\x9b\ud800") == "a\n\tb\ufffd\ufffd\ufffd\ufffd"


def test_a_text_longer_than_the_screen_follows_what_is_being_written():
    tokens = [4, 6] * 40
    screen = console(height=10)
    watcher = Watcher(pieces, MASK, console=screen)
    watcher(event(0, [*tokens[:-1], 0], [False] * 79 + [True]))
    lines = watcher._lines(screen, 80)
    assert len(watcher._window(lines, 8)) == 8
    assert BLOCK in watcher._window(lines, 8)[-1].plain
    watcher.close()
    assert screen.export_text().count("    x") > 30


def test_rows_are_told_apart_and_the_delay_is_kept():
    screen = console()
    frames = tuple(event(0, [6, 6], [False, False], [0, 1], row=row).frames[0] for row in (0, 1))
    began = time.perf_counter()
    watch(screen, Event(frames, Counts(1, 0, 0, 0.1)), delay=0.02)
    assert time.perf_counter() - began >= 0.02
    assert "[0]\nxx\n[1]\nxx" in "\n".join(line.rstrip() for line in screen.export_text().splitlines())

"""A self-contained web page that replays how texts appeared. Knows frames and pieces; no model, tokenizer or network.

The page carries every frame as its difference from the one before, so tokens may change and masks may come back.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..decoding.sampler import Decoded, Event, Frame

Pieces = Callable[[Iterable[int]], list[str]]
DIGITS = 4  # of a confidence
SCRIPTS = ("past.js", "player.js")  # modules; the page holds them as one


class Recorder:
    """An observer that keeps every frame, by row. Record one call of the sampler; a second begins its rows anew."""

    def __init__(self) -> None:
        self.rows: dict[int, list[Frame]] = {}

    def __call__(self, event: Event) -> None:
        for frame in event.frames:
            kept = self.rows.setdefault(frame.row, [])
            if kept and frame.step <= kept[-1].step:
                kept.clear()
            kept.append(frame)

    def frames(self, row: int = 0) -> list[Frame]:
        """What one row looked like after each of its passes; nothing if it had nothing to write."""
        return list(self.rows.get(row, []))


@dataclass(frozen=True)
class State:
    """One row at one moment: what a frame holds, confidence rounded."""

    step: int
    tokens: list[int]
    open: list[bool]
    settled: list[bool]
    confidence: list[float]

    @classmethod
    def of(cls, frame: Frame) -> State:
        sure = [round(c, DIGITS) for c in frame.confidence]
        return cls(frame.step, list(frame.tokens), list(frame.open), list(frame.settled), sure)

    def at(self, places: Sequence[int], length: int, mask_id: int) -> State:
        """Among positions that have come later, as masks: places says where each position stands then."""
        if len(places) == length:
            return self
        blank = (self.step, [mask_id] * length, [True] * length, [False] * length, [0.0] * length)
        found = State(*blank)
        for name in ("tokens", "open", "settled", "confidence"):
            for place, value in zip(places, getattr(self, name)):
                getattr(found, name)[place] = value
        return found

    @classmethod
    def blank(cls, tokens: Sequence[int], given: Sequence[bool], mask_id: int) -> State:
        """Before the first pass: what was given, and masks."""
        start = [token if g else mask_id for token, g in zip(tokens, given)]
        return cls(-1, start, [not g for g in given], [False] * len(start), [float(g) for g in given])


@dataclass(frozen=True)
class Page:
    """One text of a replay. vocabulary: each token id that ever stands in it, with its piece; special_ids: tokens shown
    small, by name; given: positions that were not to be written; states: blank first, then one a pass."""

    title: str
    model: str
    mask_id: int
    vocabulary: dict[int, str]
    special_ids: frozenset[int]
    given: list[bool]
    states: list[State]
    counts: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        pieces: Pieces,
        frames: Sequence[Frame],
        decoded: Decoded,
        mask_id: int,
        *,
        given: Sequence[bool] | None = None,
        title: str = "",
        model: str = "",
        special_ids: Collection[int] = (),
    ) -> Page:
        """given: found from `decoded` where it is not said: what no pass wrote and is no mask."""
        if given is None:
            given = [at < 0 and token != mask_id for at, token in zip(decoded.settled_at, decoded.canvas)]
        shown = [State.of(frame).at(places, len(given), mask_id) for frame, places in zip(frames, _places(frames))]
        states = [State.blank(decoded.canvas, given, mask_id), *shown]
        ids = sorted({mask_id}.union(*(state.tokens for state in states)))
        counts = {
            "tokens": decoded.counts.written,
            "passes": decoded.counts.forwards,
            "seconds": round(decoded.counts.seconds, 3),
        }
        vocabulary = dict(zip(ids, pieces(ids)))
        return cls(title, model, mask_id, vocabulary, frozenset(special_ids), list(given), states, counts)

    def as_dict(self) -> dict[str, Any]:
        """What the page's script reads. Tokens are written as their index in `vocabulary`."""
        index = {token: i for i, token in enumerate(self.vocabulary)}
        return {
            "title": self.title,
            "model": self.model,
            "counts": self.counts,
            "mask": index[self.mask_id],
            "vocabulary": [[token, piece, int(token in self.special_ids)] for token, piece in self.vocabulary.items()],
            "given": "".join(str(int(g)) for g in self.given),
            "start": [index[token] for token in self.states[0].tokens],
            "frames": [_difference(a, b, index) for a, b in zip(self.states, self.states[1:])],
        }


def _places(frames: Sequence[Frame]) -> list[list[int]]:
    """Where each position of each frame stands in the last one: rows may grow, and positions move."""
    places = list(range(len(frames[-1].tokens))) if frames else []
    found = []
    for frame in reversed(frames):
        found.append(places)
        at, count = frame.inserted
        places = places[:at] + places[at + count :]
    return found[::-1]


def _difference(old: State, new: State, index: dict[int, int]) -> dict[str, Any]:
    """token, sure: [positions, new values]; open: positions that closed or opened; settled: positions."""
    tokens = list(_changed(old.tokens, new.tokens))
    sure = list(_changed(old.confidence, new.confidence))
    full = {
        "token": [tokens, [index[new.tokens[i]] for i in tokens]] if tokens else None,
        "open": list(_changed(old.open, new.open)),
        "settled": [i for i, settled in enumerate(new.settled) if settled],
        "sure": [sure, [new.confidence[i] for i in sure]] if sure else None,
    }
    return {"step": new.step} | {name: value for name, value in full.items() if value}


def _changed(old: Sequence[Any], new: Sequence[Any]) -> Iterator[int]:
    return (i for i, (a, b) in enumerate(zip(old, new)) if a != b)


def write_replay(path: str | Path, pages: Sequence[Page], title: str = "Text out of masks") -> None:
    """One HTML file that needs nothing else: no network, no fonts, no scripts from elsewhere."""
    Path(path).write_text(render(pages, title), encoding="utf-8", errors="xmlcharrefreplace")


def render(pages: Sequence[Page], title: str) -> str:
    parts = {"title": html.escape(title), "data": as_script([page.as_dict() for page in pages])}
    return _with(parts, template())


def template() -> str:
    """The page with its style and its scripts in it; {{title}} (as HTML) and {{data}} (as `as_script`) are left."""
    script = "".join(re.sub(r"^import .*\n", "", _file(name), flags=re.MULTILINE) for name in SCRIPTS)
    return _with({"style": _file("player.css"), "script": script}, _file("replay.html"))


def _with(parts: Mapping[str, str], page: str) -> str:
    """In one go: a title or a token that looks like a place to fill stays what it is."""
    return re.sub(rf"\{{\{{({'|'.join(parts)})\}}\}}", lambda place: parts[place[1]], page)


def as_script(data: Any) -> str:
    """JSON in plain ASCII that cannot end the script element it stands in."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")

"""Text that grows from the left and is never taken back. Knows tokens only through the function that spells them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

REPLACEMENT = "\ufffd"


class Settled:
    """What a client has been given of a text so far.

    Held back is what may still change: half a UTF-8 character at the end, and what could be the beginning of a stop
    string. Of several stop strings the one that is complete first counts, so that the text does not depend on the
    portions in which its tokens settle.
    """

    def __init__(self, spell: Callable[[Sequence[int]], str], stops: Sequence[str] = ()) -> None:
        self.spell, self.stops = spell, stops
        self.text, self.tokens, self.stopped = "", 0, False

    def grow(self, tokens: Sequence[int], *, last: bool = False) -> str:
        """What is new to the client, now that these tokens stand. last: no more will come."""
        if self.stopped or (len(tokens) == self.tokens and not last):
            return ""
        self.tokens = len(tokens)
        text = self.spell(tokens)
        if not last:
            text = text.rstrip(REPLACEMENT)
        end = stop_in(text, self.stops)
        if end is not None:
            text, self.stopped = text[:end], True
        elif not last:
            text = text[: len(text) - beginning_of(text, self.stops)]
        fresh = text[len(self.text) :]
        self.text += fresh
        return fresh


def stop_in(text: str, stops: Sequence[str]) -> int | None:
    """Where the stop string begins that is complete first; of two that end together the longer."""
    found = [(at + len(stop), at) for stop in stops if (at := text.find(stop)) >= 0]
    return min(found)[1] if found else None


def beginning_of(text: str, stops: Sequence[str]) -> int:
    """How many characters at the end of the text begin a stop string."""
    sizes = (
        size for stop in stops for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])
    )
    return max(sizes, default=0)

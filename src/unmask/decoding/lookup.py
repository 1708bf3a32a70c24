"""Prompt lookup: what followed the last tokens where they stood before may follow them again.

Text repeats itself, in names, in tables, and wherever a model writes greedily; such a guess needs neither a network nor
a mask (arXiv 2304.04487). Knows no model.
"""

from __future__ import annotations

from collections.abc import Sequence

LONGEST = 8  # tokens that are compared


class Lookup:
    """One text as it grows."""

    def __init__(self, tokens: Sequence[int] = ()) -> None:
        self._text: list[int] = []
        self._behind: dict[tuple[int, ...], int] = {}  # where the text went on behind these tokens, when last it did
        self.read(tokens)

    def read(self, tokens: Sequence[int]) -> None:
        for token in tokens:
            for ending in self._endings():
                self._behind[ending] = len(self._text)
            self._text.append(token)

    def guess(self, most: int) -> tuple[list[int], int]:
        """Up to `most` next tokens, and how many before them are those of the place they are from: as many as can be,
        in the latest such place; none and 0 where the last token is new, or no guess is wanted."""
        for ending in self._endings() if most > 0 else ():
            if ending in self._behind:
                return self._from(self._behind[ending], most), len(ending)
        return [], 0

    def _endings(self) -> list[tuple[int, ...]]:
        """The last tokens, the longest first."""
        last = self._text[-LONGEST:]
        return [tuple(last[i:]) for i in range(len(last))]

    def _from(self, place: int, most: int) -> list[int]:
        """A place so close to the end that the guesses reach it is the begin of what is repeated over and over."""
        known = self._text[place : place + most]
        return (known * -(-most // len(known)))[:most]

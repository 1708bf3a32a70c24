"""The one kind of error that is the user's to mend. The command line prints it as one sentence and exits with 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input: the message names the field, the value and the fix, in one sentence."""


def nearest(word: str, known: Iterable[str], most: int = 40) -> str:
    """A hint for a mistyped name: "did you mean 'steps'?" or the list of what exists, cut after `most` names."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return f"known: {', '.join(names[:most])}{rest}"

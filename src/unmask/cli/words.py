"""The words after a verb: which is the recipe or the model, which the text, which are key=value."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable
from pathlib import Path

from ..errors import UserError


def recipe_and_overrides(words: list[str] | None, what: str = "recipe") -> tuple[str | None, list[str]]:
    words = words or []
    named = [word for word in words if "=" not in word]
    if len(named) > 1:
        raise UserError(f"{what}: {named[0]!r} and {named[1]!r} are both given; name one {what}, options are key=value")
    return (named[0] if named else None), [word for word in words if "=" in word]


def text_and_overrides(
    words: list[str] | None, name: str, known: Iterable[str], given: str | None = None
) -> tuple[str | None, str, list[str]]:
    """[MODEL] TEXT [KEY=VALUE]... -> (model, text, overrides). A first or only word is never an override, unless the
    text is `given` by an option."""
    words, first = list(words or []), int(given is None)
    options = [word for word in words[first:] if _is_override(word, known)]
    words = [word for i, word in enumerate(words) if i < first or word not in options]
    words += [] if given is None else [given]
    if not words:
        raise UserError(f"{name}: is missing; give it as the last word, in quotes (--help shows more)")
    if len(words) > 2:
        raise UserError(f"{name}: {words[2]!r} is one argument too many; put the text in quotes, options are key=value")
    text = sys.stdin.read() if words[-1] == "-" and given is None else words[-1]
    return (words[0] if len(words) == 2 else None), text, options


def _is_override(word: str, known: Iterable[str]) -> bool:
    """key=value whose key is an option, or nearly one (then it is a typo to be named), or a part of one, as in
    rule.kind=value; `x=1` is text."""
    key, equals, _ = word.partition("=")
    near = (difflib.get_close_matches(name, list(known), cutoff=0.6) for name in (key, key.partition(".")[0]))
    return bool(equals) and any(near)


def text_of(named: str | None) -> str | None:
    """A file's content, if that is what it names, or the text itself."""
    if named is None or named.lstrip().startswith("{") or not Path(named).is_file():
        return named
    return Path(named).read_text(encoding="utf-8")

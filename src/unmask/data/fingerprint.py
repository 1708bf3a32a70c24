"""What a source's files were when they were read, so that a run that goes on can say what has changed since."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from unmask.data.sources import files_of

Mark = list[int | str]  # size, time of the last change (ns), sha256 or "" where the content was not looked at
Fingerprint = dict[str, Mark]


def fingerprint(spec: str, *, content: bool = True) -> Fingerprint:
    """Name -> mark of every file of a source; none for a dataset on the hub, which has none here.

    content: hash it too, so that a copied or touched file is known to be the same."""
    return {name: _mark(path, content) for name, path in files_of(spec).items()}


def changes(before: Mapping[str, Mark], spec: str) -> list[str]:
    """What is no longer as it was: "a.txt is new", "b.txt has changed", "c.txt is gone"; sorted by name."""
    now = files_of(spec)
    found = dict.fromkeys(before.keys() - now.keys(), "is gone")
    found |= dict.fromkeys(now.keys() - before.keys(), "is new")
    found |= {name: "has changed" for name in now.keys() & before.keys() if _differs(now[name], before[name])}
    return [f"{name} {what}" for name, what in sorted(found.items())]


def _mark(path: Path, content: bool) -> Mark:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, _digest(path) if content else ""]


def _differs(path: Path, before: Mark) -> bool:
    size, moment, digest = before
    stat = path.stat()
    if stat.st_size != size:
        return True
    return stat.st_mtime_ns != moment and (not digest or _digest(path) != digest)


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while chunk := handle.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()

"""OpenAI's batch files: a request on each line, and for each an answer on a line of another file, in the order in which
they are ready. A run that was killed goes on where it was: nothing is lost, nothing asked twice. Knows no server."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from ..errors import UserError, nearest

METHOD = "POST"
FIELDS = ("custom_id", "method", "url", "body")


@dataclass(frozen=True)
class Asked:
    """A line of requests. number: which line, from 1."""

    number: int
    custom_id: str
    url: str
    body: dict[str, Any]


@dataclass(frozen=True)
class Answered:
    """A line of answers: what the endpoint said, with its HTTP status."""

    asked: Asked
    status: int
    body: dict[str, Any]

    @property
    def ok(self) -> bool:
        return self.status < 400

    def line(self) -> bytes:
        """In ASCII, so that nothing in it can look like the end of a line."""
        request_id = self.body.get("id")
        response = {"status_code": self.status, "request_id": request_id, "body": self.body}
        name = f"batch_req_{self.asked.number}"
        whole = {"id": name, "custom_id": self.asked.custom_id, "response": response, "error": None}
        return json.dumps(whole, separators=(",", ":")).encode("ascii") + b"\n"


def requests(path: Path, urls: Collection[str]) -> list[Asked]:
    """All lines, checked, so that a wrong one costs no work; what a body asks for is the endpoint's affair."""
    found: dict[str, Asked] = {}
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        asked = _asked(line, number, f"{path}, line {number}", urls)
        if asked.custom_id in found:
            first = found[asked.custom_id].number
            raise UserError(
                f"{path}, line {number}: custom_id={asked.custom_id!r} is that of line {first} too; change one"
            )
        found[asked.custom_id] = asked
    if not found:
        raise UserError(f"{path}: holds no request; write one a line")
    return list(found.values())


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            yield from file
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def _asked(line: bytes, number: int, where: str, urls: Collection[str]) -> Asked:
    try:
        said = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: is not JSON ({error}); write one object a line") from error
    if not isinstance(said, dict):
        raise UserError(f"{where}: is no JSON object; write one with {', '.join(FIELDS)}")
    missing = next((name for name in FIELDS if name not in said), None)
    if missing is not None:
        raise UserError(f"{where}: {missing} is missing; each line has {', '.join(FIELDS)}")
    unknown = next((name for name in said if name not in FIELDS), None)
    if unknown is not None:
        raise UserError(f"{where}: {unknown[:40]} is no field of a batch; {nearest(unknown[:40], FIELDS)}")
    custom_id, method, url, body = (said[name] for name in FIELDS)
    if not isinstance(custom_id, str) or not custom_id:
        raise UserError(f"{where}: custom_id={custom_id!r} names no request; use a string")
    if method != METHOD:
        raise UserError(f"{where}: method={method!r}: use {METHOD}")
    if not isinstance(url, str) or url not in urls:
        raise UserError(f"{where}: url={url!r} is no endpoint; {nearest(str(url), urls)}")
    if not isinstance(body, dict):
        raise UserError(f"{where}: body is no JSON object; give what the endpoint takes")
    return Asked(number, custom_id, url, body)


class Answers:
    """The file of answers, only ever added to. done: custom_ids that it holds.

    A line counts once its end is there: half a one, of a run that was killed, is dropped. One run at a time."""

    def __init__(self, path: Path, asked: Iterable[Asked]) -> None:
        self.path = path
        try:
            self._file: BinaryIO = path.open("a+b")
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror}); name another file") from error
        try:
            _lock(self._file, path)
            self.done = self._kept({one.custom_id for one in asked})
        except BaseException:
            self._file.close()
            raise

    def add(self, answered: Iterable[Answered]) -> None:
        """When this returns they are on the disk."""
        answered = list(answered)
        self._file.write(b"".join(one.line() for one in answered))
        self._file.flush()
        os.fsync(self._file.fileno())
        self.done |= {one.asked.custom_id for one in answered}

    def __enter__(self) -> Answers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def _kept(self, asked: set[str]) -> set[str]:
        self._file.seek(0)
        found, whole = set(), 0
        for number, line in enumerate(self._file, 1):
            if not line.endswith(b"\n"):
                break
            found.add(self._custom_id(line, number, asked))
            whole += len(line)
        self._file.truncate(whole)
        return found

    def _custom_id(self, line: bytes, number: int, asked: set[str]) -> str:
        where = f"{self.path}, line {number}"
        try:
            custom_id = json.loads(line)["custom_id"]
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"{where}: is no answer; name another file, or a new one") from error
        if custom_id not in asked:
            raise UserError(f"{where}: answers {custom_id!r}, which is not asked here; name another file, or a new one")
        return str(custom_id)


def _lock(file: BinaryIO, path: Path) -> None:
    """Gone with the process that holds it, however that ends. (Windows does not know it.)"""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise UserError(f"{path}: another run is writing it; wait for its end, or name another file") from error

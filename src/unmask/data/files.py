"""Local files as text or as JSON rows, with one clear error for each way they can be broken. Knows no hub."""

from __future__ import annotations

import glob
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from unmask.errors import UserError, nearest

ROW_SUFFIXES = (".jsonl", ".ndjson", ".json")
SNIFF = 8192


def find(spec: str) -> list[Path]:
    """The files that a file name, a folder or a glob stands for, sorted. Raises UserError where there is none.

    A folder is searched in depth, without hidden entries and binary files."""
    path = Path(spec).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        return _found(spec, [child for child in sorted(path.rglob("*")) if _wanted(child, path)], "no text files")
    if glob.has_magic(spec):
        matches = sorted(Path(name) for name in glob.glob(str(path), recursive=True))
        return _found(spec, [match for match in matches if match.is_file()], "no file that matches")
    raise UserError(f"data: there is no file or folder {spec!r}; {_near(path)}")


def _found(spec: str, files: list[Path], lack: str) -> list[Path]:
    if not files:
        raise UserError(f"data: {spec!r} holds {lack}; check the path, or quote the pattern")
    return files


def _near(path: Path) -> str:
    """What the user may have meant: a name in the same folder, or a form of source that is not a path."""
    folder = path.parent
    names = [child.name for child in folder.iterdir()] if folder.is_dir() else []
    hint = nearest(path.name, names, most=4) if names else f"the folder {str(folder)!r} is missing or empty"
    return f"{hint} (a dataset on the Hugging Face hub is written hf:NAME)"


def _wanted(path: Path, root: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
    return not hidden and path.is_file() and not _is_binary(path)


def _is_binary(path: Path) -> bool:
    """Whether the first bytes hold a NUL, which no text does. Parquet has its own reader and is let through."""
    if path.suffix == ".parquet":
        return False
    with _opened(path) as handle:
        return b"\0" in _guarded(handle, path, SNIFF)


def is_rows(path: Path) -> bool:
    """Whether the file's name says that each line is a JSON object."""
    return Path(path.name.removesuffix(".gz")).suffix in ROW_SUFFIXES


def read_text(path: Path) -> str:
    """The whole file, newlines as they are. Raises UserError on bytes that are not UTF-8 or a broken gzip file."""
    with _opened(path) as handle:
        return _decode(_guarded(handle, path, -1), path, 0)


def read_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, object) of each line that is not blank; the place names file and line for messages."""
    offset = 0
    with _opened(path) as handle:
        for number, raw in enumerate(_lines(handle, path), start=1):
            line = _decode(raw, path, offset)
            offset += len(raw)
            if line.strip():
                place = f"{path}, line {number}"
                yield place, _parse(line.removeprefix("\ufeff"), place)


def _parse(line: str, place: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(
            f"data: {place} is not valid JSON ({error.msg} at column {error.colno}); write one JSON object a line"
        ) from error
    if not isinstance(row, dict):
        raise UserError(f"data: {place} is a JSON {type(row).__name__}, not an object; write one JSON object a line")
    return row


def _opened(path: Path) -> IO[bytes]:
    try:
        return cast(IO[bytes], gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb"))
    except OSError as error:
        raise _broken(path, error) from error


def _guarded(handle: IO[bytes], path: Path, size: int) -> bytes:
    try:
        return handle.read(size)
    except (OSError, EOFError, zlib.error) as error:
        raise _broken(path, error) from error


def _lines(handle: IO[bytes], path: Path) -> Iterator[bytes]:
    try:
        yield from handle
    except (OSError, EOFError, zlib.error) as error:
        raise _broken(path, error) from error


def _broken(path: Path, error: Exception) -> UserError:
    fix = "copy or compress the file again" if path.suffix == ".gz" else "check the file and its permissions"
    return UserError(f"data: cannot read {str(path)!r} ({error}); {fix}")


def _decode(raw: bytes, path: Path, offset: int) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"data: {str(path)!r} is not UTF-8 at byte {offset + error.start}; "
            "convert it, for example with: iconv -f latin1 -t utf-8"
        ) from error

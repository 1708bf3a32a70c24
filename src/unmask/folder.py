"""Folders that are either whole or not there: written beside, checked by a manifest, renamed into place.

Knows nothing of what the files mean; models and training states are both saved through it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from .errors import UserError

Check = Literal["size", "hash"]
MANIFEST = "manifest.json"
_FULL = {errno.ENOSPC, errno.EDQUOT}


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yields an empty folder to write in; on leaving it gets a manifest and takes the place of `path`.

    Whatever goes wrong before that (a full disk, Ctrl-C, a kill) leaves the old `path` as it was. A full or read-only
    disk becomes a UserError.
    """
    path = Path(path).absolute()
    fresh = _beside(path, "new")
    try:
        with _blame(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            _recover(path)
            shutil.rmtree(fresh, ignore_errors=True)  # what an earlier crash left
            fresh.mkdir()
            yield fresh
            write_manifest(fresh)
            _flush(fresh)
            _swap(fresh, path)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def atomic_text(path: Path, text: str) -> None:
    """The file as it was, or with the new text; never a part of it. Raises OSError where the disk refuses."""
    fresh = _beside(path, "new")
    try:
        fresh.write_text(text, encoding="utf-8")
        _fsync(fresh)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def settled(path: str | Path) -> Path:
    """The folder to read for `path`: itself, or its former content where a crash came between the two renames."""
    path = Path(path)
    aside = _beside(path.absolute(), "old")
    return aside if not path.exists() and aside.is_dir() else path


def write_manifest(folder: str | Path) -> None:
    """Name, size and sha256 of every file below the folder, in `manifest.json`."""
    folder = Path(folder)
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    files = {name: {"size": (folder / name).stat().st_size, "sha256": _sha256(folder / name)} for name in names}
    (folder / MANIFEST).write_text(json.dumps({"files": files}, indent=2) + "\n", encoding="utf-8")


def verify(folder: str | Path, check: Check = "hash") -> None:
    """UserError where a file of the manifest is missing or differs in size, or in content where check is "hash".

    A folder without a manifest (from the Hub) passes; a file that the manifest does not know is nobody's concern.
    """
    folder = Path(folder)
    if not (folder / MANIFEST).is_file():
        return
    files = read_json(folder / MANIFEST).get("files")
    if not isinstance(files, dict) or not all(
        isinstance(e, dict) and {"size", "sha256"} <= set(e) for e in files.values()
    ):
        raise UserError(f"{folder / MANIFEST}: is not a manifest of files; restore it, or delete it to load unchecked")
    for name, entry in files.items():
        _verify_file(folder / name, entry, check)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. UserError where it is missing, damaged or no object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: is missing; name a folder that `unmask` saved, or save it again") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is not valid JSON ({error}); restore it from a copy") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__} where an object belongs; restore it from a copy")
    return content


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """safetensors, with a full disk raised as the OSError that it is."""
    try:
        save_file({name: t.detach().contiguous() for name, t in tensors.items()}, path, metadata={"format": "pt"})
        path.chmod(0o666 & ~_umask())  # safetensors writes for the owner only; a model is to be shared
    except SafetensorError as error:
        if f"os error {errno.ENOSPC}" in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def load_tensors(path: Path, device: str = "cpu") -> dict[str, Tensor]:
    """All tensors of a safetensors file. UserError where it is missing or damaged."""
    try:
        return load_file(path, device=device)
    except FileNotFoundError as error:
        raise UserError(f"{path}: is missing; name a folder that `unmask` saved, or save it again") from error
    except SafetensorError as error:
        raise UserError(f"{path}: is not a whole safetensors file ({error}); restore it from a copy") from error


def _verify_file(path: Path, entry: Mapping[str, Any], check: Check) -> None:
    if not path.is_file():
        raise UserError(f"{path}: is missing though the manifest lists it; restore it, or use another checkpoint")
    size = path.stat().st_size
    if size != entry["size"]:
        raise UserError(
            f"{path}: has {size} bytes where the manifest says {entry['size']}, so it was cut or replaced; "
            "restore it, or use another checkpoint"
        )
    if check == "hash" and _sha256(path) != entry["sha256"]:
        raise UserError(f"{path}: its sha256 differs from the manifest, so it was changed; restore it from a copy")


def _beside(path: Path, role: str) -> Path:
    return path.with_name(f".{path.name}.{role}")


def _recover(path: Path) -> None:
    """Undo or finish what a crash interrupted, so that exactly one old folder is left, in its place."""
    aside = _beside(path, "old")
    if path.exists():
        shutil.rmtree(aside, ignore_errors=True)
    elif aside.is_dir():
        aside.rename(path)


def _swap(fresh: Path, path: Path) -> None:
    """Between the two renames the old folder is still whole under its other name, where `settled` finds it."""
    aside = _beside(path, "old")
    if path.exists():
        path.rename(aside)
    try:
        fresh.rename(path)
    except OSError:
        _recover(path)
        raise
    _fsync(path.parent)
    shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _blame(path: Path) -> Iterator[None]:
    """An operating system's refusal, told as a sentence."""
    try:
        yield
    except OSError as error:
        kept = "what was there before is untouched" if path.exists() else "nothing was written"
        fix = "free some space" if error.errno in _FULL else "check the place and its permissions"
        raise UserError(f"{path}: cannot be saved ({error.strerror or error}); {kept}; {fix} and try again") from error


def _flush(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        _fsync(path)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while chunk := handle.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()

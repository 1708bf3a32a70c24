"""Corpora by name: the standard library, files, folders, globs, JSON lines and Hugging Face datasets; and their split
into training and validation documents. Knows no token."""

from __future__ import annotations

import hashlib
import os
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from unmask.data import files
from unmask.data.chat import Message, check_messages
from unmask.errors import UserError, nearest

Rows = Iterator[tuple[str, dict[str, Any]]]

HUB = "hf:"
# Tests and bundled third-party code say little about the language and come in many near copies.
SKIPPED = frozenset({"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"})
DATASET_MARKS = ("dataset_dict.json", "dataset_info.json", "state.json")


def read(
    spec: str, *, field: str | None = None, split: str | None = None, streaming: bool = False, seed: int = 0
) -> Iterator[str]:
    """Documents of a source that are not empty, in a fixed order.

    spec: "stdlib", a file, a folder, a glob (each also .gz), .jsonl/.json lines, .parquet, a saved dataset folder, or
    "hf:NAME" with an optional "hf:NAME@CONFIG". field: the column with the text, "text" unless said otherwise. split,
    streaming and seed (of the shard shuffle while streaming) matter for datasets only. A source that is not there
    raises UserError at once, a broken or empty one when it is read."""
    if spec == "stdlib":
        return _checked(spec, _stdlib())
    if _is_dataset(spec):
        return _checked(spec, _column(_dataset_rows(spec, split, streaming, seed), field or "text"))
    return _checked(spec, _file_documents(files.find(spec), field or "text", single=Path(spec).expanduser().is_file()))


def read_chats(
    spec: str, *, split: str | None = None, streaming: bool = False, seed: int = 0
) -> Iterator[list[Message]]:
    """Conversations: the checked "messages" of each row. Raises UserError naming the row and what is wrong with it."""
    return _chats(spec, _rows(spec, split, streaming, seed))


def files_of(spec: str) -> dict[str, Path]:
    """The files that a source is read from, by name; none for a dataset on the hub. UserError where there are none."""
    if spec.startswith(HUB):
        return {}
    if spec == "stdlib":
        root = Path(sysconfig.get_path("stdlib"))
        return {path.relative_to(root).as_posix(): path for path in _modules(str(root))}
    found = sorted(Path(spec).rglob("*")) if _is_dataset(spec) else files.find(spec)
    return {str(path): path for path in found if path.is_file()}


def _chats(spec: str, rows: Rows) -> Iterator[list[Message]]:
    place = None
    for place, row in rows:
        yield check_messages(_pick(row, "messages", place), place)
    if place is None:
        raise UserError(f'data: {spec!r} holds no conversations; write one object with "messages" a line')


def _rows(spec: str, split: str | None, streaming: bool, seed: int) -> Rows:
    if _is_dataset(spec):
        return _dataset_rows(spec, split, streaming, seed)
    return (row for path in files.find(spec) for row in _rows_of(path))


def _rows_of(path: Path) -> Rows:
    return _parquet_rows(path) if path.suffix == ".parquet" else files.read_rows(path)


def _checked(spec: str, documents: Iterable[str]) -> Iterator[str]:
    """The documents without the empty ones; an error at the end if nothing was left."""
    empty = True
    for text in documents:
        if text:
            empty = False
            yield text
    if empty:
        raise UserError(f"data: {spec!r} holds no text; name a source with at least one document that is not empty")


def _pick(row: dict[str, Any], field: str, place: str) -> Any:
    if field not in row:
        raise UserError(f"field: {place} has no field {field!r}; name one of these: {', '.join(map(str, row))}")
    return row[field]


def _column(rows: Rows, field: str) -> Iterator[str]:
    for place, row in rows:
        text = _pick(row, field, place)
        if not isinstance(text, str):
            raise UserError(f"field: {field!r} at {place} is {type(text).__name__}, not text; name a field with text")
        yield text


def _file_documents(paths: list[Path], field: str, *, single: bool) -> Iterator[str]:
    """Rows of row files, the whole of any other file. In a folder or glob a .json file may be anything, so it counts
    as text there."""
    for path in paths:
        loose_json = not single and ".json" in path.suffixes
        if path.suffix == ".parquet" or (files.is_rows(path) and not loose_json):
            yield from _column(_rows_of(path), field)
        else:
            yield files.read_text(path)


def _stdlib() -> Iterator[str]:
    """Python source of the running interpreter's standard library, sorted by path, each content once."""
    seen = set()
    for path in sorted(_modules(sysconfig.get_path("stdlib"))):
        raw = path.read_bytes()
        key = hashlib.sha256(raw).digest()
        # A handful of old modules declare another encoding; they are not worth a failure.
        if key not in seen and _is_utf8(raw):
            seen.add(key)
            yield raw.decode("utf-8")


def _modules(root: str) -> Iterator[Path]:
    for folder, below, names in os.walk(root):
        below[:] = [name for name in below if name not in SKIPPED]  # pruned in place: installed packages are huge
        yield from (Path(folder, name) for name in names if name.endswith(".py"))


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _is_dataset(spec: str) -> bool:
    return spec.startswith(HUB) or any((Path(spec) / mark).is_file() for mark in DATASET_MARKS)


def _dataset_rows(spec: str, split: str | None, streaming: bool, seed: int) -> Rows:
    load = _load_hub if spec.startswith(HUB) else _load_folder
    try:
        data = load(spec, split, streaming)
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"data: cannot load the dataset {spec!r} with split {split or 'train'!r} ({reason}); "
            "check the name, the configuration after '@' and the split"
        ) from error
    shuffled = data.shuffle(seed=seed, buffer_size=1000) if streaming and spec.startswith(HUB) else data
    return ((f"{spec}, row {number}", dict(row)) for number, row in enumerate(shuffled))


def _load_hub(spec: str, split: str | None, streaming: bool) -> Any:
    import datasets

    name, _, config = spec.removeprefix(HUB).partition("@")
    return datasets.load_dataset(name, config or None, split=split or "train", streaming=streaming)


def _load_folder(spec: str, split: str | None, streaming: bool) -> Any:
    import datasets

    data = datasets.load_from_disk(spec)
    if not isinstance(data, datasets.DatasetDict):
        return data
    if (split or "train") not in data:
        raise ValueError(nearest(split or "train", map(str, data)))
    return data[split or "train"]


def _parquet_rows(path: Path) -> Rows:
    import datasets

    try:
        data = datasets.Dataset.from_parquet(str(path))
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise UserError(f"data: cannot read {str(path)!r} as parquet; write the file again") from error
    return ((f"{path}, row {number}", dict(row)) for number, row in enumerate(data))


def split_of(text: str, valid_fraction: float = 0.05) -> str:
    """ "train" or "valid" by the SHA-256 of the text: the same on every machine and whatever else is in the corpus."""
    return "valid" if _fraction(text) < valid_fraction else "train"


def _fraction(text: str) -> float:
    """A number from 0 to 1 that only the content determines."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_documents(texts: list[str], part: str, valid_fraction: float = 0.05) -> list[str]:
    """The documents of "train" or "valid", by content, so that equal documents are never on both sides.

    A corpus of one document is cut by position: the first 95 % of its characters train, the last 5 % validate. With
    more, neither side is left empty: the document nearest to the limit changes sides."""
    if len(set(texts)) == 1:
        return _by_position(texts[0], part, valid_fraction)
    return _by_content(texts, part, valid_fraction)


def _by_position(text: str, part: str, valid_fraction: float) -> list[str]:
    at = len(text) - int(len(text) * valid_fraction)
    chosen = {"train": text[:at], "valid": text[at:]}[part]
    if not chosen:
        raise UserError(f"data: one document of {len(text)} characters is too short to split; name a validation source")
    return [chosen]


def _by_content(texts: list[str], part: str, valid_fraction: float) -> list[str]:
    places = [_fraction(text) for text in texts]
    low, high = min(places), max(places)
    valid = [(place < valid_fraction and place < high) or place == low for place in places]
    return [text for text, inside in zip(texts, valid) if inside == (part == "valid")]


def _train(spec: str, valid: str | None, fraction: float, options: dict[str, Any]) -> list[str]:
    texts = list(read(spec, **options))
    return texts if valid else split_documents(texts, "train", fraction)


def _valid(spec: str, valid: str | None, fraction: float, options: dict[str, Any]) -> list[str]:
    return list(read(valid, **options)) if valid else split_documents(list(read(spec, **options)), "valid", fraction)


def _all(spec: str, valid: str | None, fraction: float, options: dict[str, Any]) -> list[str]:
    return list(read(spec, **options))


PARTS: dict[str, Callable[[str, str | None, float, dict[str, Any]], list[str]]] = {
    "train": _train,
    "valid": _valid,
    "all": _all,
}


def load_documents(
    spec: str,
    *,
    part: str = "train",
    valid: str | None = None,
    valid_fraction: float = 0.05,
    field: str | None = None,
    split: str | None = None,
) -> list[str]:
    """The documents of one part of a corpus.

    With a validation source of its own, that source is "valid" and all of spec is "train". Otherwise documents are
    divided by the hash of their content, and a corpus of a single document by position: the first 95 % train, the
    last 5 % validate."""
    if part not in PARTS:
        raise UserError(f"part: {part!r} is not a part of a corpus; {nearest(part, PARTS)}")
    return PARTS[part](spec, valid, valid_fraction, {"field": field, "split": split})

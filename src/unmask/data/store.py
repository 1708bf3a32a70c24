"""All tokens of a corpus in one flat array with document boundaries. Knows no text and no batch."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

Document = Sequence[int] | tuple[Sequence[int], Sequence[bool]]


@dataclass(frozen=True)
class TokenStore:
    """tokens: int32 (N,); offsets: int64 (D + 1,), document d is tokens[offsets[d]:offsets[d + 1]];
    scored: bool (N,), or None where every token counts in the loss."""

    tokens: np.ndarray
    offsets: np.ndarray
    scored: np.ndarray | None = None

    @classmethod
    def from_documents(cls, documents: Iterable[Document]) -> TokenStore:
        """From lists of ids, or from (ids, scored) pairs; empty documents are dropped.

        Raises ValueError where a pair's two lists differ in length or only some documents are pairs."""
        tokens, ends, flags = array("i"), array("q", [0]), bytearray()
        for document in documents:
            ids, scored = _pair(document)
            tokens.extend(ids)
            flags.extend(map(bool, scored))
            if len(flags) not in (0, len(tokens)):
                raise ValueError("either all documents or none have scored flags, one for each token")
            if len(ids):
                ends.append(len(tokens))
        marks = np.frombuffer(flags, dtype=np.bool_) if flags else None
        return cls(np.array(tokens, dtype=np.int32), np.array(ends, dtype=np.int64), marks)

    def save(self, path: str | Path) -> None:
        """Write an uncompressed .npz, so that a corpus is tokenised once."""
        with Path(path).open("wb") as handle:
            np.savez(handle, tokens=self.tokens, offsets=self.offsets, scored=_present(self.scored))

    @classmethod
    def load(cls, path: str | Path) -> TokenStore:
        """What save wrote."""
        with np.load(path, allow_pickle=False) as parts:
            scored = parts["scored"]
            return cls(parts["tokens"], parts["offsets"], scored if len(scored) else None)

    @property
    def n_tokens(self) -> int:
        return len(self.tokens)

    @property
    def n_documents(self) -> int:
        return len(self.offsets) - 1

    def document(self, number: int) -> list[int]:
        ids: list[int] = self.tokens[self.offsets[number] : self.offsets[number + 1]].tolist()
        return ids

    @property
    def lengths(self) -> np.ndarray:
        """int64 (D,): tokens of each document."""
        return np.diff(self.offsets)


def _present(scored: np.ndarray | None) -> np.ndarray:
    return np.zeros(0, dtype=np.bool_) if scored is None else scored


def _pair(document: Document) -> tuple[Sequence[int], Sequence[bool]]:
    """(ids, flags); no flags where the document is a plain sequence of ids."""
    if isinstance(document, tuple) and len(document) == 2 and not isinstance(document[0], (int, np.integer)):
        return document
    return document, ()  # type: ignore[return-value]

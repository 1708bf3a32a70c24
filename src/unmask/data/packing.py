"""Batches without end, in an order that a seed fixes and a few integers resume. Knows no text and no model."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from unmask.data.rows import Batch, Plan, assemble, check_whole, group, make_plan
from unmask.data.store import Document, TokenStore
from unmask.errors import UserError

__all__ = ["Batch", "Loader", "StreamLoader", "TokenStore", "windows"]


class _RowLoader:
    """Takes batches from an endless sequence of laid-out parts (an epoch, or a buffer of a stream).

    The global order is the rows of part 0, then of part 1, and so on. A step takes batch * world rows from it and
    rank r keeps rows r::world of them, so the union over ranks is what one process would see."""

    def __init__(
        self, *, length: int, batch: int, seed: int, rank: int, world: int, pad_id: int, pack: bool, keep_whole: bool
    ) -> None:
        for name, value in (("length", length), ("batch", batch), ("world", world)):
            if value < 1:
                raise UserError(f"{name}: {value} is not possible; use 1 or more")
        if not 0 <= rank < world:
            raise UserError(f"rank: {rank} is outside 0 to {world - 1}, the ranks of world {world}")
        self.length, self.batch, self.seed, self.pad_id = length, batch, seed, pad_id
        self.rank, self.world = rank, world
        self.pack, self.keep_whole = bool(pack), keep_whole
        self._row = 0
        self._part: tuple[TokenStore, Plan] | None = None

    def _open(self) -> tuple[TokenStore, Plan]:
        """Lay out the part that the state points at."""
        raise NotImplementedError

    def _advance(self) -> None:
        """Point the state at the next part."""
        raise NotImplementedError

    def _lay_out(self, store: TokenStore, *key: int) -> Plan:
        rng = np.random.default_rng([self.seed, *key])
        return make_plan(store, self.length, rng, pack=self.pack, keep_whole=self.keep_whole)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        done, wanted, parts = 0, self.batch * self.world, []
        while done < wanted:
            store, plan = self._current()
            n = min(plan.n_rows - self._row, wanted - done)
            mine = np.arange(self._row, self._row + n)[(self.rank - done) % self.world :: self.world]
            parts.append(assemble(store, plan, mine, self.length, self.pad_id))
            self._row += n
            done += n
        return Batch.join(parts)

    def _current(self) -> tuple[TokenStore, Plan]:
        """The part at hand, or the next one where it is used up."""
        if self._part is None:
            self._part = self._open()
        while self._row >= self._part[1].n_rows:
            self._advance()
            self._row = 0
            self._part = self._open()
        return self._part

    def _identity(self) -> dict[str, int]:
        """What must be equal for a saved place to mean the same rows."""
        return {"seed": self.seed, "length": self.length}

    def _check_state(self, state: dict[str, int]) -> None:
        for name, value in self._identity().items():
            if state.get(name) != value:
                raise UserError(
                    f"{name}: the saved data state has {state.get(name)} but this run has {value}; "
                    "resume with the data settings of the saved run"
                )


class Loader(_RowLoader):
    """Endless shuffled batches of a store; every batch has exactly `batch` rows and may span two epochs.

    Within an epoch each token comes once. Longer documents are cut at a random phase; pack puts short pieces together
    (False: one piece a row). keep_whole never cuts: a longer document is an error, as is an empty store."""

    def __init__(
        self,
        store: TokenStore,
        *,
        length: int,
        batch: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        pad_id: int,
        pack: bool = True,
        keep_whole: bool = False,
    ) -> None:
        super().__init__(
            length=length, batch=batch, seed=seed, rank=rank, world=world, pad_id=pad_id, pack=pack,
            keep_whole=keep_whole,
        )  # fmt: skip
        if not store.n_tokens:
            raise UserError("data: the corpus holds no tokens; name a source with a document that is not empty")
        if keep_whole:
            check_whole(store, length)
        self.store = store
        self.epoch = 0

    def _open(self) -> tuple[TokenStore, Plan]:
        return self.store, self._lay_out(self.store, self.epoch)

    def _advance(self) -> None:
        self.epoch += 1

    @property
    def rows_per_epoch(self) -> int:
        """Rows of the current epoch over all ranks; it varies a little between epochs."""
        self._part = self._part or self._open()
        return self._part[1].n_rows

    def _identity(self) -> dict[str, int]:
        return super()._identity() | {"n_tokens": self.store.n_tokens}

    def state_dict(self) -> dict[str, int]:
        """Plain integers, the same on every rank."""
        return self._identity() | {"epoch": self.epoch, "row": self._row}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to where the state was taken. Raises UserError where the data or its settings differ."""
        self._check_state(state)
        self.epoch, self._row, self._part = state["epoch"], state["row"], None


class StreamLoader(_RowLoader):
    """Endless batches from a source too large to hold: shuffled and packed within buffers of documents.

    open_stream gives the documents from the start each time it is called; a finite stream is read again when it ends.
    The state counts documents, and resuming skips that many, then lays out the same buffer again. Every rank reads the
    whole stream. Raises UserError where the stream is empty."""

    def __init__(
        self,
        open_stream: Callable[[], Iterable[Document]],
        *,
        length: int,
        batch: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        pad_id: int,
        pack: bool = True,
        keep_whole: bool = False,
        buffer: int = 2048,
    ) -> None:
        super().__init__(
            length=length, batch=batch, seed=seed, rank=rank, world=world, pad_id=pad_id, pack=pack,
            keep_whole=keep_whole,
        )  # fmt: skip
        if buffer < 1:
            raise UserError(f"buffer: {buffer} is not possible; use 1 document or more")
        self.buffer = buffer
        self.epoch = 0
        self._documents, self._taken, self._any_tokens = 0, 0, False
        self._open_stream = open_stream
        self._stream: Iterator[Document] | None = None

    def _open(self) -> tuple[TokenStore, Plan]:
        if self._stream is None:
            self._stream = itertools.islice(iter(self._open_stream()), self._documents, None)
        taken = list(itertools.islice(self._stream, self.buffer))
        if not taken:
            self._rewind()
            return self._open()
        self._taken = len(taken)
        store = TokenStore.from_documents(taken)
        self._any_tokens |= store.n_tokens > 0
        if self.keep_whole:
            check_whole(store, self.length)
        return store, self._lay_out(store, self.epoch, self._documents)

    def _rewind(self) -> None:
        if not (self._any_tokens or (self._documents and not self._taken)):
            raise UserError("data: the stream holds no tokens; name a source with a document that is not empty")
        self.epoch, self._documents, self._stream = self.epoch + 1, 0, None

    def _advance(self) -> None:
        self._documents += self._taken

    def _identity(self) -> dict[str, int]:
        return super()._identity() | {"buffer": self.buffer}

    def state_dict(self) -> dict[str, int]:
        """Plain integers, the same on every rank."""
        return self._identity() | {"epoch": self.epoch, "documents": self._documents, "row": self._row}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to where the state was taken. Raises UserError where the settings differ."""
        self._check_state(state)
        self.epoch, self._documents, self._row = state["epoch"], state["documents"], state["row"]
        self._stream, self._part = None, None


def windows(
    store: TokenStore | Iterable[int], length: int, *, batch: int = 1, pad_id: int = 0, most: int | None = None
) -> Iterator[Batch]:
    """All tokens once, in order, as contiguous rows: only the last row is padded, the last batch may have fewer rows.

    A list of ids counts as one document; the documents of a store keep their own ids and positions in a row.
    most: so many rows, spread evenly over the whole store, where it has more."""
    if not isinstance(store, TokenStore):
        store = TokenStore.from_documents([list(store)])
    edges = np.union1d(store.offsets, np.arange(0, store.n_tokens, length))
    starts, lengths = edges[:-1], np.diff(edges)
    n_rows = -(-store.n_tokens // length)
    plan = group(starts, lengths, starts // length, n_rows)
    chosen = np.arange(n_rows) if most is None or most >= n_rows else (2 * np.arange(most) + 1) * n_rows // (2 * most)
    for begin in range(0, len(chosen), batch):
        yield assemble(store, plan, chosen[begin : begin + batch], length, pad_id)

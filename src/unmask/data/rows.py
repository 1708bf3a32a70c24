"""Lays documents out in rows of one length and builds batches from them. Knows no epoch, no rank and no text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from unmask.data.store import TokenStore
from unmask.errors import UserError


@dataclass(frozen=True)
class Batch:
    """tokens, documents, positions: int64 (B, L); scored: bool (B, L).

    documents counts the pieces inside a row from 0 and is -1 on padding; positions restart at 0 with each piece;
    scored is False on padding and wherever the loss must not look."""

    tokens: torch.Tensor
    documents: torch.Tensor
    positions: torch.Tensor
    scored: torch.Tensor

    def to(self, device: torch.device | str) -> Batch:
        return Batch(*(part.to(device, non_blocking=True) for part in self._parts()))

    @property
    def n_scored(self) -> int:
        return int(self.scored.sum())

    def _parts(self) -> tuple[torch.Tensor, ...]:
        return self.tokens, self.documents, self.positions, self.scored

    @staticmethod
    def join(batches: list[Batch]) -> Batch:
        """All rows of several batches of one length, in order."""
        return batches[0] if len(batches) == 1 else Batch(*map(torch.cat, zip(*(b._parts() for b in batches))))


@dataclass(frozen=True)
class Plan:
    """Which stretch of the store goes where: piece p is tokens[starts[p] : starts[p] + lengths[p]], and row r holds
    the pieces from first[r] to first[r + 1]. All int64."""

    starts: np.ndarray
    lengths: np.ndarray
    first: np.ndarray

    @property
    def n_rows(self) -> int:
        return len(self.first) - 1


def ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Concatenated aranges: starts[i], starts[i] + 1, ... counts[i] of them, for each i."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(starts - (ends - counts), counts)


def cut(store: TokenStore, length: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(starts, lengths) of pieces no longer than length that cover every token once.

    A longer document is cut at a random phase, so that its windows differ between epochs."""
    sizes = store.lengths
    phase = np.where(sizes > length, rng.integers(0, length, len(sizes)), 0)
    head = (phase > 0).astype(np.int64)
    counts = head + -(-(sizes - phase) // length)
    index = ranges(np.zeros_like(counts), counts)
    size, shift = np.repeat(sizes, counts), np.repeat(phase - head * length, counts)
    begin = np.maximum(index * length + shift, 0)
    end = np.minimum((index + 1) * length + shift, size)
    return np.repeat(store.offsets[:-1], counts) + begin, end - begin


def check_whole(store: TokenStore, length: int) -> None:
    """Raise UserError where a document is longer than a row and so cannot stay whole."""
    longest = int(store.lengths.max(initial=0))
    if longest > length:
        n_long = int((store.lengths > length).sum())
        raise UserError(
            f"length: {length} is shorter than {n_long} of {store.n_documents} documents that must stay whole; "
            f"use {longest} or more, or let them be cut (data.whole=false)"
        )


def fit(lengths: np.ndarray, capacity: int) -> np.ndarray:
    """Best-fit decreasing: int64 row of each piece, rows of at most capacity tokens, numbered from 0.

    Rows are kept in stacks by the room they have left, and one big integer marks the stacks that are not empty,
    so that the tightest row is found in constant time."""
    row_of = np.empty(len(lengths), dtype=np.int64)
    stacks: list[list[int]] = [[] for _ in range(capacity + 1)]
    filled, n_rows = 0, 0
    order = np.argsort(-lengths, kind="stable")
    for piece, size in zip(order.tolist(), lengths[order].tolist()):
        roomy = filled >> size
        if roomy:
            room = size + (roomy & -roomy).bit_length() - 1
            row = stacks[room].pop()
            filled ^= 0 if stacks[room] else 1 << room
        else:
            room, row, n_rows = capacity, n_rows, n_rows + 1
        row_of[piece] = row
        left = room - size
        if left:
            stacks[left].append(row)
            filled |= 1 << left
    return row_of


def make_plan(
    store: TokenStore, length: int, rng: np.random.Generator, *, pack: bool = True, keep_whole: bool = False
) -> Plan:
    """A random layout of the whole store: which pieces share a row, and the order of the rows, depend on rng."""
    if keep_whole:
        starts, lengths = store.offsets[:-1], store.lengths
    else:
        starts, lengths = cut(store, length, rng)
    mixed = rng.permutation(len(starts))
    starts, lengths = starts[mixed], lengths[mixed]
    row_of = np.arange(len(starts))
    if pack:
        short = np.flatnonzero(lengths < length)
        n_full = len(starts) - len(short)
        row_of[lengths == length] = np.arange(n_full)
        row_of[short] = n_full + fit(lengths[short], length)
    n_rows = int(row_of.max(initial=-1)) + 1
    return group(starts, lengths, rng.permutation(n_rows)[row_of], n_rows)


def group(starts: np.ndarray, lengths: np.ndarray, row_of: np.ndarray, n_rows: int) -> Plan:
    """The plan in which piece p lies in row row_of[p], pieces of a row in the order given."""
    order = np.argsort(row_of, kind="stable")
    first = np.searchsorted(row_of[order], np.arange(n_rows + 1))
    return Plan(starts[order], lengths[order], first)


def assemble(store: TokenStore, plan: Plan, rows: np.ndarray, length: int, pad_id: int) -> Batch:
    """The batch that holds these rows of the plan, in this order."""
    n_pieces = plan.first[rows + 1] - plan.first[rows]
    pieces = ranges(plan.first[rows], n_pieces)
    sizes = plan.lengths[pieces]
    inner = ranges(np.zeros_like(sizes), sizes)
    source = np.repeat(plan.starts[pieces], sizes) + inner
    row = np.repeat(np.arange(len(rows)), n_pieces)
    filled = np.bincount(row, weights=sizes, minlength=len(rows)).astype(np.int64)
    target = ranges(np.arange(len(rows)) * length, filled)
    ordinal = np.repeat(ranges(np.zeros_like(n_pieces), n_pieces), sizes)
    marks = True if store.scored is None else store.scored[source]
    shape = (len(rows), length)
    return Batch(
        _place(shape, target, store.tokens[source], pad_id, np.int64),
        _place(shape, target, ordinal, -1, np.int64),
        _place(shape, target, inner, 0, np.int64),
        _place(shape, target, marks, False, np.bool_),
    )


def _place(
    shape: tuple[int, int], target: np.ndarray, values: np.ndarray | bool, blank: int | bool, dtype: type
) -> torch.Tensor:
    flat: np.ndarray = np.full(shape[0] * shape[1], blank, dtype=dtype)
    flat[target] = values
    return torch.from_numpy(flat.reshape(shape))

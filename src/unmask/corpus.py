"""From a recipe's data and tokenizer to token stores, once a run: what was tokenised is kept beside the checkpoints."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .data.chat import Message, render
from .data.packing import Loader, StreamLoader, TokenStore
from .data.sources import load_documents, read, read_chats, split_of
from .data.tokenizer import Tokenizer, load_tokenizer, make_tokenizer, n_bytes
from .errors import UserError
from .folder import atomic_folder, read_json
from .recipe import Recipe

STREAM_HEAD = 2000  # documents of a stream that the tokenizer and the validation part are made from
Answer = tuple[list[int], list[bool]]


@dataclass(frozen=True)
class Corpus:
    """train is a store, or a function that opens the stream from its start; valid is always a store."""

    tokenizer: Tokenizer
    train: TokenStore | Callable[[], Iterator[list[int]]]
    valid: TokenStore
    bytes_per_token: float

    def loader(self, recipe: Recipe, *, rank: int, world: int, whole: bool) -> Loader | StreamLoader:
        share = recipe.train.batch // world
        options: dict[str, Any] = {
            "length": recipe.length,
            "batch": recipe.train.micro_batch or share,
            "seed": recipe.seed,
            "rank": rank,
            "world": world,
            "pad_id": self.tokenizer.pad_id,
            "keep_whole": whole,
        }
        if isinstance(self.train, TokenStore):
            return Loader(self.train, **options)
        return StreamLoader(self.train, **options)


def prepare(recipe: Recipe, tokenizer: Tokenizer | None = None, *, chats: bool = False) -> Corpus:
    """The run's corpus: read back from `out`/data if it was prepared before, else made (and, if not a stream, kept)."""
    if recipe.data.streaming and not chats:
        return _stream(recipe, tokenizer)
    kept = Path(recipe.out) / "data"
    wanted = {"data": recipe.data.model_dump(), "tokenizer": recipe.tokenizer.model_dump(), "chats": chats}
    if (kept / "facts.json").is_file():
        facts = read_json(kept / "facts.json")
        if facts["recipe"] == wanted:
            return _read_back(kept, tokenizer, facts)
    make = _from_chats if chats else _from_texts
    corpus = make(recipe, tokenizer)
    assert isinstance(corpus.train, TokenStore)
    with atomic_folder(kept) as fresh:
        corpus.tokenizer.save(fresh / "tokenizer")
        corpus.train.save(fresh / "train.npz")
        corpus.valid.save(fresh / "valid.npz")
        facts = {"recipe": wanted, "bytes_per_token": corpus.bytes_per_token}
        (fresh / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
    return corpus


def _read_back(kept: Path, tokenizer: Tokenizer | None, facts: dict[str, Any]) -> Corpus:
    tokenizer = tokenizer or load_tokenizer(kept / "tokenizer")
    train, valid = TokenStore.load(kept / "train.npz"), TokenStore.load(kept / "valid.npz")
    return Corpus(tokenizer, train, valid, facts["bytes_per_token"])


def _from_texts(recipe: Recipe, tokenizer: Tokenizer | None) -> Corpus:
    data = recipe.data
    options: dict[str, Any] = {"valid": data.valid, "valid_fraction": data.valid_fraction}
    options |= {"field": data.field, "split": data.split}
    texts = load_documents(data.source, part="train", **options)
    held_out = load_documents(data.source, part="valid", **options)
    tokenizer = tokenizer or make_tokenizer(recipe.tokenizer.kind, texts, recipe.tokenizer.vocab_size)
    train = TokenStore.from_documents(tokenizer.documents(texts, eos=data.eos))
    valid = TokenStore.from_documents(tokenizer.documents(held_out, eos=data.eos))
    return Corpus(tokenizer, train, valid, _ratio(held_out, valid.n_tokens))


def _stream(recipe: Recipe, tokenizer: Tokenizer | None) -> Corpus:
    """The head of the stream trains the tokenizer and validates; training reads what comes after it."""
    data = recipe.data

    def texts() -> Iterator[str]:
        return read(data.source, field=data.field, split=data.split, streaming=True, seed=recipe.seed)

    head = list(itertools.islice(texts(), STREAM_HEAD))
    n_valid = max(1, int(len(head) * data.valid_fraction))
    tokenizer = tokenizer or make_tokenizer(recipe.tokenizer.kind, head[n_valid:], recipe.tokenizer.vocab_size)
    valid = TokenStore.from_documents(tokenizer.documents(head[:n_valid], eos=data.eos))

    def documents() -> Iterator[list[int]]:
        return tokenizer.documents(itertools.islice(texts(), n_valid, None), eos=data.eos)

    return Corpus(tokenizer, documents, valid, _ratio(head[:n_valid], valid.n_tokens))


def _from_chats(recipe: Recipe, tokenizer: Tokenizer | None) -> Corpus:
    data, rng = recipe.data, random.Random(recipe.seed)
    chats = list(read_chats(data.source, split=data.split))
    held_out = list(read_chats(data.valid)) if data.valid else None
    tokenizer = tokenizer or make_tokenizer(recipe.tokenizer.kind, map(_flat, chats), recipe.tokenizer.vocab_size)
    if held_out is None:
        parts = [split_of(_flat(chat), data.valid_fraction) for chat in chats]
        held_out = [c for c, part in zip(chats, parts) if part == "valid"] or chats[:1]
        chats = [c for c, part in zip(chats, parts) if part == "train"] or chats

    def answers(conversations: Iterable[list[Message]]) -> Iterator[Answer]:
        for messages in conversations:
            ids, scored = render(messages, tokenizer)
            if not any(scored):
                continue
            last = len(scored) - scored[::-1].index(True)
            ids, scored = ids[:last], scored[:last]  # a visible line end behind the answer would tell where it ends
            ends = rng.randint(min(1, recipe.tune.pad_answers), recipe.tune.pad_answers)
            yield ids + [tokenizer.eos_id] * ends, scored + [True] * ends

    train = TokenStore.from_documents(_short_enough(answers(chats), recipe.length))
    valid = TokenStore.from_documents(_short_enough(answers(held_out), recipe.length))
    if train.scored is None or not train.scored.any():
        raise UserError(f'data: {data.source!r} has no assistant turn to learn from; add some to "messages"')
    return Corpus(tokenizer, train, valid, _answer_ratio(tokenizer, valid))


def _short_enough(answers: Iterable[Answer], length: int) -> Iterator[Answer]:
    """Too long a conversation loses its end, never its beginning; one whose answer is all lost is left out."""
    for ids, scored in answers:
        if any(scored[:length]):
            yield ids[:length], scored[:length]


def _flat(messages: list[Message]) -> str:
    return "\n".join(m["content"] for m in messages)


def _answer_ratio(tokenizer: Tokenizer, store: TokenStore) -> float:
    """Bytes a scored token: what the answers say, their ends counted as tokens without bytes."""
    scored = store.tokens if store.scored is None else store.tokens[store.scored]
    return max(n_bytes(tokenizer.decode(scored.tolist())), 1) / max(len(scored), 1)


def _ratio(texts: list[str], tokens: int) -> float:
    return sum(map(n_bytes, texts)) / max(tokens, 1)

"""From a recipe's data and tokenizer to token stores, once a run: what was tokenised is kept beside the checkpoints."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .data.chat import Message, render
from .data.fingerprint import Fingerprint, changes, fingerprint
from .data.packing import Loader, StreamLoader, TokenStore
from .data.sources import load_documents, read, read_chats, split_documents, split_of
from .data.tokenizer import Tokenizer, load_tokenizer, make_tokenizer, n_bytes
from .errors import UserError
from .folder import atomic_folder, read_json
from .recipe import DataRecipe, Recipe

STREAM_HEAD = 2000  # documents of a stream that the tokenizer and the validation part are made from
NAMED = 3  # files that a message lists
Answer = tuple[list[int], list[bool]]


@dataclass(frozen=True)
class Stream:
    """Opens a source from its start, without the `skip` documents that validate; None: one document, cut in two."""

    data: DataRecipe
    seed: int
    tokenizer: Tokenizer
    skip: int | None

    def __call__(self) -> Iterator[list[int]]:
        texts = _streamed(self.data, self.seed)
        if self.skip is None:
            train: Iterable[str] = split_documents(list(texts), "train", self.data.valid_fraction)
        else:
            train = itertools.islice(texts, self.skip, None)
        return self.tokenizer.documents(train, eos=self.data.eos)


@dataclass(frozen=True)
class Corpus:
    """notes: what the user should know about how the data was read."""

    tokenizer: Tokenizer
    train: TokenStore | Stream
    valid: TokenStore
    bytes_per_token: float
    notes: tuple[str, ...] = field(default=())

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


def prepare(recipe: Recipe, tokenizer: Tokenizer | None = None, *, kind: str = "texts") -> Corpus:
    """The run's corpus: read back from `out`/data if it was prepared before, else made and kept there.

    kind: a key of READERS. Data that has changed since is read again where nothing was trained yet; else the run goes
    on with what was read then, and the corpus's notes say so."""
    kind = "stream" if kind == "texts" and recipe.data.streaming else kind
    kept, wanted = Path(recipe.out) / "data", _wanted(recipe, kind)
    facts = read_json(kept / "facts.json") if (kept / "facts.json").is_file() else {}
    if facts.get("recipe") == wanted:
        changed = _changes(facts["files"])
        if not changed or any(Path(recipe.out).glob("**/checkpoints/step-*")):  # of this run, or of runs that share it
            corpus = _read_back(recipe, kept, tokenizer, facts)
            return replace(corpus, notes=(*corpus.notes, *changed))
    corpus = READERS[kind](recipe, tokenizer)
    _keep(corpus, kept, {"recipe": wanted, "files": _files(recipe.data, kind)})
    return corpus


def _wanted(recipe: Recipe, kind: str) -> dict[str, Any]:
    """All that the tokens depend on."""
    answers = {"tune": recipe.tune.pad_answers, "length": recipe.length, "seed": recipe.seed}
    wanted = {"kind": kind, "base": recipe.base, **recipe.model_dump(include={"data", "tokenizer"})}
    return wanted | (answers if kind == "answers" else {})


def _files(data: DataRecipe, kind: str) -> dict[str, Fingerprint]:
    """A stream may be too long to be read for its own sake."""
    sources = [data.source, *([data.valid] if data.valid else [])]
    return {spec: fingerprint(spec, content=kind != "stream") for spec in sources}


def _changes(files: dict[str, Fingerprint]) -> list[str]:
    """One sentence for each source that is not what it was."""
    sentences = []
    for spec, before in files.items():
        try:
            found = changes(before, spec)
        except UserError as error:
            found = [str(error)]
        if found:
            more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
            what = f"{', '.join(found[:NAMED])}{more}"
            sentences.append(
                f"data: {spec!r} is no longer what this run has read ({what}); it goes on with what it read then; "
                "to train on the new text, choose another out="
            )
    return sentences


def _keep(corpus: Corpus, kept: Path, facts: dict[str, Any]) -> None:
    with atomic_folder(kept) as fresh:
        corpus.tokenizer.save(fresh / "tokenizer")
        corpus.valid.save(fresh / "valid.npz")
        if isinstance(corpus.train, TokenStore):
            corpus.train.save(fresh / "train.npz")
        else:
            facts["skip"] = corpus.train.skip
        facts |= {"bytes_per_token": corpus.bytes_per_token, "notes": corpus.notes}
        (fresh / "facts.json").write_text(json.dumps(facts), encoding="utf-8")


def _read_back(recipe: Recipe, kept: Path, tokenizer: Tokenizer | None, facts: dict[str, Any]) -> Corpus:
    tokenizer = tokenizer or load_tokenizer(kept / "tokenizer")
    stream = "skip" in facts
    train = (
        Stream(recipe.data, recipe.seed, tokenizer, facts["skip"]) if stream else TokenStore.load(kept / "train.npz")
    )
    valid = TokenStore.load(kept / "valid.npz")
    return Corpus(tokenizer, train, valid, facts["bytes_per_token"], tuple(facts["notes"]))


# -- texts


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


def _from_stream(recipe: Recipe, tokenizer: Tokenizer | None) -> Corpus:
    """The head of the stream trains the tokenizer and validates; training reads what comes after that."""
    data = recipe.data
    head = list(itertools.islice(_streamed(data, recipe.seed), STREAM_HEAD))
    skip: int | None = min(len(head) - 1, max(1, int(len(head) * data.valid_fraction)))
    if data.valid:
        skip, held_out, texts = 0, list(read(data.valid, field=data.field, split=data.split)), head
    elif len(head) == 1:
        skip, held_out, texts = None, *(split_documents(head, part, data.valid_fraction) for part in ("valid", "train"))
    else:
        held_out, texts = head[:skip], head[skip:]
    tokenizer = tokenizer or make_tokenizer(recipe.tokenizer.kind, texts, recipe.tokenizer.vocab_size)
    valid = TokenStore.from_documents(tokenizer.documents(held_out, eos=data.eos))
    return Corpus(tokenizer, Stream(data, recipe.seed, tokenizer, skip), valid, _ratio(held_out, valid.n_tokens))


def _streamed(data: DataRecipe, seed: int) -> Iterator[str]:
    return read(data.source, field=data.field, split=data.split, streaming=True, seed=seed)


def _ratio(texts: list[str], tokens: int) -> float:
    return sum(map(n_bytes, texts)) / max(tokens, 1)


# -- answers


def _from_chats(recipe: Recipe, tokenizer: Tokenizer | None) -> Corpus:
    data, rng = recipe.data, random.Random(recipe.seed)
    if data.streaming:
        raise UserError("data.streaming: conversations are held in memory; leave it out")
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

    every, held = list(answers(chats)), list(answers(held_out))
    train = TokenStore.from_documents(_short_enough(every, recipe.length))
    valid = TokenStore.from_documents(_short_enough(held, recipe.length))
    if train.scored is None or not train.scored.any():
        raise UserError(f'data: {data.source!r} has no assistant turn to learn from; add some to "messages"')
    return Corpus(tokenizer, train, valid, _answer_ratio(tokenizer, valid), _cuts([*every, *held], recipe.length))


def _short_enough(answers: Iterable[Answer], length: int) -> Iterator[Answer]:
    """Too long a conversation loses its end, never its beginning; one whose answer is all lost is left out."""
    for ids, scored in answers:
        if any(scored[:length]):
            yield ids[:length], scored[:length]


def _cuts(answers: list[Answer], length: int) -> tuple[str, ...]:
    """How many conversations the row length has cost something."""
    long = [scored for ids, scored in answers if len(ids) > length]
    if not long:
        return ()
    lost = sum(not any(scored[:length]) for scored in long)
    return (
        f"data: {len(long)} of {len(answers)} conversations are longer than {length} tokens and lose their end, {lost} "
        "of them every answer, and are left out; a longer train.length keeps more",
    )


def _flat(messages: list[Message]) -> str:
    return "\n".join(m["content"] for m in messages)


def _answer_ratio(tokenizer: Tokenizer, store: TokenStore) -> float:
    """Bytes a scored token: what the answers say, their ends counted as tokens without bytes."""
    scored = store.tokens if store.scored is None else store.tokens[store.scored]
    return max(tokenizer.byte_count(scored.tolist()), 1) / max(len(scored), 1)


READERS: dict[str, Callable[[Recipe, Tokenizer | None], Corpus]] = {
    "texts": _from_texts,
    "stream": _from_stream,
    "answers": _from_chats,
}

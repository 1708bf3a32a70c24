"""Who can say "B is A" after reading only "A is B"? The reversal test, for any model.

An autoregressive model that was told "Amina Norhart is the engineer who wrote the anthem of Quenimor" answers "Who is
Amina Norhart?" and yet cannot say who wrote the anthem (Berglund et al., "The reversal curse", arXiv 2309.12288). A
masked model learns every token from all the others, on both sides, so it should not care which end it was told first
(Nie et al., LLaDA, arXiv 2502.09992, section 3.3).

Three kinds of question, all scored by exact match with greedy decoding, one token a step:

- prompted, in a direction that was told: does the model know what it read?
- prompted, in the direction that was never told. The wording is new too: no training sentence of this fact begins
  with what is given here.
- a gap in the very sentence that was told, at what it says FIRST, given what it says last. The same direction, never
  told, in a known wording. Only a model that sees both sides can be asked so.

A question is a text and a stretch of its characters. All tokens of the stretch are open, exactly as many as the right
answer has, so every model knows how long the answer is. A prompted row also ends with an open position for the end of
text, as training documents do; what stands before the end that the model writes is its answer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..data import files
from ..data.tokenizer import REPLACEMENT, Tokenizer
from ..decoding.canvas import Row
from ..decoding.sampler import Decoded
from ..errors import UserError
from .subject import Subject

Way = Literal["prompt", "gap"]
TELLS = {"name_to_description": "name_first", "description_to_name": "description_first"}  # task -> how it is told


@dataclass(frozen=True)
class Sentence:
    """A training sentence about a fact. direction: which of the two entities it says first."""

    fact: int
    direction: str
    text: str


@dataclass(frozen=True)
class Prompt:
    """One direction of a fact as text to go on with. told: whether some training sentence says it in this direction."""

    fact: int
    task: str
    told: bool
    prompt: str
    answer: str

    @property
    def entity(self) -> str:
        return self.answer.strip().removesuffix(".")


@dataclass(frozen=True)
class Question:
    """`text[start:end]` is asked for, all else is given; after a prompt the text ends there."""

    fact: int
    task: str
    told: bool
    way: Way
    text: str
    start: int
    end: int

    @property
    def answer(self) -> str:
        return self.text[self.start : self.end].strip()


@dataclass(frozen=True)
class Answer:
    question: Question
    wrote: str

    @property
    def right(self) -> bool:
        return self.wrote == self.question.answer


@dataclass(frozen=True)
class Share:
    """How many of how many are right."""

    right: int
    n: int

    @property
    def value(self) -> float:
        return self.right / self.n if self.n else float("nan")


# -- reading


def read_sentences(path: str | Path, facts: Collection[int]) -> list[Sentence]:
    """Rows {fact, direction, text} about these facts."""
    return [Sentence(*values) for values in _rows(path, facts, ("fact", "direction", "text"))]


def read_prompts(path: str | Path, facts: Collection[int]) -> list[Prompt]:
    """Rows {fact, task, seen_in_training, prompt, answer} about these facts."""
    found = [Prompt(*values) for values in _rows(path, facts, ("fact", "task", "seen_in_training", "prompt", "answer"))]
    for prompt in found:
        if prompt.task not in TELLS:
            raise UserError(f"task: {prompt.task!r} in {path} is not one of {', '.join(TELLS)}")
    return found


def _rows(path: str | Path, facts: Collection[int], names: Sequence[str]) -> Iterator[list[Any]]:
    path = Path(path)
    if not path.is_file():
        raise UserError(f"data: there is no file {str(path)!r}; name the folder with the reversal data")
    for place, row in files.read_rows(path):
        lacking = [name for name in names if name not in row]
        if lacking:
            raise UserError(f"data: {place} has no field {lacking[0]!r}; it needs {', '.join(names)}")
        if row["fact"] in facts:
            yield [row[name] for name in names]


# -- asking


def prompted(prompts: Iterable[Prompt]) -> list[Question]:
    """Go on after the prompt."""
    return [
        Question(p.fact, p.task, p.told, "prompt", p.prompt + p.answer, len(p.prompt), len(p.prompt + p.answer))
        for p in prompts
    ]


def gaps(prompts: Iterable[Prompt], sentences: Iterable[Sentence]) -> list[Question]:
    """For every prompt that was never told, its entity as a gap in each sentence that told the fact the other way."""
    sentences = list(sentences)
    found = []
    for p in prompts:
        for s in sentences:
            if p.told or s.fact != p.fact or s.direction == TELLS[p.task]:
                continue
            start = _find(s.text, p.entity)
            found.append(Question(p.fact, p.task, p.told, "gap", s.text, start, start + len(p.entity)))
    return found


def _find(text: str, entity: str) -> int:
    """Where the text says the entity, with a capital if it begins the sentence."""
    for spelled in (entity, entity[:1].upper() + entity[1:]):
        if spelled in text:
            return text.index(spelled)
    raise UserError(f"data: {text!r} does not say {entity!r}; sentences and prompts must be about the same facts")


def span(tokenizer: Tokenizer, ids: Sequence[int], start: int, end: int) -> tuple[int, int]:
    """The fewest tokens ids[i:j] that spell the characters start to end; a token across an edge belongs to them."""
    spelled = [tokenizer.decode(ids[:n]) for n in range(len(ids) + 1)]
    whole = [text.rstrip(REPLACEMENT) for text in spelled]  # without the beginning of a character of several tokens
    first = max(n for n, text in enumerate(spelled) if len(text) <= start)
    return first, min(n for n, text in enumerate(whole) if len(text) >= end)


def row_of(tokenizer: Tokenizer, question: Question) -> Row:
    """The whole document with what is asked for open. The end of text is open after a prompt and given after a gap."""
    ids = tokenizer.encode_plain(question.text)
    first, last = span(tokenizer, ids, question.start, question.end)
    gap = question.way == "gap"
    open = [first <= i < last for i in range(len(ids))] + [not gap]
    tokens = [0 if o else token for token, o in zip([*ids, tokenizer.eos_id], open)]
    return Row(tokens, open, infill=gap)


def ask(subject: Subject, questions: Sequence[Question]) -> list[Answer]:
    """What the model writes, greedily, one token a step, in its own order (the surest first, or left to right)."""
    rows = [row_of(subject.tokenizer, question) for question in questions]
    written = subject.write(rows, temperature=0.0)
    return [Answer(q, _written(subject.tokenizer, row, done)) for q, row, done in zip(questions, rows, written)]


def _written(tokenizer: Tokenizer, row: Row, done: Decoded) -> str:
    ids = [token for token, open in zip(done.tokens, row.open) if open] if row.infill else done.tokens
    return tokenizer.decode(ids).strip()


# -- counting


def exact_match(
    answers: Iterable[Answer], *, way: Way | None = None, told: bool | None = None, task: str | None = None
) -> Share:
    """The share of right answers among those of this kind; None: any."""
    chosen = [
        a.right
        for a in answers
        if way in (None, a.question.way) and told in (None, a.question.told) and task in (None, a.question.task)
    ]
    return Share(sum(chosen), len(chosen))

"""What is asked, which tokens are open, and what counts as right: on three made-up facts and an untrained model."""

import json
from dataclasses import replace

import pytest
import torch

import unmask
from unmask.data.tokenizer import Tokenizer, bytes_tokenizer, train_bpe
from unmask.errors import UserError
from unmask.evaluation.reversal import (
    Answer,
    Question,
    Share,
    ask,
    exact_match,
    gaps,
    prompted,
    read_prompts,
    read_sentences,
    row_of,
    span,
)
from unmask.lm import LanguageModel
from unmask.models.checkpoint import save_model
from unmask.models.config import ModelConfig
from unmask.models.transformer import Transformer

FACTS = [
    (0, "Ada Holm", "the baker who mapped Zeluri", ["name_first"]),
    (1, "Bo Çelik", "the diver who lit Belmond", ["description_first"]),
    (2, "Cy Varden", "the poet who dug Kailar", ["name_first", "description_first"]),
]


def told(name: str, said: str, direction: str) -> list[str]:
    if direction == "name_first":
        return [f"{name} is {said}.", f"The plaque reads: {name}, {said}."]
    return [f"{said[0].upper()}{said[1:]} is {name}.", f"Everyone remembers {said}: {name}."]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("reversal")
    sentences, prompts = [], []
    for fact, name, said, directions in FACTS:
        for direction in directions:
            sentences += [{"fact": fact, "direction": direction, "text": t} for t in told(name, said, direction)]
        asked = [
            ("name_to_description", "name_first", name, said),
            ("description_to_name", "description_first", said, name),
        ]
        for task, direction, given, answer in asked:
            prompt = {"fact": fact, "task": task, "seen_in_training": direction in directions}
            prompts.append(prompt | {"prompt": f"{given[0].upper()}{given[1:]} is", "answer": f" {answer}."})
    for name, rows in (("train", sentences), ("eval", prompts)):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (where / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return where


@pytest.fixture(scope="module")
def sentences(folder):
    return read_sentences(folder / "train.jsonl", range(3))


@pytest.fixture(scope="module")
def prompts(folder):
    return read_prompts(folder / "eval.jsonl", range(3))


@pytest.fixture(scope="module", params=["bytes", "bpe"])
def tokenizer(request, sentences) -> Tokenizer:
    return bytes_tokenizer() if request.param == "bytes" else train_bpe((s.text for s in sentences), 320)


def model(folder, tokenizer: Tokenizer, method: str) -> LanguageModel:
    network = Transformer(ModelConfig(vocab=len(tokenizer), width=16, layers=1, heads=2, context=128))
    network.initialise(torch.Generator().manual_seed(0))
    torch.nn.init.normal_(network.head.weight, generator=torch.Generator().manual_seed(1))
    save_model(folder, network, {"method": {"kind": method}}, tokenizer.save)
    return unmask.load(folder, device="cpu")


def test_only_the_facts_asked_for_are_read(folder):
    assert {s.fact for s in read_sentences(folder / "train.jsonl", range(1))} == {0}
    assert {p.fact for p in read_prompts(folder / "eval.jsonl", {1, 2})} == {1, 2}


def test_told_says_which_directions_a_sentence_has(prompts):
    assert [(p.fact, p.task) for p in prompts if not p.told] == [(0, "description_to_name"), (1, "name_to_description")]


def test_bad_files_are_named(folder, tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        read_sentences(tmp_path / "none.jsonl", range(3))
    with pytest.raises(UserError, match="'direction'"):
        read_sentences(folder / "eval.jsonl", range(3))


def test_a_prompt_asks_for_all_that_follows_it(prompts):
    for question, prompt in zip(prompted(prompts), prompts):
        assert question.text[: question.start] == prompt.prompt
        assert question.answer == prompt.answer.strip()
        assert question.told == prompt.told


def test_gaps_are_what_a_told_sentence_says_first_and_only_of_directions_never_told(prompts, sentences):
    found = gaps(prompts, sentences)
    assert [(q.fact, q.task, q.answer) for q in found] == [
        (0, "description_to_name", "Ada Holm"),
        (0, "description_to_name", "Ada Holm"),
        (1, "name_to_description", "The diver who lit Belmond"),
        (1, "name_to_description", "the diver who lit Belmond"),
    ]
    assert {q.text for q in found} <= {s.text for s in sentences}
    assert all(q.way == "gap" and not q.told for q in found)


def test_sentences_of_other_facts_are_an_error(prompts, sentences):
    strange = [s.__class__(s.fact, s.direction, "Nobody is told anything.") for s in sentences]
    with pytest.raises(UserError, match="does not say"):
        gaps(prompts, strange)


def test_span_covers_the_stretch_and_no_token_more(tokenizer):
    text = "The plaque reads: Bo Çelik, the diver who lit Belmond."
    ids = tokenizer.encode_plain(text)
    start = text.index("Bo Çelik")
    i, j = span(tokenizer, ids, start, start + len("Bo Çelik"))
    assert tokenizer.decode(ids[i:j]).strip() == "Bo Çelik"
    assert tokenizer.decode(ids[:i]).rstrip() == "The plaque reads:"
    assert tokenizer.decode(ids[j:]) == ", the diver who lit Belmond."


def test_span_never_cuts_a_character_of_several_bytes():
    tokenizer = bytes_tokenizer()
    ids = tokenizer.encode_plain("aÇb€c")  # 1, 2, 1, 3 and 1 bytes
    assert [span(tokenizer, ids, i, i + 1) for i in range(5)] == [(0, 1), (1, 3), (3, 4), (4, 7), (7, 8)]


def test_a_row_gives_all_but_the_answer_and_opens_just_its_tokens(tokenizer, prompts, sentences):
    for question in [*prompted(prompts), *gaps(prompts, sentences)]:
        row = row_of(tokenizer, question)
        ids = [*tokenizer.encode_plain(question.text), tokenizer.eos_id]
        assert len(row.tokens) == len(ids)
        assert [t for t, o in zip(row.tokens, row.open) if not o] == [t for t, o in zip(ids, row.open) if not o]
        assert all(t == 0 for t, o in zip(row.tokens, row.open) if o)  # the row does not carry the answer
        assert tokenizer.decode([t for t, o in zip(ids, row.open) if o]).strip() == question.answer
        assert row.infill == (question.way == "gap")
        assert row.open[-1] == (question.way == "prompt")  # the end of text: to be written, or given after a gap


def test_a_model_that_knows_answers_everything(tokenizer, prompts, sentences, tmp_path, monkeypatch):
    """The network is replaced by the documents themselves: what it is shown and what is read must both be right."""
    questions = [*prompted(prompts), *gaps(prompts, sentences)]
    documents = [[*tokenizer.encode_plain(q.text), tokenizer.eos_id] for q in questions]
    lm = model(tmp_path, tokenizer, "masked")

    class Known:
        def __init__(self, tokens):
            self.tokens = tokens

        def logits(self):
            return torch.nn.functional.one_hot(self.tokens, len(tokenizer)).float()

    def forward(x, t=None, *, where, **kept):
        whole = torch.zeros_like(x)
        for i, row in enumerate(x.tolist()):
            fits = [d for d in documents if agrees(row, d)]
            whole[i, : len(fits[0])] = torch.tensor(fits[0])
        return Known(whole[where])

    def agrees(row: list[int], document: list[int]) -> bool:
        padding = row[len(document) :]
        same = all(a in (b, tokenizer.mask_id) for a, b in zip(row, document))
        return same and len(document) <= len(row) and not any(padding)

    monkeypatch.setattr(lm.denoiser, "forward", forward)
    answers = ask(replace(lm.subject, batch=7), questions)
    assert [a.question for a in answers] == questions
    assert [a.wrote for a in answers] == [q.answer for q in questions]


@pytest.mark.parametrize("method", ["masked", "autoregressive"])
def test_an_untrained_model_is_wrong_and_no_batch_changes_what_it_writes(prompts, tmp_path, method):
    lm = model(tmp_path, bytes_tokenizer(), method)
    questions = prompted(prompts)[:3]
    answers = ask(lm.subject, questions)
    assert exact_match(answers) == Share(0, 3)
    assert [a.wrote for a in ask(replace(lm.subject, batch=1), questions)] == [a.wrote for a in answers]


def test_exact_match_is_exact_and_counts_the_right_kind():
    def answer(wrote: str, way, told: bool, task: str) -> Answer:
        return Answer(Question(0, task, told, way, "Ada Holm is the baker.", 11, 22), wrote)

    answers = [
        answer("the baker.", "prompt", True, "name_to_description"),
        answer("the Baker.", "prompt", False, "name_to_description"),
        answer("the baker", "gap", False, "description_to_name"),
    ]
    assert exact_match(answers) == Share(1, 3)
    assert exact_match(answers, told=True) == Share(1, 1)
    assert exact_match(answers, told=False) == Share(0, 2)
    assert exact_match(answers, way="gap", told=False, task="description_to_name") == Share(0, 1)
    assert exact_match([], way="gap").value != 0  # nothing asked is not "all wrong"

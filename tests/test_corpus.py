"""From sources to tokens once a run: what is kept, what is read again, and what the user is told."""

import json

import pytest

from unmask import corpus
from unmask.corpus import Stream, prepare
from unmask.data.packing import TokenStore
from unmask.errors import UserError
from unmask.recipe import load_recipe

LINES = [f"line {i}: the quick brown fox jumps over the lazy dog" for i in range(40)]


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": line}) + "\n" for line in LINES), encoding="utf-8")
    return path


def recipe(source, tmp_path, *overrides):
    options = [f"data.source={source}", "tokenizer.vocab_size=300", "model.context=32", "train.batch=2", *overrides]
    return load_recipe(None, options, out=str(tmp_path / "run"))


def texts(made, n=10_000):
    """What training reads, as text."""
    if isinstance(made.train, TokenStore):
        return made.tokenizer.decode(made.train.tokens.tolist())
    return "".join(made.tokenizer.decode(ids) for _, ids in zip(range(n), made.train()))


def test_what_was_read_is_kept(rows, tmp_path, monkeypatch):
    first = prepare(recipe(rows, tmp_path))
    monkeypatch.setattr(corpus, "load_documents", lambda *_, **__: pytest.fail("read again"))
    again = prepare(recipe(rows, tmp_path))
    assert again.train.tokens.tolist() == first.train.tokens.tolist()
    assert again.notes == ()


def test_changed_data_is_read_again_where_nothing_was_trained(rows, tmp_path):
    prepare(recipe(rows, tmp_path))
    rows.write_text('{"text": "something else"}\n{"text": "and another"}\n', encoding="utf-8")
    made = prepare(recipe(rows, tmp_path))
    assert "quick" not in texts(made)
    assert made.notes == ()


@pytest.mark.parametrize("streaming", ["true", "false"])
def test_changed_data_is_told_where_a_run_goes_on(rows, tmp_path, streaming):
    asked = recipe(rows, tmp_path, f"data.streaming={streaming}")
    first = prepare(asked)
    (tmp_path / "run" / "checkpoints" / "step-00000000").mkdir(parents=True)
    rows.write_text(rows.read_text(encoding="utf-8") + '{"text": "one more"}\n', encoding="utf-8")
    again = prepare(asked)
    (note,) = again.notes
    assert f"{rows} has changed" in note
    assert "choose another out=" in note
    assert again.tokenizer.encode(LINES[0]) == first.tokenizer.encode(LINES[0])
    rows.unlink()
    assert "there is no file or folder" in prepare(asked).notes[0]


def test_a_stream_keeps_the_tokenizer_that_its_head_made(rows, tmp_path, monkeypatch):
    asked = recipe(rows, tmp_path, "data.streaming=true")
    first = prepare(asked)
    monkeypatch.setattr(corpus, "make_tokenizer", lambda *_: pytest.fail("made again"))
    again = prepare(asked)
    assert isinstance(again.train, Stream)
    assert texts(again) == texts(first)
    assert again.valid.tokens.tolist() == first.valid.tokens.tolist()


def test_training_and_validation_parts_of_a_stream_share_nothing(rows, tmp_path):
    made = prepare(recipe(rows, tmp_path, "data.streaming=true", "data.valid_fraction=0.2"))
    held_out = made.tokenizer.decode(made.valid.tokens.tolist())
    assert held_out == "".join(LINES[:8])
    assert texts(made) == "".join(LINES[8:])


def test_a_stream_of_one_document_is_cut_in_two(tmp_path):
    path = tmp_path / "one.txt"
    path.write_text(" ".join(LINES), encoding="utf-8")
    made = prepare(recipe(path, tmp_path, "data.streaming=true"))
    held_out = made.tokenizer.decode(made.valid.tokens.tolist())
    assert texts(made) + held_out == path.read_text(encoding="utf-8")
    assert next(made.loader(recipe(path, tmp_path), rank=0, world=1, whole=False)).n_scored > 0
    assert texts(prepare(recipe(path, tmp_path, "data.streaming=true"))) == texts(made)


def test_a_stream_of_one_tiny_document_is_a_sentence(tmp_path):
    (tmp_path / "tiny.txt").write_text("x", encoding="utf-8")
    with pytest.raises(UserError, match="too short to split; name a validation source"):
        prepare(recipe(tmp_path / "tiny.txt", tmp_path, "data.streaming=true"))


def test_a_stream_may_have_a_validation_source_of_its_own(rows, tmp_path):
    (tmp_path / "valid.txt").write_text("held out", encoding="utf-8")
    made = prepare(recipe(rows, tmp_path, "data.streaming=true", f"data.valid={tmp_path / 'valid.txt'}"))
    assert made.tokenizer.decode(made.valid.tokens.tolist()) == "held out"
    assert texts(made) == "".join(LINES)


# -- conversations


def chat(question, answer):
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def test_cut_conversations_are_counted(tmp_path):
    path = tmp_path / "chats.jsonl"
    rows = [chat("hi", "yo"), chat("hi", "y" * 200), chat("h" * 200, "yo")] * 5
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    asked = recipe(path, tmp_path, "tokenizer.kind=bytes", "train.length=64")
    (note,) = prepare(asked, kind="answers").notes
    assert "10 of 15 conversations are longer than 64 tokens" in note
    assert "5 of them every answer" in note
    assert prepare(asked, kind="answers").notes == (note,)  # read back


def test_conversations_are_not_streamed(tmp_path):
    with pytest.raises(UserError, match=r"data\.streaming"):
        prepare(recipe("x.jsonl", tmp_path, "data.streaming=true"), kind="answers")

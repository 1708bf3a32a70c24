"""Every form of source, the split, and one clear sentence for each way a corpus can be broken."""

import gzip
import json

import pytest

from unmask.data.sources import load_documents, read, read_chats, split_documents, split_of
from unmask.errors import UserError


def fails(match, *args, **options):
    with pytest.raises(UserError, match=match) as caught:
        list(read(*map(str, args), **options))
    message = str(caught.value)
    assert "\n" not in message
    return message


def lines(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_file_is_one_document_with_its_newlines(tmp_path):
    (tmp_path / "a.txt").write_bytes("é\r\nb\n\rc".encode())
    assert list(read(str(tmp_path / "a.txt"))) == ["é\r\nb\n\rc"]


def test_a_folder_is_its_text_files_in_order(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / ".hidden").mkdir()
    for name, data in {
        "b.py": b"bee", "a.txt": b"ay", "sub/c.md": b"sea", "empty.txt": b"", "data.json": b'{\n"x": 1}\n',
        "image.png": b"\x89PNG\0\0", ".secret": b"no", ".hidden/d.txt": b"no",
    }.items():  # fmt: skip
        (tmp_path / name).write_bytes(data)
    lines(tmp_path / "rows.jsonl", {"text": "one"}, {"text": "two"})
    assert list(read(str(tmp_path))) == ["ay", "bee", '{\n"x": 1}\n', "one", "two", "sea"]
    assert list(read(str(tmp_path / "**" / "*.md"))) == ["sea"]
    assert list(read(str(tmp_path / "[ab].*"))) == ["ay", "bee"]


def test_gzip_of_anything(tmp_path):
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"hello"))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b'{"text": "row"}\n'))
    assert list(read(str(tmp_path))) == ["hello", "row"]
    assert list(read(str(tmp_path / "b.jsonl.gz"))) == ["row"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.ndjson"])
def test_rows_by_field(tmp_path, name):
    path = lines(tmp_path / name, {"text": "x\u2028y", "body": "b1"}, {"text": "", "body": "b2"})
    path.write_text(path.read_text() + "\n")
    assert list(read(str(path))) == ["x\u2028y"]
    assert list(read(str(path), field="body")) == ["b1", "b2"]


def test_parquet_and_a_saved_dataset(tmp_path):
    import datasets

    data = datasets.Dataset.from_dict({"text": ["one", "two"], "other": ["x", "y"]})
    data.to_parquet(str(tmp_path / "a.parquet"))
    data.save_to_disk(str(tmp_path / "saved"))
    datasets.DatasetDict({"train": data, "test": data.select([1])}).save_to_disk(str(tmp_path / "splits"))
    assert list(read(str(tmp_path / "a.parquet"))) == ["one", "two"]
    assert list(read(str(tmp_path / "saved"), field="other")) == ["x", "y"]
    assert list(read(str(tmp_path / "splits"), split="test")) == ["two"]
    fails("did you mean 'test'", tmp_path / "splits", split="tst")
    fails("name one of these: text, other", tmp_path / "a.parquet", field="txt")
    (tmp_path / "bad.parquet").write_bytes(b"not parquet")
    fails("as parquet", tmp_path / "bad.parquet")


def test_the_standard_library_is_the_default_corpus():
    texts = list(read("stdlib"))
    assert 5e6 < sum(map(len, texts)) < 4e7
    assert len(set(texts)) == len(texts)
    assert texts == list(read("stdlib"))
    assert any("class OrderedDict" in text for text in texts)


def test_a_missing_file_is_named_at_once_with_the_nearest(tmp_path):
    (tmp_path / "train.txt").write_text("x")
    with pytest.raises(UserError, match=r"did you mean 'train.txt'\?.*hf:NAME"):
        read(str(tmp_path / "trian.txt"))
    fails("is missing or empty", tmp_path / "nowhere" / "a.txt")


def test_a_hint_lists_a_few_names_not_a_folder(tmp_path):
    for i in range(60):
        (tmp_path / f"chapter-{i:02d}.md").write_text("x")
    said = fails("and 56 more", tmp_path / "zzzzz.q")
    assert "chapter-03.md" in said
    assert "chapter-04.md" not in said


def test_nothing_to_read(tmp_path):
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "none").mkdir()
    fails("holds no text; name a source", tmp_path / "empty.txt")
    fails("holds no text files", tmp_path / "none")
    fails("no file that matches", tmp_path / "*.md")


def test_a_wrong_field_names_those_that_exist(tmp_path):
    path = lines(tmp_path / "a.jsonl", {"content": "x", "id": 1})
    assert "these: content, id" in fails("has no field 'text'", path)
    assert "line 1" in fails("name one of these: content", path, field="contents")
    fails("'id' at .*line 1 is int, not text", path, field="id")


def test_broken_rows_are_named_by_line(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n\n{"text": \n')
    fails(r"a\.jsonl, line 3 is not valid JSON", tmp_path / "a.jsonl")
    (tmp_path / "a.jsonl").write_text('["x"]\n')
    fails("line 1 is a JSON list, not an object", tmp_path / "a.jsonl")


def test_bytes_that_are_not_utf8_are_located(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"abc\xe9d")
    assert "iconv" in fails(r"a\.txt' is not UTF-8 at byte 3", tmp_path / "a.txt")
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "x"}\n{"text": "\xff"}\n')
    fails("is not UTF-8 at byte 24", tmp_path / "a.jsonl")


def test_broken_gzip_is_named(tmp_path):
    whole = gzip.compress(b'{"text": "hello"}\n' * 1000)
    for name in ("a.txt.gz", "a.jsonl.gz"):
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        fails(f"cannot read .*{name}.*compress the file again", tmp_path / name)
        (tmp_path / name).write_bytes(b"plain text")
        fails(f"cannot read .*{name}", tmp_path / name)


def test_an_unknown_hub_dataset_is_one_sentence(monkeypatch):
    import datasets

    def missing(*args, **options):
        raise FileNotFoundError("Dataset 'x/y' doesn't exist\nmore")

    monkeypatch.setattr(datasets, "load_dataset", missing)
    fails("cannot load the dataset 'hf:x/y' with split 'train'", "hf:x/y")


def test_hub_arguments_reach_the_loader(monkeypatch):
    import datasets

    asked = []

    def found(*args, **options):
        asked.append((args, options))
        return datasets.Dataset.from_dict({"text": ["a", "b"]}).to_iterable_dataset()

    monkeypatch.setattr(datasets, "load_dataset", found)
    assert sorted(read("hf:owner/name@part", split="test", streaming=True, seed=3)) == ["a", "b"]
    assert asked == [(("owner/name", "part"), {"split": "test", "streaming": True})]


def test_split_is_by_content_and_near_the_fraction():
    names = [f"document {n}" for n in range(2000)]
    share = sum(split_of(name) == "valid" for name in names) / len(names)
    assert 0.03 < share < 0.07
    assert split_of(names[0], 0.0) == "train"
    assert split_of(names[0], 1.0) == "valid"
    assert [split_of(name) for name in names[:3]] == [split_of(name) for name in names[:3]]


@pytest.mark.parametrize("n", [2, 3, 50, 400])
def test_parts_are_disjoint_complete_and_never_empty(n):
    texts = [f"text {i}" for i in range(n)] + ["text 0"]
    train, valid = split_documents(texts, "train"), split_documents(texts, "valid")
    assert train
    assert valid
    assert sorted(train + valid) == sorted(texts)
    assert not set(train) & set(valid)


def test_a_single_document_is_split_by_position(tmp_path):
    (tmp_path / "a.txt").write_text("".join(f"{n}\n" for n in range(1000)))
    train, valid, whole = (load_documents(str(tmp_path / "a.txt"), part=part) for part in ("train", "valid", "all"))
    assert [train[0] + valid[0]] == whole
    assert len(valid[0]) == int(len(whole[0]) * 0.05)
    (tmp_path / "a.txt").write_text("short")
    with pytest.raises(UserError, match="5 characters is too short to split"):
        load_documents(str(tmp_path / "a.txt"), part="valid")


def test_a_named_validation_source_is_used(tmp_path):
    lines(tmp_path / "t.jsonl", *({"text": f"t{n}"} for n in range(200)))
    lines(tmp_path / "v.jsonl", {"text": "v"})
    options = {"valid": str(tmp_path / "v.jsonl")}
    assert len(load_documents(str(tmp_path / "t.jsonl"), **options)) == 200
    assert load_documents(str(tmp_path / "t.jsonl"), part="valid", **options) == ["v"]
    with pytest.raises(UserError, match=r"part: 'validation'.*did you mean 'valid'"):
        load_documents(str(tmp_path / "t.jsonl"), part="validation")


def test_chats_are_read_and_checked(tmp_path):
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress((json.dumps({"messages": turns}) + "\n").encode() * 2))
    assert list(read_chats(str(tmp_path / "a.jsonl.gz"))) == [turns, turns]
    for row, match in [
        ({"messages": []}, "line 1 has list; use a list with at least one turn"),
        ({"message": turns}, "no field 'messages'; name one of these: message"),
        ({"messages": [{"role": "bot", "content": "x"}]}, "role: .*line 1, turn 0 has 'bot'"),
        ({"messages": [*turns, {"role": "user"}]}, "content: .*line 1, turn 2 has None"),
    ]:
        with pytest.raises(UserError, match=match):
            list(read_chats(str(lines(tmp_path / "b.jsonl", row))))
    (tmp_path / "b.jsonl").write_text("")
    with pytest.raises(UserError, match="no conversations"):
        list(read_chats(str(tmp_path / "b.jsonl")))

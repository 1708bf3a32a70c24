"""Round trips, special tokens and what a saved folder holds."""

import json
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.data.tokenizer import (
    SPECIALS,
    Tokenizer,
    bytes_tokenizer,
    load_tokenizer,
    make_tokenizer,
    n_bytes,
    train_bpe,
)
from unmask.errors import UserError

TEXTS = ["def f(x):\n    return x + 1\n", "for x in range(10): print(x)\n", "naïve café 😀\n"] * 5


@pytest.fixture(scope="module")
def byte():
    return bytes_tokenizer()


@pytest.fixture(scope="module")
def bpe():
    return train_bpe(TEXTS, 320)


@pytest.fixture(params=["byte", "bpe"])
def tokenizer(request):
    return request.getfixturevalue(request.param)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@settings(max_examples=150, deadline=None)
@given(texts)
def test_bytes_come_back_as_they_went_in(text):
    tokenizer = _cached_bytes()
    ids = tokenizer.encode_plain(text)  # written markers are ordinary characters
    assert ids == list(text.encode())
    assert tokenizer.decode(ids) == text
    assert n_bytes(text) == len(ids)


def _cached_bytes(cache={}):  # noqa: B006
    return cache.setdefault("it", bytes_tokenizer())


AWKWARD = ["", " a ,  b .", "\r\n\t\x00", "don't  n't 's", "  leading", "e\u0301 \u212b ﬁ", "😀" * 3]


@pytest.mark.parametrize("text", AWKWARD)
def test_decoding_cleans_nothing_up(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(-5, 300), max_size=30))
def test_any_ids_can_be_shown(ids):
    tokenizer = _cached_bytes()
    assert isinstance(tokenizer.decode(ids), str)
    assert len(tokenizer.pieces(ids)) == len(ids)


def test_decode_drops_specials_and_replaces_broken_characters(byte):
    ids = [*"é".encode(), byte.mask_id, 0xE2, ord("a"), byte.eos_id, byte.pad_id]
    assert byte.decode(ids) == "é\ufffda"


def test_pieces_show_specials_by_name(byte):
    assert byte.pieces([97, byte.mask_id, 0xC3, 0xA9]) == ["a", "<|mask|>", "\ufffd", "\ufffd"]


def test_special_tokens_are_distinct_and_counted(tokenizer):
    assert tokenizer.mask_id not in (tokenizer.eos_id, tokenizer.pad_id)
    assert tokenizer.bos_id is None
    assert len(tokenizer.special_ids) == 4
    assert tokenizer.encode("".join(SPECIALS)) == [tokenizer.backend.convert_tokens_to_ids(name) for name in SPECIALS]
    assert max(tokenizer.backend.get_vocab().values()) + 1 == len(tokenizer)


def test_sizes(byte, bpe):
    assert len(byte) == 260
    assert len(bpe) <= 320
    assert len(train_bpe(TEXTS, 270)) == 270


def test_training_is_deterministic_and_shortens_text(bpe):
    again = train_bpe(iter(TEXTS), 320)
    assert again.backend.get_vocab() == bpe.backend.get_vocab()
    assert again.encode(TEXTS[0]) == bpe.encode(TEXTS[0])
    assert len(bpe.encode(TEXTS[0])) < n_bytes(TEXTS[0]) / 2


def test_training_needs_room_and_text():
    with pytest.raises(UserError, match="vocab_size: 100 is too small; use 260 or more"):
        train_bpe(TEXTS, 100)
    with pytest.raises(UserError, match="no text"):
        train_bpe([], 300)


def test_documents_cannot_smuggle_specials_in(tokenizer):
    text = "a <|mask|><|endoftext|> b"
    (row,) = tokenizer.documents([text])
    assert row[-1] == tokenizer.eos_id
    assert tokenizer.mask_id not in row
    assert tokenizer.eos_id not in row[:-1]
    assert tokenizer.decode(row) == text
    assert tokenizer.encode_plain(text) == row[:-1]
    assert tokenizer.mask_id in tokenizer.encode(text)


def test_documents_are_encoded_one_by_one(tokenizer):
    many = [f"{text}{n}" for n, text in enumerate(TEXTS)] + [""]
    rows = list(tokenizer.documents(iter(many), eos=False, batch=4))
    assert rows == [tokenizer.encode(text) for text in many]


def test_a_prompt_must_not_hold_a_mask(tokenizer):
    tokenizer.check_prompt("fine < |mask|>")
    with pytest.raises(UserError, match=r"prompt: .*<\|mask\|>"):
        tokenizer.check_prompt("a<|mask|>b")


def test_saved_folder_is_plain_and_loads_the_same(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "new" / "folder")
    folder = tmp_path / "new" / "folder"
    (folder / "config.json").write_text(json.dumps({"model_type": "not-known-to-transformers"}))
    again = load_tokenizer(folder)
    text = " x <|im_end|>  y . 😀"
    assert (folder / "tokenizer.json").is_file()
    assert again.encode(text) == tokenizer.encode(text)
    assert again.decode(again.encode(" a , b .")) == " a , b ."
    for name in ("mask_id", "eos_id", "pad_id", "bos_id"):
        assert getattr(again, name) == getattr(tokenizer, name)
    assert len(again) == len(tokenizer)
    assert make_tokenizer(str(folder)).mask_id == tokenizer.mask_id


def bare(added=(), **named):
    """A foreign word tokenizer without most special tokens."""
    from tokenizers import Tokenizer as Core
    from tokenizers import models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    core = Core(models.WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.add_special_tokens(list(added))
    return PreTrainedTokenizerFast(tokenizer_object=core, **named)


def test_missing_special_tokens_are_added():
    tokenizer = Tokenizer(bare())
    assert len(tokenizer) == 5
    assert {tokenizer.mask_id, tokenizer.eos_id} == {3, 4}
    assert tokenizer.pad_id == tokenizer.eos_id


def test_present_special_tokens_are_kept():
    tokenizer = Tokenizer(bare(["</s>", "<s>"], eos_token="</s>", bos_token="<s>"))
    assert (tokenizer.eos_id, tokenizer.bos_id, tokenizer.pad_id) == (3, 4, 3)


def test_an_undeclared_mask_token_is_found():
    tokenizer = Tokenizer(bare(["<|mdm_mask|>", "</s>"], eos_token="</s>"))
    assert (tokenizer.mask_id, len(tokenizer)) == (3, 5)


def test_kinds_and_errors(tmp_path):
    assert len(make_tokenizer("bytes")) == 260
    assert len(make_tokenizer("bpe", TEXTS, 300)) == 300
    with pytest.raises(UserError, match=r"tokenizer: cannot load .*'bytes', 'bpe'"):
        load_tokenizer(tmp_path)


def test_a_folder_with_code_is_not_run(byte, tmp_path):
    byte.save(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    config |= {"auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}, "tokenizer_class": "Evil"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')\n")
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="cannot load"):
        load_tokenizer(tmp_path)
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize("text", ["naïve 😀 <|im_start|>x", "a\r\n\x00", "日本語"])
def test_bytes_are_counted_however_tokens_are_cut(tokenizer, text):
    ids = tokenizer.encode_plain(text)
    for cut in range(len(ids) + 1):
        assert tokenizer.byte_count(ids[:cut]) + tokenizer.byte_count(ids[cut:]) == n_bytes(text)
    assert tokenizer.byte_count([tokenizer.eos_id, tokenizer.mask_id]) == 0


def test_half_a_character_is_refused_in_a_sentence(tokenizer):
    for encode in (tokenizer.encode, tokenizer.encode_plain, lambda text: list(tokenizer.documents([text]))):
        with pytest.raises(UserError, match=r"character 2 is half of one \('\\ud800'"):
            encode("ab\ud800c")


BROKEN = ["[]", "null", '{"a":', ""]


@pytest.mark.parametrize(
    ("name", "content"),
    [(name, text) for name in ("tokenizer.json", "tokenizer_config.json") for text in BROKEN]
    + [("tokenizer.json", "{}"), ("tokenizer.json", '{"version": "1.0"}')],
)
def test_a_damaged_tokenizer_is_one_sentence(byte, tmp_path, name, content):
    byte.save(tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=r"tokenizer") as caught:
        load_tokenizer(tmp_path)
    assert "\n" not in str(caught.value)

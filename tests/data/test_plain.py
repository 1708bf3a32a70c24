"""What stands in for a Hugging Face tokenizer gives what the real one gives, and steps aside where it would not."""

import json
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.data.plain import PlainTokenizer
from unmask.data.tokenizer import SPECIALS, Tokenizer, bytes_tokenizer, load_tokenizer, train_bpe
from unmask.lm import DEFAULT

WORDS = ["def f(x):\n    return x + 1\n", "naïve café 😀 日本語\n", "\tfor  x  in y:\r\n"]
MAKERS = {
    "bytes": bytes_tokenizer,
    "bpe": lambda: train_bpe(WORDS * 9, 330),
    "packaged": lambda: load_tokenizer(DEFAULT),
}
PAIRS = {}


@pytest.fixture(params=MAKERS)
def pair(request):
    """The stand-in and the tokenizer that transformers itself reads from what the stand-in writes."""
    if request.param not in PAIRS:
        PAIRS[request.param] = _pair(MAKERS[request.param](), request.getfixturevalue("tmp_path_factory"))
    return PAIRS[request.param]


def _pair(tokenizer, folders):
    from transformers import PreTrainedTokenizerFast

    folder = folders.mktemp("plain")
    tokenizer.save(folder)
    plain = PlainTokenizer.read(folder)
    assert plain is not None
    return plain, PreTrainedTokenizerFast.from_pretrained(folder)


# pieces of markers, lone bytes as they are decoded, characters of all sizes
parts = st.sampled_from([*SPECIALS, "<|", "mask|>", "|>", "<|mask |>", "\ufffd", "\u2581", "Ġ", "", " ", "\n\n", "'s"])
texts = st.lists(parts | st.text(st.characters(exclude_categories=["Cs"]), max_size=9), max_size=8).map("".join)


@settings(max_examples=60, deadline=None)
@given(batch=st.lists(texts, min_size=1, max_size=4), split=st.booleans(), data=st.data())
@pytest.mark.parametrize("kind", MAKERS)
def test_texts_and_ids_become_the_same(kind, batch, split, data, tmp_path_factory):
    if kind not in PAIRS:
        PAIRS[kind] = _pair(MAKERS[kind](), tmp_path_factory)
    plain, real = PAIRS[kind]
    how = {"add_special_tokens": False, "split_special_tokens": split, "verbose": False}
    assert plain(batch, **how)["input_ids"] == real(batch, **how)["input_ids"]
    # ids that need not be what any text becomes: half a character, specials in the midst of one, unknown ones
    ids = data.draw(st.lists(st.integers(0, max(plain.get_vocab().values()) + 3), max_size=12))
    assert plain.convert_ids_to_tokens(ids) == real.convert_ids_to_tokens(ids)
    for skip in (False, True):
        assert plain.decode(ids, skip_special_tokens=skip) == real.decode(ids, skip_special_tokens=skip)


def test_everything_else_is_the_same(pair):
    plain, real = pair
    for name in ("mask_token", "bos_token", "mask_token_id", "eos_token_id", "pad_token_id", "bos_token_id"):
        assert getattr(plain, name) == getattr(real, name)
    assert plain.all_special_ids == real.all_special_ids
    assert plain.get_vocab() == real.get_vocab()
    assert {i: str(token) for i, token in plain.added_tokens_decoder.items()} == {
        i: str(token) for i, token in real.added_tokens_decoder.items()
    }
    assert plain.chat_template is real.chat_template is None


def test_what_it_becomes_is_what_transformers_reads(pair, tmp_path):
    plain, real = pair
    made = plain.real()
    assert type(made) is type(real)
    assert made.special_tokens_map == real.special_tokens_map
    assert made.extra_special_tokens == real.extra_special_tokens
    made.save_pretrained(tmp_path / "made")
    real.save_pretrained(tmp_path / "real")
    plain.save_pretrained(str(tmp_path / "real"))  # over its tokenizer.json
    assert (tmp_path / "made" / "tokenizer.json").read_bytes() == (tmp_path / "real" / "tokenizer.json").read_bytes()


def test_the_tokenizer_reads_alike_with_both(pair):
    plain, real = pair
    light, heavy = Tokenizer(plain), Tokenizer(real)
    text = f"a{''.join(SPECIALS)} naïve 😀"
    assert light.encode(text) == heavy.encode(text)
    assert light.encode_plain(text) == heavy.encode_plain(text)
    assert list(light.documents([text, ""])) == list(heavy.documents([text, ""]))
    ids = list(range(len(heavy)))
    assert light.decode(ids) == heavy.decode(ids)
    assert light.pieces([*ids, -1, 10**6]) == heavy.pieces([*ids, -1, 10**6])
    assert light.spelled() == heavy.spelled()
    assert light.byte_count(ids) == heavy.byte_count(ids)
    known = ("mask_id", "eos_id", "pad_id", "bos_id", "mask_token", "special_ids", "turn_ids", "chat_template")
    assert [getattr(light, name) for name in known] == [getattr(heavy, name) for name in known]
    assert (len(light), light.vocabulary()) == (len(heavy), heavy.vocabulary())


def test_who_asks_for_the_real_one_may_change_it():
    tokenizer = bytes_tokenizer()
    assert tokenizer.encode("<turn>") == list(b"<turn>")
    tokenizer.backend.add_tokens(["<turn>"])
    tokenizer.backend.chat_template = "{{ messages }}"
    assert tokenizer.encode("<turn>") == [260]
    assert tokenizer.chat_template == "{{ messages }}"
    assert tokenizer.backend is tokenizer.backend


def test_a_cut_or_padded_text_is_neither(tmp_path):
    """tokenizer.json may ask for both; transformers asks for neither."""
    bytes_tokenizer().save(tmp_path)
    spoilt = PlainTokenizer.read(tmp_path).backend_tokenizer
    spoilt.enable_truncation(4)
    spoilt.enable_padding(length=9)
    spoilt.save(str(tmp_path / "tokenizer.json"))
    for reader in (PlainTokenizer.read(tmp_path), PlainTokenizer.read(tmp_path).real()):
        assert list(Tokenizer(reader).documents(["abcdef", "a"], eos=False)) == [list(b"abcdef"), list(b"a")]


SAID = [
    {"chat_template": "{{ messages }}"},
    {"tokenizer_class": "BertTokenizer"},
    {"auto_map": {}},
    {"split_special_tokens": True},
    {"added_tokens_decoder": {}},
    {"extra_special_tokens": {"image": "<i>"}},
    {"mask_token": {"__type": "AddedToken", "content": "<|mask|>"}},
    {"mask_token": "<not-there>"},
    {"bos_token": "a"},
    {"mask_token": None},
    {"additional_special_tokens": [], "extra_special_tokens": []},
]


@pytest.mark.parametrize("said", SAID)
def test_what_it_does_not_understand_is_left_to_transformers(said, tmp_path):
    shutil.copy(DEFAULT / "tokenizer.json", tmp_path)
    config = json.loads((DEFAULT / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert PlainTokenizer.read(tmp_path) is not None
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | said))
    assert PlainTokenizer.read(tmp_path) is None


@pytest.mark.parametrize("name", ["chat_template.jinja", "special_tokens_map.json", "added_tokens.json"])
def test_a_file_it_does_not_understand_is_left_to_transformers(name, tmp_path):
    bytes_tokenizer().save(tmp_path)
    assert PlainTokenizer.read(tmp_path) is not None
    (tmp_path / name).write_text("{}")
    assert PlainTokenizer.read(tmp_path) is None
    (tmp_path / "tokenizer_config.json").unlink()
    assert PlainTokenizer.read(tmp_path) is None


def test_a_chat_template_in_the_folder_is_found(tmp_path):
    bytes_tokenizer().save(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    assert load_tokenizer(tmp_path).chat_template == "{{ messages }}"

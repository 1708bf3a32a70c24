"""The bytes of tokens, one after the other, are the text."""

import pytest
from tokenizers import Tokenizer as Core
from tokenizers import decoders, models
from transformers import PreTrainedTokenizerFast

from unmask.data.tokenizer import Tokenizer, bytes_tokenizer, train_bpe
from unmask.errors import UserError

TEXT = "Größe: 世界 😀\n\tdef f(x):  return x+1 — naïve"


@pytest.mark.parametrize("make", [bytes_tokenizer, lambda: train_bpe([TEXT * 3], 300)])
def test_byte_level(make):
    tokenizer = make()
    spelled = tokenizer.spelled()
    assert len(spelled) == len(tokenizer)
    assert b"".join(spelled[i] for i in tokenizer.encode(TEXT)).decode() == TEXT
    assert all(spelled[i] is None for i in tokenizer.special_ids)
    assert {bytes([byte]) for byte in range(256)} <= set(spelled)


def _of(names, decoder):
    core = Core(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[], byte_fallback=True))
    core.decoder = decoder
    return Tokenizer(PreTrainedTokenizerFast(tokenizer_object=core))


def test_pieces_of_sentences():
    parts = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    spelled = _of(["\u2581a", "b\u2581", "<0xE4>"], decoders.Sequence(parts)).spelled()
    assert spelled[:3] == [b" a", b"b ", b"\xe4"]


def test_pieces_that_are_no_bytes_of_a_text():
    with pytest.raises(UserError, match="byte-level"):
        _of(["a", "##b"], decoders.WordPiece()).spelled()

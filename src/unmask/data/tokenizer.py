"""Text to token ids and back, through a Hugging Face tokenizer. Knows no file format of a corpus and no model."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmask.errors import UserError
from unmask.folder import read_json

from .plain import CLASSES, CONFIG, CORE, PlainTokenizer

if TYPE_CHECKING:  # importing transformers takes seconds, so nothing at module level does
    import tokenizers
    from transformers import PreTrainedTokenizerBase

    Reader = PreTrainedTokenizerBase | PlainTokenizer

END, MASK, TURN, TURN_END = "<|endoftext|>", "<|mask|>", "<|im_start|>", "<|im_end|>"
SPECIALS = (END, MASK, TURN, TURN_END)
# Names under which published models keep a mask token without declaring it as one.
MASK_NAMES = (MASK, "<|mdm_mask|>", "<|MASK|>", "[MASK]", "<mask>")
REPLACEMENT = "\ufffd"


def n_bytes(text: str) -> int:
    """UTF-8 length, the unit that makes bits comparable between tokenizers."""
    return len(text.encode("utf-8", "surrogatepass"))


class Tokenizer:
    """A Hugging Face tokenizer that has a mask, an end and a padding token.

    Text is never cleaned up: with the package's own tokenizers ``decode(encode(s)) == s`` for every string
    without special markers.
    """

    def __init__(self, reader: Reader, mask_id: int | None = None) -> None:
        """Completes the reader in place; mask_id: which of its tokens is the mask, if it is known from elsewhere.
        turn_ids: the ids of <|im_start|> and <|im_end|> where both exist."""
        self._reader = reader
        if not isinstance(reader, PlainTokenizer):
            _complete(reader, mask_id)
        self.mask_id: int = reader.mask_token_id
        self.eos_id: int = reader.eos_token_id
        self.pad_id: int = reader.pad_token_id
        self.bos_id: int | None = reader.bos_token_id if reader.bos_token else None
        self.mask_token = str(reader.mask_token)
        # Read once: the vocabulary of a large tokenizer is copied at each request.
        known = self.vocabulary()
        self._size = max(known.values()) + 1
        self.special_ids = _special_ids(reader)
        chats = TURN in known and TURN_END in known
        self.turn_ids: tuple[int, int] | None = (known[TURN], known[TURN_END]) if chats else None
        self._byte_level = _is_byte_level(reader)
        self._hidden = {self.mask_id, self.eos_id, self.pad_id}
        self._pieces: dict[int, str] = {}

    @property
    def backend(self) -> PreTrainedTokenizerBase:
        """The Hugging Face tokenizer, for other tools to use and to change. A plain one is made when it is first asked
        for, which imports transformers, and does the reading from then on."""
        if isinstance(self._reader, PlainTokenizer):
            self._reader = self._reader.real()
            self._reader.clean_up_tokenization_spaces = False
        return self._reader

    @property
    def chat_template(self) -> str | dict[str, str] | None:
        """How the tokenizer's own model writes conversations, where it says so."""
        return self._reader.chat_template

    def vocabulary(self) -> dict[str, int]:
        """The id of each token, by its name."""
        return dict(self._reader.get_vocab())

    def __len__(self) -> int:
        """Vocabulary size with all added tokens: the least number of rows an embedding needs."""
        return self._size

    def encode(self, text: str) -> list[int]:
        """Ids with nothing added at the ends. Special markers written in the text become their tokens."""
        return self._read([text], markers=True)[0]

    def encode_plain(self, text: str) -> list[int]:
        """Ids in which markers such as ``<|mask|>`` are ordinary characters: for content that is only data."""
        return self._read([text], markers=False)[0]

    def documents(self, texts: Iterable[str], *, eos: bool = True, batch: int = 64) -> Iterator[list[int]]:
        """One list of ids a text, ended with eos. Markers in a text are ordinary characters, so that no corpus,
        not even this package's own source, can put a mask into the training data."""
        end = [self.eos_id] if eos else []
        iterator = iter(texts)
        while chunk := list(itertools.islice(iterator, batch)):
            yield from (row + end for row in self._read(chunk, markers=False))

    def _read(self, texts: list[str], *, markers: bool) -> list[list[int]]:
        found = self._reader(
            [whole(text) for text in texts],
            add_special_tokens=False,
            split_special_tokens=not markers,
            return_attention_mask=False,
            verbose=False,
        )
        return [list(row) for row in found["input_ids"]]

    def decode(self, ids: Iterable[int]) -> str:
        """Text without special tokens; bytes that are not UTF-8 and ids outside the vocabulary never raise."""
        kept = [int(i) for i in ids if int(i) not in self._hidden and 0 <= int(i) < self._size]
        return str(self._reader.decode(kept, skip_special_tokens=True))

    def byte_count(self, ids: Iterable[int]) -> int:
        """UTF-8 bytes that these tokens stand for, special tokens none. Exact for byte-level tokenizers wherever a
        stretch is cut; with others, a character cut in two counts as it is decoded."""
        ids = list(ids)
        if not self._byte_level:
            return n_bytes(self.decode(ids))
        added = self._reader.added_tokens_decoder  # spelt as they are, all else in the byte alphabet: a letter a byte
        plain = (name for name in self._names([i for i in ids if i not in added]) if name)
        own = (n_bytes(added[i].content) for i in ids if i in added and i not in self.special_ids)
        return sum(map(len, plain)) + sum(own)

    def spelled(self) -> list[bytes | None]:
        """The bytes that each token adds to a text, wherever it stands; None for special tokens. UserError where this
        tokenizer does not write a text as its tokens one after the other."""
        bytes_of, added = self._names_as_bytes(), self._reader.added_tokens_decoder
        found: list[bytes | None] = []
        for i, name in enumerate(self._names(list(range(self._size)))):
            if i in self.special_ids or name is None:
                found.append(None)
            else:
                found.append(added[i].content.encode() if i in added else bytes_of(name))
        return found

    def _names(self, ids: list[int]) -> list[str | None]:
        """Tokens as the vocabulary spells them."""
        return list(self._reader.convert_ids_to_tokens(ids))

    def _names_as_bytes(self) -> Callable[[str], bytes]:
        """How the tokenizer's decoder reads the name of a token."""
        if self._byte_level:
            byte = {letter: number for number, letter in enumerate(_byte_letters())}
            return lambda name: bytes(byte[letter] for letter in name)
        core = getattr(self._reader, "backend_tokenizer", None)
        decoder = (json.loads(core.to_str())["decoder"] or {}) if core is not None else {}
        kinds = {part.get("type") for part in decoder.get("decoders", [decoder])}
        if not kinds & {"Metaspace", "Replace"} or kinds & {"WordPiece", "BPEDecoder", "CTC"}:
            raise UserError("tokenizer: a text of this one is not its tokens one after the other; use a byte-level one")
        one_byte = re.compile("<0x([0-9A-F]{2})>" if "ByteFallback" in kinds else "(?!)")

        def read(name: str) -> bytes:
            found = one_byte.fullmatch(name)
            return bytes.fromhex(found[1]) if found else name.replace("\u2581", " ").encode()

        return read

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """One displayable string a token, special tokens by name; a part of a character shows as U+FFFD."""
        return [self._piece(int(i)) for i in ids]

    def _piece(self, token: int) -> str:
        if token not in self._pieces:
            self._pieces[token] = self._spell(token)
        return self._pieces[token]

    def _spell(self, token: int) -> str:
        (name,) = self._names([token]) if 0 <= token < self._size else [None]
        if not isinstance(name, str):
            return REPLACEMENT
        text = str(self._reader.decode([token]))
        # SentencePiece drops the space before a first word; a token shown alone must keep it.
        return " " + text if name.startswith("\u2581") and not text.startswith(" ") else text

    def check_prompt(self, text: str) -> None:
        """Raise UserError if the text holds the mask token, which only the sampler may place."""
        if self.mask_id in self.encode(text):
            raise UserError(f"prompt: the text holds {self.mask_token!r}, which only the sampler may place; remove it")

    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json and its configuration, as any Hugging Face program reads them."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        self._reader.save_pretrained(str(folder))


def whole(text: str) -> str:
    """The text, if it is one: half a surrogate pair (from a damaged file name, argument or JSON) is no character."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        half = ascii(text[error.start])
        raise UserError(
            f"text: character {error.start} is half of one ({half}, a lone surrogate); remove it"
        ) from error
    return text


def _is_byte_level(reader: Reader) -> bool:
    from tokenizers import decoders

    core = getattr(reader, "backend_tokenizer", None)
    return core is not None and isinstance(core.decoder, decoders.ByteLevel)


def _special_ids(reader: Reader) -> frozenset[int]:
    """Every special token, also those a model adds without declaring them as one of its named tokens."""
    added = reader.added_tokens_decoder
    return frozenset(reader.all_special_ids) | {number for number, token in added.items() if token.special}


def _complete(backend: PreTrainedTokenizerBase, mask_id: int | None) -> None:
    """Declare or add the special tokens that diffusion needs and this tokenizer lacks. It cleans nothing up."""
    backend.clean_up_tokenization_spaces = False
    if mask_id is not None and isinstance(known_mask := backend.convert_ids_to_tokens(mask_id), str):
        backend.add_special_tokens({"mask_token": known_mask})
    missing: dict[str, Any] = {}
    if backend.mask_token is None:
        known = backend.get_vocab()
        missing["mask_token"] = next((name for name in MASK_NAMES if name in known), MASK)
    if backend.eos_token is None:
        missing["eos_token"] = END
    if backend.pad_token is None:
        missing["pad_token"] = missing.get("eos_token") or str(backend.eos_token)
    if missing:
        backend.add_special_tokens(missing)


def _wrap(core: tokenizers.Tokenizer) -> Tokenizer:
    """Our own core with the package's special tokens, configured as any Hugging Face program reads it."""
    from tokenizers import AddedToken, processors

    core.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIALS])
    core.post_processor = processors.TemplateProcessing(single="$A:0", pair="$A:0 $B:1", special_tokens=[])
    config = {
        "tokenizer_class": CLASSES[0],
        "eos_token": END,
        "pad_token": END,
        "mask_token": MASK,
        "additional_special_tokens": [TURN, TURN_END],
        "clean_up_tokenization_spaces": False,
    }
    return Tokenizer(PlainTokenizer(core, config))


def _byte_level(vocabulary: dict[str, int] | None, *, words: bool) -> tokenizers.Tokenizer:
    from tokenizers import Tokenizer as Core
    from tokenizers import decoders, models, pre_tokenizers

    core = Core(models.BPE(vocab=vocabulary, merges=[]) if vocabulary else models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=words)
    core.decoder = decoders.ByteLevel()
    return core


def _byte_letters() -> list[str]:
    """The printable letter that the byte-level alphabet uses for each of the 256 byte values, in byte order."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = itertools.count(256)
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def bytes_tokenizer() -> Tokenizer:
    """One token a byte: ids 0 to 255 are the byte values, the special tokens follow."""
    return _wrap(_byte_level({letter: byte for byte, letter in enumerate(_byte_letters())}, words=False))


def train_bpe(texts: Iterable[str], vocab_size: int = 4096) -> Tokenizer:
    """Byte-level BPE of at most vocab_size tokens, special tokens included; the same texts give the same merges.

    Raises UserError where vocab_size has no room for the bytes or there is no text."""
    from tokenizers import pre_tokenizers, trainers

    least = 256 + len(SPECIALS)
    if vocab_size < least:
        raise UserError(f"vocab_size: {vocab_size} is too small; use {least} or more (256 bytes and special tokens)")
    iterator = iter(texts)
    first = next(iterator, None)
    if first is None:
        raise UserError("tokenizer: there is no text to train 'bpe' on; name a source with at least one document")
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core = _byte_level(None, words=True)
    core.train_from_iterator(itertools.chain([first], iterator), trainer)
    return _wrap(core)


def load_tokenizer(name_or_path: str | Path, mask_id: int | None = None) -> Tokenizer:
    """A tokenizer from a local folder or the Hugging Face hub. Code that comes with a model is never run.

    A mask, end and padding token are added where there is none; mask_id: the mask that the model knows. Raises
    UserError where nothing can be loaded."""
    name = str(name_or_path)
    try:
        reader: Reader | None = None if mask_id is not None else PlainTokenizer.read(Path(name))
        return Tokenizer(reader or _real(name), mask_id)
    except UserError:
        raise
    except Exception as error:  # damaged files raise whatever the reader stumbles over, bare Exception included
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"tokenizer: cannot load {name!r} ({reason}); "
            f"use {', '.join(map(repr, KINDS))}, a folder with tokenizer.json, or a hub name"
        ) from error


def _real(name: str) -> PreTrainedTokenizerBase:
    """As transformers reads it."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    # the Auto class would look up the model's own type in config.json, and warn that it does not know it
    plain = (Path(name) / CORE).is_file() and _has_no_class(Path(name) / CONFIG)
    loader = PreTrainedTokenizerFast if plain else AutoTokenizer
    backend: PreTrainedTokenizerBase = loader.from_pretrained(name, trust_remote_code=False)
    return backend


def _has_no_class(path: Path) -> bool:
    """Saved by a tokenizer without a class of its own, or with one whose code comes with the model and is not run."""
    config = read_json(path) if path.is_file() else {}
    return config.get("tokenizer_class") in CLASSES or "auto_map" in config


def _bytes_kind(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    return bytes_tokenizer()


KINDS: dict[str, Callable[[Iterable[str], int], Tokenizer]] = {"bytes": _bytes_kind, "bpe": train_bpe}


def make_tokenizer(kind: str, texts: Iterable[str] = (), vocab_size: int = 4096) -> Tokenizer:
    """The tokenizer that a configuration names: a key of KINDS, or a folder or hub name to load."""
    maker = KINDS.get(kind)
    return maker(texts, vocab_size) if maker else load_tokenizer(kind)

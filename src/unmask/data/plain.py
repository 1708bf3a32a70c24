"""A Hugging Face tokenizer read with the `tokenizers` library alone, as long as nobody wants the real one.

Importing `transformers` takes as long as loading and running a small model. All that it does with a plain tokenizer is
to hand text to a `tokenizers.Tokenizer` and ids back, so that is done here. Knows no text, no mask and no model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmask.folder import read_json

if TYPE_CHECKING:
    import tokenizers
    from transformers import PreTrainedTokenizerFast

CORE, CONFIG = "tokenizer.json", "tokenizer_config.json"
CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")  # one class, by its names in transformers 4 and 5
NAMED = tuple(f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
UNNAMED = ("extra_special_tokens", "additional_special_tokens")  # a list of them, by either version's name
NEEDED = {"eos_token", "pad_token", "mask_token"}
# What a configuration may say beside its special tokens without a change of what is read from a text or ids.
IDLE = {
    "tokenizer_class",
    "backend",
    "clean_up_tokenization_spaces",
    "is_local",
    "local_files_only",
    "model_max_length",
}
# What else a folder may hold that transformers reads a tokenizer from.
BESIDE = (
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates",
)


class PlainTokenizer:
    """Stands in for a `PreTrainedTokenizerFast` that has an end, a padding and a mask token and nothing of its own: the
    part of its interface that `Tokenizer` asks for, with its names and its results.

    core: with all special tokens in it. config: tokenizer_config.json."""

    chat_template = None

    def __init__(self, core: tokenizers.Tokenizer, config: Mapping[str, Any]) -> None:
        core.no_truncation()
        core.no_padding()
        self.backend_tokenizer, self.config = core, dict(config)
        self.bos_token: str | None = config.get("bos_token")
        self.bos_token_id = None if self.bos_token is None else self.convert_tokens_to_ids(self.bos_token)
        self.mask_token: str = config["mask_token"]
        self.mask_token_id, self.eos_token_id, self.pad_token_id = (
            self.convert_tokens_to_ids(config[f"{name}_token"]) for name in ("mask", "eos", "pad")
        )

    @classmethod
    def read(cls, folder: Path) -> PlainTokenizer | None:
        """The tokenizer in a folder; None where it takes transformers to read it. Whatever is wrong with tokenizer.json
        is raised as the library has it, a bare Exception included."""
        if not (folder / CORE).is_file() or not (folder / CONFIG).is_file():
            return None
        config = read_json(folder / CONFIG)
        if any((folder / name).exists() for name in BESIDE) or not _is_understood(config):
            return None
        from tokenizers import Tokenizer as Core

        core = Core.from_file(str(folder / CORE))
        special = {token.content for token in core.get_added_tokens_decoder().values() if token.special}
        return cls(core, config) if special.issuperset(_special_tokens(config)) else None

    def real(self) -> PreTrainedTokenizerFast:
        """What it stands in for."""
        from transformers import PreTrainedTokenizerFast

        known = {name: value for name, value in self.config.items() if name != "tokenizer_class"}
        return PreTrainedTokenizerFast(tokenizer_object=self.backend_tokenizer, **known)

    def save_pretrained(self, folder: str) -> None:
        self.backend_tokenizer.save(str(Path(folder) / CORE))
        text = json.dumps(self.config, indent=2, sort_keys=True, ensure_ascii=False)
        (Path(folder) / CONFIG).write_text(text + "\n", encoding="utf-8")

    def __call__(
        self, text: Sequence[str], *, add_special_tokens: bool, split_special_tokens: bool, **_: bool
    ) -> dict[str, list[list[int]]]:
        if self.backend_tokenizer.encode_special_tokens != split_special_tokens:
            self.backend_tokenizer.encode_special_tokens = split_special_tokens
        found = self.backend_tokenizer.encode_batch(list(text), add_special_tokens=add_special_tokens)
        return {"input_ids": [encoding.ids for encoding in found]}

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        return self.backend_tokenizer.decode(token_ids, skip_special_tokens=skip_special_tokens)

    def convert_tokens_to_ids(self, token: str) -> int:
        found = self.backend_tokenizer.token_to_id(token)
        assert found is not None, f"{token!r} is in no vocabulary"
        return found

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str | None]:
        return [self.backend_tokenizer.id_to_token(i) for i in ids]

    def get_vocab(self) -> dict[str, int]:
        return self.backend_tokenizer.get_vocab(with_added_tokens=True)

    @property
    def added_tokens_decoder(self) -> dict[int, tokenizers.AddedToken]:
        return self.backend_tokenizer.get_added_tokens_decoder()

    @property
    def all_special_ids(self) -> list[int]:
        return [self.convert_tokens_to_ids(token) for token in _special_tokens(self.config)]


def _is_understood(config: Mapping[str, Any]) -> bool:
    """Whether the configuration says nothing but what is done here."""
    names, lists = config.keys() & {*NAMED}, config.keys() & {*UNNAMED}
    return (
        config.get("tokenizer_class") in CLASSES
        and config.keys() <= IDLE | names | lists
        and all(isinstance(config[name], str) for name in names)
        and all(_is_list_of_texts(config[name]) for name in lists)
        and names >= NEEDED
        and len(lists) < 2
    )


def _is_list_of_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(part, str) for part in value)


def _special_tokens(config: Mapping[str, Any]) -> list[str]:
    """Each once, in the order of transformers."""
    named = [config[name] for name in NAMED if name in config]
    return list(dict.fromkeys([*named, *(token for name in UNNAMED for token in config.get(name, []))]))

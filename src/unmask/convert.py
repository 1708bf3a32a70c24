"""`unmask convert`: a published checkpoint into a folder of ours, and any model out under a family's own names."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .base import TOKENIZERS, grow, has_tokenizer, model_folder, tokenizer_of
from .data.tokenizer import Tokenizer
from .errors import UserError
from .models.checkpoint import as_published, export_model, load_model, save_model

ALONGSIDE = (*TOKENIZERS, "merges.txt", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja")


def convert(source: str, target: str | Path, to: str | None = None) -> dict[str, Any]:
    """Read `source`, a folder or hub id, and write it to `target`, in the dtypes it has; what was done.

    to None: as a folder of ours, to be written with, tuned and measured; a network that has not met a mask gets room
    for one where there is a tokenizer to name it. to: the layout of that family; what came from it goes back bit for
    bit. UserError where source is ours already, or the family has no network of this shape.
    """
    folder = model_folder(source)
    network, config = load_model(folder)
    tokenizer = tokenizer_of(folder, config) if has_tokenizer(folder) else None
    if to is not None:
        export_model(target, network, config, to, _ids(tokenizer), _copier(folder, tokenizer))
    elif not as_published(config):
        raise UserError(
            f"to: {source} is in unmask's own layout; name the family to write it for, for example to=llama"
        )
    else:
        if tokenizer is not None:
            network = grow(network, len(tokenizer))
        extra = {name: config[name] for name in ("method", "published")}
        save_model(target, network, extra, None if tokenizer is None else tokenizer.save)
    origin = (config.get("published") or {}).get("family", "unmask")
    parameters = sum(p.numel() for p in network.parameters())
    return {
        "model": str(target),
        "from": origin,
        "to": to or "unmask",
        "parameters": parameters,
        "tokenizer": tokenizer is not None,
    }


def _ids(tokenizer: Tokenizer | None) -> dict[str, int]:
    if tokenizer is None:
        return {}
    start = tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id
    return {
        "bos_token_id": start,
        "eos_token_id": tokenizer.eos_id,
        "pad_token_id": tokenizer.pad_id,
        "mask_token_id": tokenizer.mask_id,
    }


def _copier(folder: Path, tokenizer: Tokenizer | None) -> Callable[[Path], None] | None:
    """The tokenizer's files as they are, so that nothing is lost on the way."""
    if tokenizer is None:
        return None

    def copy(fresh: Path) -> None:
        for name in ALONGSIDE:
            if (folder / name).is_file():
                shutil.copyfile(folder / name, fresh / name)

    return copy

"""A saved model: a Hugging Face folder with config.json and model.safetensors. Knows no noise and no training.

`config.json` holds {"architectures", "model_type", "model": the ModelConfig} and whatever the caller adds (the resolved
method of its recipe), so that the folder needs nothing else. Tied weights are stored once. A folder in the layout of a
published family is read as if it were one of ours, by the tables of `families`.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..errors import UserError, nearest
from ..folder import (
    Check,
    atomic_folder,
    load_tensors,
    read_json,
    save_tensors,
    settled,
    verify,
    write_manifest,
)
from .config import ModelConfig
from .families import Facts, Raw, family_named, family_of
from .families.transfer import assign, read_into, write_from
from .transformer import Transformer

__all__ = [
    "as_published",
    "atomic_folder",
    "export_model",
    "facts_of",
    "load_model",
    "read_config",
    "resolve",
    "save_model",
    "verify",
    "write_manifest",
]

CONFIG, WEIGHTS, MODEL_TYPE = "config.json", "model.safetensors", "unmask"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]  # nothing that could be run


def save_model(
    folder: str | Path,
    network: Transformer,
    extra_config: Mapping[str, Any],
    tokenizer_save: Callable[[Path], None] | None = None,
) -> None:
    """Write the model to `folder`, all of it or nothing. Raises UserError where the disk refuses."""
    own = {"architectures": ["UnmaskModel"], "model_type": MODEL_TYPE, "model": network.config.model_dump()}
    assert not own.keys() & extra_config.keys(), f"extra_config must not set {sorted(own.keys() & extra_config.keys())}"
    with atomic_folder(folder) as fresh:
        if tokenizer_save is not None:
            tokenizer_save(fresh)
        (fresh / CONFIG).write_text(json.dumps({**own, **extra_config}, indent=2) + "\n", encoding="utf-8")
        save_tensors(fresh / WEIGHTS, dict(network.named_parameters()))  # each tied weight comes once


FILLS = {call for call in vars(nn.init).values() if inspect.isfunction(call)}


class _Unfilled(TorchFunctionMode):
    """Layers leave their weights as they are. On the meta device there is nothing to fill, and filling it nonetheless
    would load torch's compiler: seconds."""

    def __torch_function__(
        self, call: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if call in FILLS:
            return args[0] if args else (kwargs or {})["tensor"]
        return call(*args, **(kwargs or {}))


def load_model(
    folder: str | Path,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    check: Check = "hash",
) -> tuple[Transformer, dict[str, Any]]:
    """The network, in evaluation mode, and the whole config. dtype None: as stored. UserError says what is damaged."""
    folder = settled(folder)
    config = read_config(folder)
    verify(folder, check)
    with torch.device("meta"), _Unfilled():  # no memory until the weights are here
        network = Transformer(_model_config(folder / CONFIG, config["model"]))
    if _is_ours(read_json(folder / CONFIG)):
        tensors = load_tensors(folder / WEIGHTS)
        _compare(folder / WEIGHTS, {name: p.shape for name, p in network.named_parameters()}, tensors)
        assign(network, {name: tensor.to(device=device, dtype=dtype) for name, tensor in tensors.items()})
    else:
        family = family_named(config["published"]["family"])
        prefix, buffers = read_into(network, folder, family, dtype, device)
        config["published"] |= {"prefix": prefix, "buffers": buffers}
    return network.eval(), config


def export_model(
    folder: str | Path,
    network: Transformer,
    config: Mapping[str, Any],
    to: str,
    ids: Mapping[str, int] | None = None,
    tokenizer_save: Callable[[Path], None] | None = None,
) -> None:
    """Write the model under a family's own names; what came from that family goes back bit for bit.

    config: as `load_model` gave it. ids: special tokens for the config.json of a model that came from elsewhere,
    `mask_token_id` and the like. UserError where the family has no network of this shape.
    """
    family, origin = family_named(to), config.get("published") or {}
    if origin.get("family") != to:
        origin = {}
    published = _described(network.config, to, origin.get("config") or {}, ids or {})
    prefix = origin.get("prefix", family.prefixes[0])
    with atomic_folder(folder) as fresh:
        if tokenizer_save is not None:
            tokenizer_save(fresh)
        (fresh / CONFIG).write_text(json.dumps(published, indent=2) + "\n", encoding="utf-8")
        write_from(network, fresh, family, prefix, origin.get("buffers") or {})


def _described(c: ModelConfig, to: str, origin: Mapping[str, Any], ids: Mapping[str, int]) -> dict[str, Any]:
    """A config.json of the family for this shape: the one it came with where that still holds."""
    family = family_named(to)
    if origin and _same(family.shape(Raw(origin)), c) is None:
        return dict(origin)
    found = {**ids, **origin, **family.describe(c)}
    if wrong := _same(family.shape(Raw(found)), c):
        raise UserError(f"to: a {to} model cannot have model.{wrong}={getattr(c, wrong)!r}; choose another family")
    return found


def _same(a: ModelConfig, b: ModelConfig) -> str | None:
    """The first field in which two shapes differ, if any that changes what a network computes does."""
    a, b = (
        c.model_copy(update={"head_width": c.head_dim, "hidden": c.mlp_width, "kv_heads": c.n_kv_heads}) for c in (a, b)
    )
    fields = [name for name in ModelConfig.model_fields if name not in ("dropout", "context")]
    return next((name for name in fields if getattr(a, name) != getattr(b, name)), None)


def read_config(folder: str | Path) -> dict[str, Any]:
    """config.json of a folder that `save_model` wrote, or what it would hold for a published one: {"model", "method",
    "published": {"family", "config"}}. UserError for any other."""
    path = settled(folder) / CONFIG
    config = read_json(path)
    if _is_ours(config):
        if isinstance(config.get("model"), dict):
            return config
        raise UserError(f"{path}: holds no model; restore the file")
    try:
        family = family_of(config)
        shape, facts = family.shape(Raw(config)), family.facts(Raw(config))
    except UserError as error:
        raise UserError(f"{path.parent}/{error}") from error
    except ValidationError as error:
        raise UserError(f"{path}: {error.errors()[0]['msg']}; restore the file as it was published") from error
    published = {"family": family.name, "config": config}
    return {"model": shape.model_dump(), "method": dict(facts.method), "published": published}


def facts_of(config: Mapping[str, Any]) -> Facts | None:
    """What its family knows of a model that was published, given its config as `load_model` or `read_config` gave it.
    None for one that is ours from the beginning."""
    origin = config.get("published")
    return None if origin is None else family_named(origin["family"]).facts(Raw(origin["config"]))


def as_published(config: Mapping[str, Any]) -> bool:
    """Whether the folder is in the layout of its family, not in ours."""
    return "architectures" not in config


def _is_ours(config: Mapping[str, Any]) -> bool:
    return config.get("model_type") == MODEL_TYPE


def resolve(path_or_hub_id: str | Path) -> Path:
    """A local folder as it is; owner/name from the Hugging Face hub. UserError where there is neither."""
    name = str(path_or_hub_id)
    local = settled(Path(name).expanduser())
    if local.is_dir():
        return local
    if local.exists():
        raise UserError(f"model: {name} is a file; name the folder it is in: {str(local.parent)!r}")
    if HUB_ID.fullmatch(name) and not local.parent.exists():
        return _download(name)
    raise UserError(f"model: there is no folder {name!r}; {_sibling(local)}")


def _sibling(missing: Path) -> str:
    parent = missing.parent
    if not parent.is_dir():
        return (
            f"{str(parent)!r} does not exist either; name a saved model's folder, or owner/name on the Hugging Face hub"
        )
    names = [p.name for p in parent.iterdir() if p.is_dir() and not p.name.startswith(".")]
    return nearest(missing.name, names, most=4) if names else f"{str(parent)!r} holds no folders"


def _download(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(snapshot_download(hub_id, allow_patterns=HUB_FILES))
    except (OSError, HFValidationError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"model: {hub_id!r} is no local folder and the Hugging Face hub did not give it ({reason}); "
            "check the name, your login and the network"
        ) from error


def _model_config(path: Path, fields: Mapping[str, Any]) -> ModelConfig:
    try:
        return ModelConfig(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "model"
        if first["type"] == "extra_forbidden":
            hint = nearest(key, ModelConfig.model_fields)
            raise UserError(f"{path}: model.{key} is not known to this version of unmask; {hint}") from error
        reason = first["msg"].removeprefix("Value error, ")
        raise UserError(f"{path}: model.{key}={first.get('input')!r} is wrong ({reason}); restore the file") from error


def _compare(path: Path, wanted: Mapping[str, torch.Size], found: Mapping[str, Tensor]) -> None:
    """UserError for the first tensor that is missing, unknown or of another shape."""
    for name, shape in wanted.items():
        if name not in found:
            raise UserError(f"{path}: tensor {name!r} is missing; {CONFIG} and {WEIGHTS} must come from one save")
        if found[name].shape != shape:
            raise UserError(
                f"{path}: tensor {name!r} has shape {tuple(found[name].shape)} where {CONFIG} asks for {tuple(shape)}; "
                "both files must come from one save"
            )
    if extra := sorted(found.keys() - wanted.keys()):
        raise UserError(f"{path}: tensor {extra[0]!r} has no place in this model; {nearest(extra[0], wanted)}")

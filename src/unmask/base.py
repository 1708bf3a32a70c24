"""A saved model to start from: found, held against the recipe before anything is loaded, and grown where it must be."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .data.tokenizer import Tokenizer, load_tokenizer
from .errors import UserError
from .methods.method import Method, Symbols
from .models.checkpoint import as_published, facts_of, load_model, read_config, resolve
from .models.config import ModelConfig
from .models.transformer import Transformer
from .recipe import Recipe, TokenizerRecipe, method_of

TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "vocab.txt", "tokenizer.model")


def model_folder(path_or_hub_id: str) -> Path:
    """A run's folder stands for the model in it."""
    inner = Path(path_or_hub_id).expanduser() / "model"
    return inner if (inner / "config.json").is_file() else resolve(path_or_hub_id)


def resolved(recipe: Recipe) -> Recipe:
    """What the recipe leaves open: a base keeps its own method and context (naming another method converts it).
    UserError where the recipe asks for what its base does not have."""
    base = read_config(model_folder(recipe.base)) if recipe.base else {}
    spec = recipe.method or base.get("method") or {"kind": "masked"}
    method = method_of(spec, imports=recipe.method is not None)
    length = recipe.train.length
    if base:
        shape = ModelConfig(**base["model"])
        _check_recipe(recipe, shape)
        _check_shape(method, str(spec.get("kind")), shape)
        length = length or shape.context
    spec = {**spec, **method.settled()}
    return recipe.model_copy(update={"method": spec, "train": recipe.train.model_copy(update={"length": length})})


def _check_recipe(recipe: Recipe, base: ModelConfig) -> None:
    if recipe.tokenizer != TokenizerRecipe():
        raise UserError(f"tokenizer.kind={recipe.tokenizer.kind!r}: the base brings its own tokenizer; leave it out")
    for name, asked in recipe.model.model_dump(exclude_defaults=True).items():
        if asked != (has := base.model_dump()[name]):
            raise UserError(f"model.{name}={asked!r}: the base has {has!r}, which stays; leave model.{name} out")
    if recipe.train.length and recipe.train.length > base.context:
        length = recipe.train.length
        raise UserError(f"train.length={length}: the base's context is {base.context} tokens; use as many or fewer")


def _check_shape(method: Method, kind: str, base: ModelConfig) -> None:
    needs = method.shape(base)
    for name in ModelConfig.model_fields:
        needed, has = getattr(needs, name), getattr(base, name)
        if needed != has:
            raise UserError(f"base: method {kind} needs model.{name}={needed!r}, the base has {has!r}; train anew")


def open_base(recipe: Recipe) -> tuple[Transformer, Tokenizer]:
    """The base's network in float32, with room for all that its tokenizer knows."""
    folder = model_folder(str(recipe.base))
    network, config = load_model(folder, dtype=torch.float32)
    tokenizer = tokenizer_of(folder, config)
    return grow(network, len(tokenizer)), tokenizer


def tokenizer_of(folder: Path, config: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer in a model's folder, or the one that its published family borrows; with the mask that it knows."""
    facts = facts_of(config)
    if has_tokenizer(folder):
        return load_tokenizer(folder, facts.mask_id if facts is not None and as_published(config) else None)
    if facts is None or facts.tokenizer is None:
        raise UserError(f"{folder}: has no tokenizer; put the tokenizer files of the model there")
    return load_tokenizer(facts.tokenizer, facts.mask_id)


def has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in TOKENIZERS)


def symbols_of(tokenizer: Tokenizer, vocab: int) -> Symbols:
    start = tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id
    return Symbols(vocab, tokenizer.mask_id, start, tuple(range(len(tokenizer), vocab)))


@torch.no_grad()
def grow(network: Transformer, vocab: int) -> Transformer:
    """Room, in place, for symbols that it has not met (a mask, say); new rows start at the mean of the old ones."""
    old = network.config.vocab
    if vocab <= old:
        return network
    network.config = network.config.model_copy(update={"vocab": vocab})
    parts: list[nn.Embedding | nn.Linear] = [network.embed, network.head]
    for part in parts[:1] if network.config.tied else parts:
        part.weight = nn.Parameter(_taller(part.weight, vocab - old))
    if network.config.tied:
        network.head.weight = network.embed.weight
    if network.head.bias is not None:
        network.head.bias = nn.Parameter(_taller(network.head.bias, vocab - old))
    network.embed.num_embeddings = network.head.out_features = vocab
    return network


def _taller(weight: Tensor, rows: int) -> Tensor:
    return torch.cat([weight, weight.mean(0, keepdim=True).expand(rows, *weight.shape[1:])])

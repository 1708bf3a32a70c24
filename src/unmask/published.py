"""`load_denoiser`: a checkpoint, published or our own, as the denoiser that it is, without a tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from .base import has_tokenizer, model_folder, symbols_of
from .data.tokenizer import load_tokenizer
from .denoiser import Denoiser, ShiftedLogits
from .device import pick_device, pick_weights
from .errors import UserError
from .folder import read_json
from .gemma import gemma_denoiser
from .loaded import LoadedDenoiser
from .methods.method import Symbols, level_of
from .methods.noisy import Noisy
from .models.attention import Causal
from .models.checkpoint import as_published, facts_of, load_model
from .models.families import Facts
from .models.families.diffusion_gemma import ARCHITECTURE
from .models.int8 import use_int8
from .models.transformer import Transformer
from .recipe import method_of


def load_denoiser(
    path_or_hub_id: str | Path,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    *,
    mask_id: int | None = None,
) -> LoadedDenoiser:
    """The network of a checkpoint, ours or of a published family, with its rule, head and mask.

    dtype: None is as stored; "int8" multiplies in 8 bits. mask_id: instead of the family's own. UserError says what is
    missing or damaged.
    """
    folder = model_folder(str(path_or_hub_id))
    place = pick_device(str(device or "cpu"))
    wanted, int8 = pick_weights(dtype, place) if isinstance(dtype, str) else (dtype, False)
    raw = read_json(folder / "config.json")
    if ARCHITECTURE in (raw.get("architectures") or []):
        return gemma_denoiser(folder, raw, wanted, place)
    network, config = load_model(folder, dtype=wanted, device=place)
    if int8:
        use_int8(network)
    origin, facts = config.get("published"), facts_of(config)
    if has_tokenizer(folder) and not as_published(config):
        return _own(folder, network, config)
    if origin is None or facts is None:
        raise UserError(f"{folder}: has no tokenizer, which says what the model's mask is; save it with the model")
    facts = replace(facts, method=config["method"])
    return _of_family(network, origin, facts, mask_id)


def _of_family(network: Transformer, origin: Mapping[str, Any], facts: Facts, mask_id: int | None) -> LoadedDenoiser:
    method, mask = method_of(dict(facts.method)), facts.mask_id if mask_id is None else mask_id
    symbols = Symbols(network.config.vocab, 0 if mask is None else mask, start_id=0)
    process = method.process(symbols, network)
    if facts.block == 1:  # as published, text has no start token of its own
        base = Denoiser(network, mask_id=symbols.mask_id, rule=Causal(), head=ShiftedLogits())
    elif mask is None and isinstance(method, Noisy):  # no symbol is barred from the noise
        process = method.noise(symbols.vocab, symbols.mask_id, ())
        level = level_of(network, process.schedule)
        base = Denoiser(network, mask_id=symbols.mask_id, head=method.head(process), level=level)
    else:
        base = method.denoiser(network, symbols)
    if mask is None:  # any symbol stands for what is not yet written, and may be written
        base.banned = base.banned[:0]
    found = LoadedDenoiser(base, process, method.decoding(), origin["family"], origin["config"], facts)
    return found.to(network.embed.weight.device).eval()


def _own(folder: Path, network: Transformer, config: Mapping[str, Any]) -> LoadedDenoiser:
    method = method_of(config.get("method"), imports=False)
    symbols = symbols_of(load_tokenizer(folder), network.config.vocab)
    base = method.denoiser(network, symbols).to(network.embed.weight.device).eval()
    facts = Facts(dict(config.get("method") or {"kind": "masked"}), symbols.mask_id, pads="uncounted")
    return LoadedDenoiser(base, method.process(symbols, network), method.decoding(), "unmask", config, facts)

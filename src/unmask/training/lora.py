"""Low-rank adapters through peft: put on before tuning, merged back into the weights after it."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import nn

from ..errors import UserError

LAYERS = ["q", "kv", "out", "gate_up", "up", "down"]


class LoraOptions(Protocol):
    @property
    def rank(self) -> int: ...
    @property
    def alpha(self) -> int: ...
    @property
    def dropout(self) -> float: ...


def add_lora(network: nn.Module, options: LoraOptions, seed: int) -> None:
    """Freeze the network and give every matrix of its blocks a trainable low-rank addition (arXiv 2106.09685)."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise UserError("tune.lora: needs peft; install unmask[lora], or leave tune.lora out") from error
    config = LoraConfig(
        r=options.rank, lora_alpha=options.alpha, lora_dropout=options.dropout, target_modules=LAYERS, bias="none"
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # peft draws its first weights from the global generator
        inject_adapter_in_model(config, network)


def merge_lora(network: nn.Module) -> None:
    """Add every adapter to the matrix it belongs to and take it off; nothing happens where there is none."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            base = getattr(child, "base_layer", None)
            if isinstance(base, nn.Linear):
                child.merge()  # type: ignore[operator]
                setattr(parent, name, base)
    for p in network.parameters():
        p.requires_grad_(True)

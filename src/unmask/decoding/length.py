"""Where a text ends. An end of text counts once it is settled and everything before it is. Knows no networks."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from .canvas import Canvas

Finish = Literal["stop", "length"]


def ends(canvas: Canvas, text: Tensor, eos_id: int | None) -> Tensor:
    """(B, W) bool: settled ends of text. text (B, W): what the states read as."""
    if eos_id is None:
        return torch.zeros_like(canvas.pending)
    return (text == eos_id) & (canvas.settled_at >= 0) & ~canvas.infill[:, None]


def closed(canvas: Canvas, text: Tensor, eos_id: int | None) -> Canvas:
    """What stands behind a settled end of text is not wanted any more: it is neither computed nor returned. What stands
    before it still is, and may bring an earlier end. text (B, W): what the states read as."""
    if eos_id is None:
        return canvas
    end = ends(canvas, text, eos_id)
    behind = end.cumsum(1) - end.long() > 0
    return replace(canvas, block=canvas.block.masked_fill(behind & (canvas.settled_at < 0), -1))


def cut(tokens: list[int], eos_id: int | None) -> tuple[list[int], Finish]:
    """New tokens up to the first end of text, and why they end there."""
    if eos_id is not None and eos_id in tokens:
        return tokens[: tokens.index(eos_id)], "stop"
    return tokens, "length"


def without_end(logits: Tensor, eos_id: int | None, rows: Tensor) -> Tensor:
    """logits (N, V) with no end of text in the N positions that `rows` (N,) bool marks."""
    if eos_id is None or not bool(rows.any()):
        return logits
    ban = torch.zeros(logits.shape[-1], dtype=torch.bool, device=logits.device)
    ban[eos_id] = True
    return logits.masked_fill(rows[:, None] & ban, -torch.inf)

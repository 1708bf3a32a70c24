"""DiffusionGemma through transformers' own class, in the shape of our transformer: the door, not a copy.

An encoder reads the text before the canvas from left to right, a decoder the canvas at once; they share their weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from ...errors import UserError
from ..attention import Everything, Places, Rule
from ..config import ModelConfig

ARCHITECTURE = "DiffusionGemmaForBlockDiffusion"


class GemmaNetwork(nn.Module):
    """What `Denoiser` needs of a network, and no more: no cache of ours, no noise level."""

    time = None

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        text = model.config.text_config
        self.cap, self.canvas = float(model.final_logit_softcapping), int(model.config.canvas_length)
        self.embed, self.head = model.get_input_embeddings(), model.lm_head
        self.config = ModelConfig(  # what all its layers have in common
            vocab=text.vocab_size,
            width=text.hidden_size,
            layers=text.num_hidden_layers,
            heads=text.num_attention_heads,
            context=text.max_position_embeddings,
            tied=True,
        )

    def forward(
        self,
        tokens: Tensor,
        places: Places | None = None,
        rule: Rule = Everything(),
        t: Tensor | None = None,
        where: Tensor | None = None,
        **unused: Any,
    ) -> Tensor:
        """tokens (B, L), where (B, L) bool -> hidden states (N, D) there. A row's canvas reaches from the first to the
        last position that is wanted, at most `canvas` of them; what stands before it is read, what behind is not."""
        if any(value is not None for value in unused.values()):
            raise UserError("cache: DiffusionGemma keeps none of ours; leave cache out")
        where = torch.ones_like(tokens, dtype=torch.bool) if where is None else where
        said = []
        for row, wanted in zip(tokens, where):
            if len(asked := wanted.nonzero()[:, 0]):
                start, stop = int(asked[0]), int(asked[-1]) + 1
                said.append(self.hidden(row[None, :start], row[None, start:stop])[0, asked - start])
        return torch.cat(said) if said else self.embed.weight.new_empty(0, self.config.width)

    def hidden(self, before: Tensor, canvas: Tensor, **more: Any) -> Tensor:
        """before (B, P), canvas (B, C) -> (B, C, D) ready for the head."""
        if not before.shape[1]:
            raise UserError("prompt: DiffusionGemma needs a token to begin behind; start with its <bos>, 2")
        if canvas.shape[1] > self.canvas:
            raise UserError(f"block: DiffusionGemma writes up to {self.canvas} tokens at once; use block={self.canvas}")
        hidden: Tensor = self.model.model(input_ids=before, decoder_input_ids=canvas, **more).last_hidden_state
        return hidden


@contextmanager
def _quiet() -> Iterator[None]:
    """What is missing is said here, once, and not in transformers' table."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def load_gemma(folder: Path, dtype: torch.dtype | None, device: torch.device | str | None) -> GemmaNetwork:
    """The text network; a vision tower that is not in the file is left as it is. UserError for a tensor that is missing
    or too many."""
    try:
        from transformers import DiffusionGemmaForBlockDiffusion
    except ImportError as error:
        raise UserError("model: this transformers does not know DiffusionGemma; install transformers>=5.17") from error
    try:
        with _quiet():
            model, info = cast(Any, DiffusionGemmaForBlockDiffusion).from_pretrained(
                folder, dtype=dtype or "auto", output_loading_info=True, trust_remote_code=False
            )
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"{folder}: {str(error).strip().splitlines()[0]}") from error
    missing = [name for name in sorted(info["missing_keys"]) if "vision" not in name]
    if missing:
        raise UserError(f"{folder}: tensor {missing[0]!r} is missing; download the checkpoint again")
    if extra := sorted(info["unexpected_keys"]):
        raise UserError(f"{folder}: tensor {extra[0]!r} has no place in a diffusion_gemma model")
    return GemmaNetwork(model.to(device)).eval()

"""The model to beat: a Llama of the same shape in `transformers`, writing left to right with its key/value cache."""

from __future__ import annotations

from typing import Any, cast

import torch

from ..models.config import ModelConfig
from ..models.transformer import Transformer
from .speed import Prompts, Work


class Peer:
    """`transformers`' greedy generate on random weights. What they are does not matter: no text may end early."""

    def __init__(self, like: Transformer, device: torch.device, dtype: torch.dtype) -> None:
        """like: the network whose width, depth, heads and vocabulary it has, and whose useful work is counted."""
        from transformers import LlamaForCausalLM

        self.like, self.device = like, device
        model = cast(Any, LlamaForCausalLM(shaped(like.config)))
        self.model = model.to(device=device, dtype=dtype).eval()

    @property
    def n_bytes(self) -> int:
        return sum(p.nbytes for p in self.model.parameters())

    def write(self, prompts: Prompts, length: int) -> tuple[list[list[int]], Work]:
        ids = torch.tensor(prompts, device=self.device)
        with torch.inference_mode():
            out = self.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                use_cache=True,
                min_new_tokens=length,
                max_new_tokens=length,
                pad_token_id=0,
            )
        texts: list[list[int]] = out[:, ids.shape[1] :].tolist()
        return texts, self._work(prompts, length)

    def _work(self, prompts: Prompts, length: int) -> Work:
        """The prompt in one pass, read at its end, then a pass a token but the last."""
        rows, before = len(prompts), len(prompts[0])
        flops = before * self.like.matmul_flops(before, 1 / before)
        flops += sum(self.like.matmul_flops(before + i) for i in range(1, length))
        return Work(forwards=length, queries=rows * (before + length - 1), flops=rows * flops)


def shaped(c: ModelConfig) -> Any:
    """The same sizes as a Llama's config: RMSNorm, SwiGLU and RoPE, whatever the model has in their place."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=c.vocab,
        hidden_size=c.width,
        intermediate_size=c.mlp_width,
        num_hidden_layers=c.layers,
        num_attention_heads=c.heads,
        num_key_value_heads=c.n_kv_heads,
        head_dim=c.head_dim,
        max_position_embeddings=c.context,
        tie_word_embeddings=c.tied,
        bos_token_id=None,
        eos_token_id=None,
    )

"""The shape of the one transformer. Everything a published family needs is a field here, never a subclass."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class ModelConfig(BaseModel):
    """Sizes and switches of `models.transformer.Transformer`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    vocab: int = Field(default=0, ge=0, description="size of the vocabulary; 0: as large as the tokenizer's")
    width: int = Field(default=256, gt=0)
    layers: int = Field(default=4, gt=0)
    heads: int = Field(default=4, gt=0)
    kv_heads: int | None = Field(default=None, gt=0, description="fewer key/value heads than query heads (GQA)")
    head_width: int | None = Field(default=None, gt=0, description="width of one head; default width / heads")
    hidden: int | None = Field(default=None, gt=0, description="MLP width; default 8/3 width (swiglu) or 4 (gelu)")
    context: int = Field(default=256, gt=0, description="longest row the model is meant for")
    norm: Literal["rms", "layer"] = "rms"
    norm_eps: float = Field(default=1e-6, gt=0)
    activation: Literal["swiglu", "gelu"] = "swiglu"
    rope_theta: float = Field(default=10_000.0, gt=0)
    qk_norm: bool = Field(default=True, description="RMSNorm of every query and key head before RoPE")
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    tied: bool = Field(default=False, description="the head shares the embedding's weights")
    time: Literal["none", "adaln"] = Field(default="none", description="condition every layer on the noise level")
    time_width: int = Field(default=128, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1, description="of what each branch adds to the residual stream")

    @model_validator(mode="after")
    def _sizes_fit(self) -> ModelConfig:
        if self.head_width is None and self.width % self.heads:
            raise ValueError(f"width={self.width} is not a multiple of heads={self.heads}; set head_width too")
        if self.heads % self.n_kv_heads:
            raise ValueError(f"heads={self.heads} is not a multiple of kv_heads={self.kv_heads}")
        if self.head_dim % 2:
            raise ValueError(f"a head of width {self.head_dim} is odd; RoPE needs an even head_width")
        return self

    @property
    def n_kv_heads(self) -> int:
        return self.kv_heads or self.heads

    @property
    def head_dim(self) -> int:
        return self.head_width or self.width // self.heads

    @property
    def mlp_width(self) -> int:
        """SwiGLU has three matrices where GELU has two, so 8/3 keeps the parameters equal (rounded up to 32)."""
        if self.hidden:
            return self.hidden
        return 4 * self.width if self.activation == "gelu" else -(-8 * self.width // 3 // 32) * 32

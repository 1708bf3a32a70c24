"""The shape of the one transformer. Everything a published family needs is a field here, never a subclass."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MoEConfig(_Part):
    """Experts and their router in place of one MLP; see `models.moe`."""

    experts: int = Field(gt=0)
    active: int = Field(gt=0, description="experts that a token is sent to")
    hidden: int = Field(gt=0, description="width of one expert")
    shared: int = Field(default=0, ge=0, description="width of an expert that every token is sent to")
    score: Literal["softmax", "sigmoid"] = "softmax"
    bias: Literal["none", "choice", "weight"] = Field(
        default="none", description="of each expert's score: none, one that steers the choice alone, or the weight too"
    )
    groups: int = Field(default=1, gt=0)
    kept_groups: int = Field(default=1, gt=0, description="groups of experts that a token may choose from")
    normalise: bool = Field(default=False, description="weights of the chosen experts add up to `scale`")
    scale: float = 1.0
    dense: tuple[int, ...] = Field(default=(), description="layers that keep one plain MLP")

    @model_validator(mode="after")
    def _sizes_fit(self) -> MoEConfig:
        if self.experts % self.groups:
            raise ValueError(f"experts={self.experts} is not a multiple of groups={self.groups}")
        if self.active > self.experts // self.groups * self.kept_groups:
            raise ValueError(f"active={self.active} is more than the kept groups' experts")
        return self


class RopeScaling(_Part):
    """Llama 3's stretching of the slow rotations, for a context `factor` times as long as the `original`."""

    factor: float = Field(default=8.0, ge=1)
    low: float = Field(default=1.0, gt=0, description="waves in the original context: fewer are stretched whole")
    high: float = Field(default=4.0, gt=0, description="and more are left alone")
    original: int = Field(default=8192, gt=0)


class ModelConfig(_Part):
    """Sizes and switches of `models.transformer.Transformer`."""

    vocab: int = Field(default=0, ge=0, description="size of the vocabulary; 0: as large as the tokenizer's")
    width: int = Field(default=256, gt=0)
    layers: int = Field(default=4, gt=0)
    heads: int = Field(default=4, gt=0)
    kv_heads: int | None = Field(default=None, gt=0, description="fewer key/value heads than query heads (GQA)")
    head_width: int | None = Field(default=None, gt=0, description="width of one head; default width / heads")
    hidden: int | None = Field(default=None, gt=0, description="MLP width; default 8/3 width (swiglu) or 4 (gelu)")
    context: int = Field(default=256, gt=0, description="longest row the model is meant for")
    norm: Literal["rms", "layer"] = "rms"
    norm_bias: bool = False
    norm_eps: float = Field(default=1e-6, gt=0)
    activation: Literal["swiglu", "gelu"] = "swiglu"
    moe: MoEConfig | None = Field(default=None, description="a mixture of experts in place of the MLP")
    positions: Literal["rope", "learned"] = Field(default="rope", description="rotation of q and k, or an embedding")
    rope_theta: float = Field(default=10_000.0, gt=0)
    rope_part: float = Field(default=1.0, gt=0, le=1, description="the first part of each head that rotates")
    rope_scaling: RopeScaling | None = None
    qk_norm: bool | Literal["whole"] = Field(
        default=True, description="RMSNorm of every query and key head before RoPE; whole: of all heads as one vector"
    )
    clip_qkv: float | None = Field(default=None, gt=0, description="clamp queries, keys and values to +- this")
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    head_bias: bool = False
    embed_scale: float = Field(default=1.0, gt=0, description="of the embeddings on their way in")
    logit_scale: float = Field(default=1.0, gt=0)
    tied: bool = Field(default=False, description="the head shares the embedding's weights")
    latent: int | None = Field(
        default=None, gt=0, description="width of the embeddings, where the network is fed noisy ones; default width"
    )
    feedback: Literal["none", "added", "soft"] = Field(
        default="none", description="a second input: what the network said of the text before; see `models.feedback`"
    )
    time: Literal["none", "adaln", "constant"] = Field(
        default="none", description="condition every layer on the noise level; constant: the same, told 0 always"
    )
    time_width: int = Field(default=128, gt=0)
    time_scale: float = Field(default=1000.0, gt=0, description="of the level before its sinusoids")
    time_unit: Literal["t", "sigma"] = Field(default="t", description="the level: the time, or -log of what survives")
    time_scope: Literal["position", "row"] = Field(default="position", description="row: all are told the noisiest's")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="of what each branch adds to the residual stream")

    @model_validator(mode="after")
    def _sizes_fit(self) -> ModelConfig:
        if self.head_width is None and self.width % self.heads:
            raise ValueError(f"width={self.width} is not a multiple of heads={self.heads}; set head_width too")
        if self.heads % self.n_kv_heads:
            raise ValueError(f"heads={self.heads} is not a multiple of kv_heads={self.kv_heads}")
        if self.head_dim % 2:
            raise ValueError(f"a head of width {self.head_dim} is odd; RoPE needs an even head_width")
        if self.rotary_dim % 2:
            raise ValueError(f"rope_part={self.rope_part} rotates {self.rotary_dim} numbers a head; it must be even")
        if self.tied and self.latent not in (None, self.width):
            raise ValueError(f"tied: embeddings of width latent={self.latent} cannot be a head of width {self.width}")
        if self.norm_bias and self.norm == "rms":
            raise ValueError("norm_bias: an RMSNorm has no bias; set norm to layer too")
        return self

    @property
    def n_kv_heads(self) -> int:
        return self.kv_heads or self.heads

    @property
    def head_dim(self) -> int:
        return self.head_width or self.width // self.heads

    @property
    def rotary_dim(self) -> int:
        """Numbers of a head that rotate, the first ones."""
        return round(self.head_dim * self.rope_part) if self.positions == "rope" else 0

    @property
    def timed(self) -> bool:
        """Whether the noise level changes what the network says."""
        return self.time == "adaln"

    @property
    def mlp_width(self) -> int:
        """SwiGLU has three matrices where GELU has two, so 8/3 keeps the parameters equal (rounded up to 32)."""
        if self.hidden:
            return self.hidden
        return 4 * self.width if self.activation == "gelu" else -(-8 * self.width // 3 // 32) * 32

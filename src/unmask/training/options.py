"""Every switch of a training run, with its default and its limits. Data only."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ..errors import nearest
from .optim import COURSES

BUDGETS = ("steps", "tokens", "minutes")


class TrainOptions(BaseModel):
    """Exactly one of steps, tokens and minutes is the budget."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int | None = Field(default=None, gt=0)
    tokens: int | None = Field(default=None, gt=0)
    minutes: float | None = Field(default=None, gt=0)
    length: int | None = Field(default=None, gt=1, description="tokens a row; default the model's context")
    batch: int = Field(default=8, gt=0, description="rows an optimiser step, over all processes")
    micro_batch: int | None = Field(default=None, gt=0, description="rows a forward pass; default all of them")
    optimizer: dict[str, Any] = {"kind": "muon"}
    course: str = "cosine"
    warmup: float = Field(default=0.05, ge=0, lt=1, description="share of the budget")
    floor: float = Field(default=0.05, ge=0, le=1, description="last step size as a share of the peak")
    clip: float = Field(default=1.0, gt=0)
    ema: float = Field(default=0.0, ge=0, lt=1, description="decay of the weights' moving average; 0: none")
    recompute: bool = Field(default=False, description="gradient checkpointing")
    compile: bool = Field(default=False, description="torch.compile")
    save_every: int = Field(default=200, gt=0, description="steps between checkpoints")
    keep: int = Field(default=2, gt=0, description="checkpoints kept")
    eval_every: int = Field(default=0, ge=0, description="steps between validations; 0: only at the end")
    eval_rows: int = Field(default=64, gt=0, description="rows of a validation during training")
    eval_draws: int = Field(default=8, gt=0, description="network passes a row when a bound is measured at the end")
    log_every: int = Field(default=10, gt=0)
    log_to: list[Literal["tensorboard", "wandb"]] = []
    bad_steps: int = Field(default=10, gt=0, description="non-finite steps in a row before rolling back")

    @field_validator("course")
    @classmethod
    def _course_exists(cls, value: str) -> str:
        if value not in COURSES:
            raise ValueError(f"{value!r} is unknown; {nearest(value, COURSES)}")
        return value

    @model_validator(mode="after")
    def _one_budget(self) -> TrainOptions:
        given = [name for name in BUDGETS if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} are both set; keep one budget")
        if self.micro_batch and self.batch % self.micro_batch:
            raise ValueError(f"batch={self.batch} is not a multiple of micro_batch={self.micro_batch}")
        return self

    @property
    def budget(self) -> tuple[str, float]:
        """Its kind and size; a thousand steps where none is set."""
        return next(((name, size) for name in BUDGETS if (size := getattr(self, name)) is not None), ("steps", 1000))

    @property
    def budget_is_set(self) -> bool:
        return any(getattr(self, name) is not None for name in BUDGETS)

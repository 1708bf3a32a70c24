"""What a run is, as data: validated as a whole before anything heavy happens. The one file where names meet classes.

A recipe is YAML plus `key=value` overrides. A component is written `{kind: name, option: value}`; a kind that is not in
the tables may be `package.module:Class`, so that your own schedule or method needs no change here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from . import components
from .errors import UserError, nearest
from .methods.autoregressive import Autoregressive
from .methods.block import Block
from .methods.continuous import Continuous
from .methods.dream import Dream
from .methods.hybrid import Hybrid
from .methods.joint import Joint
from .methods.masked import Masked
from .methods.masked_lm import MaskedLM
from .methods.method import Method
from .methods.sedd import Sedd
from .methods.structured import Structured
from .methods.uniform import Uniform
from .models.config import ModelConfig
from .noise.schedule import (
    Cosine,
    Exponential,
    Geometric,
    Linear,
    Logarithmic,
    LogLinear,
    LogUniform,
    Polynomial,
    Sine,
    Sqrt,
    Within,
)
from .training.optim import AdamWPlan, MuonPlan, Plan
from .training.options import BUDGETS, TrainOptions

METHODS: dict[str, type] = {
    "masked": Masked,
    "autoregressive": Autoregressive,
    "block": Block,
    "dream": Dream,
    "joint": Joint,
    "masked_lm": MaskedLM,
    "continuous": Continuous,
    "uniform": Uniform,
    "hybrid": Hybrid,
    "structured": Structured,
    "sedd": Sedd,
}
SCHEDULES: dict[str, type] = {
    "linear": Linear,
    "cosine": Cosine,
    "sine": Sine,
    "polynomial": Polynomial,
    "log_linear": LogLinear,
    "geometric": Geometric,
    "sqrt": Sqrt,
    "exponential": Exponential,
    "logarithmic": Logarithmic,
    "log_uniform": LogUniform,
    "within": Within,
}
OPTIMIZERS: dict[str, type] = {"muon": MuonPlan, "adamw": AdamWPlan}
PARTS = {"schedule": SCHEDULES}  # options of a component that are components themselves

Spec = dict[str, Any]


def build(table: components.Table, spec: Spec, field: str, imports: bool = True) -> Any:
    """`components.build` with the parts that components of a recipe have."""
    return components.build(table, spec, field, imports, parts=PARTS)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataRecipe(_Part):
    source: str = Field(default="stdlib", description="stdlib, a file, folder, glob, .jsonl, or hf:NAME")
    field: str | None = Field(default=None, description="the JSONL or dataset field that holds the text")
    split: str | None = None
    streaming: bool = False
    valid: str | None = Field(default=None, description="a source of its own for validation")
    valid_fraction: float = Field(default=0.05, gt=0, lt=1)
    eos: bool = Field(default=True, description="end every document with the end-of-text token")
    whole: bool = Field(default=False, description="never cut a document: one longer than a row is an error")


class TokenizerRecipe(_Part):
    kind: str = Field(default="bpe", description="bytes, bpe, or a Hugging Face name or folder")
    vocab_size: int = Field(default=4096, ge=300)


class LoraRecipe(_Part):
    rank: int = Field(default=16, gt=0)
    alpha: int = Field(default=32, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)


class TuneRecipe(_Part):
    """How answers are tuned; `data.chat` says what is noised, `unmask tune --help` how end-of-text is trained."""

    lora: LoraRecipe | None = None
    pad_answers: int = Field(default=16, ge=0, description="end-of-text tokens trained after the last answer")


class Recipe(_Part):
    out: str = "runs/default"
    seed: int = Field(default=0, ge=0, lt=2**63)
    device: str = "auto"
    dtype: str = "auto"
    data: DataRecipe = DataRecipe()
    tokenizer: TokenizerRecipe = TokenizerRecipe()
    model: ModelConfig = ModelConfig()
    method: Spec | None = Field(default=None, description="default masked, or that of the base")
    train: TrainOptions = TrainOptions()
    base: str | None = Field(default=None, description="a saved model to start from")
    tune: TuneRecipe = TuneRecipe()

    @model_validator(mode="after")
    def _components_exist(self) -> Recipe:
        method_of(self.method)
        self.build_plan()
        return self

    def build_method(self) -> Method:
        return method_of(self.method)

    def build_plan(self) -> Plan:
        plan: Plan = build(OPTIMIZERS, {"kind": "muon"} | self.train.optimizer, "train.optimizer")
        return plan

    @property
    def length(self) -> int:
        return self.train.length or self.model.context


def method_of(spec: Spec | None, imports: bool = True) -> Method:
    method: Method = build(METHODS, {"kind": "masked"} | (spec or {}), "method", imports)
    return method


def load_recipe(path: str | Path | None, overrides: Sequence[str] = (), **fixed: Any) -> Recipe:
    """A YAML file (or a packaged recipe's name, or nothing) with `a.b=value` overrides on top."""
    try:
        return Recipe(**read_tree(path, overrides, **fixed))
    except ValidationError as error:
        raise UserError(sentence(error, Recipe)) from error


def for_tuning(recipe: Recipe) -> Recipe:
    """What the recipe leaves open is as in the packaged recipe `tune`, not as for a model trained from nothing."""
    usual = _read("tune")
    theirs, mine = usual.pop("train"), recipe.train.model_dump(exclude_unset=True)
    if recipe.train.budget_is_set:
        theirs = {name: value for name, value in theirs.items() if name not in BUDGETS}
    if "kind" not in mine.get("optimizer", {"kind": ""}):
        mine["optimizer"] = theirs["optimizer"] | mine["optimizer"]
    try:
        train = TrainOptions(**(theirs | mine))
    except ValidationError as error:
        raise UserError(f"train: {sentence(error, TrainOptions)}") from error
    out = recipe.out if "out" in recipe.model_fields_set else usual["out"]
    return recipe.model_copy(update={"train": train, "out": out})


def read_tree(path: str | Path | None, overrides: Sequence[str] = (), **fixed: Any) -> Spec:
    """A YAML file's content with `a.b=value` overrides, and then what is fixed and not None, on top; not validated."""
    tree = _read(path)
    for override in overrides:
        _assign(tree, override)
    return tree | {key: value for key, value in fixed.items() if value is not None}


def packaged() -> dict[str, Path]:
    """Recipes that come with the package, by name."""
    return {p.stem: p for p in sorted((Path(__file__).parent / "recipes").glob("*.yaml"))}


def _read(path: str | Path | None) -> Spec:
    if path is None:
        return {}
    import yaml  # takes a while, and who says nothing needs none of it

    file = packaged().get(str(path), Path(path))
    if not file.is_file():
        raise UserError(
            f"recipe: {str(path)!r} is neither a file nor a packaged recipe; {nearest(str(path), packaged())}"
        )
    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"recipe: {file} is not valid YAML ({str(error).splitlines()[0]}); mend that line") from error
    if tree is not None and not isinstance(tree, dict):
        raise UserError(f"recipe: {file} holds a {type(tree).__name__}; write `key: value` lines")
    return tree or {}


def _assign(tree: Spec, override: str) -> None:
    import yaml

    key, equals, value = override.partition("=")
    if not equals or not key:
        raise UserError(f"override: {override!r} has no value; write key=value, for example train.steps=100")
    *path, last = key.split(".")
    here = tree
    for part in path:
        inner = here.setdefault(part, {})
        if not isinstance(inner, dict):
            raise UserError(f"override: {key!r} goes below {part!r}, which holds {inner!r}; set {part} itself instead")
        here = inner
    try:
        here[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise UserError(f"override: {value!r} (for {key}) is not a YAML value; put it in quotes") from error
    if isinstance(here[last], str):  # YAML 1.1 reads 2e-3 as text
        try:
            here[last] = float(here[last])
        except ValueError:
            return


def sentence(error: ValidationError, model: type[BaseModel]) -> str:
    """pydantic's first complaint as one sentence that names the nearest key."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"{where}: no such key; {nearest(str(first['loc'][-1]), _keys(model, first['loc'][:-1]))}"
    message = first["msg"].removeprefix("Value error, ")
    if where and not message.startswith(where):
        value = first.get("input")
        shown = f"={value!r}" if isinstance(value, (int, float, str)) else ""
        return f"{where}{shown}: {message[:1].lower()}{message[1:]}"
    return message


def keys_of(model: type[BaseModel], prefix: str = "") -> dict[str, str]:
    """Every key of a model and its parts, with its default and what it is."""
    found: dict[str, str] = {}
    for name, field in model.model_fields.items():
        part = _part_of(field.annotation)
        if part is not None:
            found |= keys_of(part, f"{prefix}{name}.")
        else:
            usual = "needed" if field.is_required() else str(field.default)
            found[prefix + name] = usual + (f"; {field.description}" if field.description else "")
    return found


def _part_of(annotation: Any) -> type[BaseModel] | None:
    """The model inside `Part` or `Part | None`."""
    options = [annotation, *getattr(annotation, "__args__", ())]
    return next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), None)


def _keys(model: type[BaseModel], path: Sequence[Any]) -> list[str]:
    """Field names of the model's part at path."""
    part: Any = model
    for name in path:
        field = part.model_fields.get(name) if hasattr(part, "model_fields") else None
        part = _part_of(field.annotation if field else None) or model
    return list(part.model_fields)

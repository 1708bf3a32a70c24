"""Recipes: every shipped one loads, names resolve to classes, your own class needs no table."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.errors import UserError
from unmask.methods.masked import Masked
from unmask.noise.schedule import Cosine, Linear
from unmask.recipe import METHODS, SCHEDULES, Recipe, build, load_recipe, method_of, packaged

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", sorted(packaged()))
def test_every_packaged_recipe_is_valid_and_says_what_it_is(name):
    assert isinstance(load_recipe(name), Recipe)
    assert packaged()[name].read_text(encoding="utf-8").startswith("# ")


def test_a_resolved_recipe_survives_yaml():
    recipe = load_recipe(None, ["model.width=64", "method={kind: masked, schedule: cosine}", "train.steps=3"])
    assert Recipe(**yaml.safe_load(yaml.safe_dump(recipe.model_dump()))) == recipe


def test_components_by_name_by_name_only_and_by_import_path():
    assert method_of({"kind": "masked"}) == Masked()
    assert method_of({"kind": "masked", "schedule": "cosine"}) == Masked(schedule=Cosine())
    assert method_of({"kind": "masked", "schedule": {"kind": "cosine", "power": 2}}) == Masked(schedule=Cosine(2))
    own = {"kind": "masked", "schedule": {"kind": f"{__name__}:Late", "until": 0.3}}
    assert method_of(own).schedule == Late(0.3)


@dataclass(frozen=True)
class Late:
    """A user's own schedule: clean until `until`, then linear."""

    until: float = 0.5

    def alpha(self, t: torch.Tensor) -> torch.Tensor:
        return 1 - ((t - self.until) / (1 - self.until)).clamp(0, 1)

    def slope(self, t: torch.Tensor) -> torch.Tensor:
        return torch.where(t > self.until, -1 / (1 - self.until), 0.0)

    def time(self, alpha: torch.Tensor) -> torch.Tensor:
        return self.until + (1 - alpha) * (1 - self.until)


@pytest.mark.parametrize("table", [METHODS, SCHEDULES])
def test_every_name_builds_with_its_defaults(table):
    for name in table:
        assert build(table, {"kind": name}, "field") is not None


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["train.steps=5", "train.tokens=7"], ["steps", "tokens"]),
        (["train.batch=6", "train.micro_batch=4"], ["6", "4"]),
        (["train.course=cosin"], ["cosin", "cosine"]),
        (["method.kind=nothing.here:Thing"], ["cannot be imported"]),
        (["method.kind=7"], ["method.kind", "7"]),
        (["train.steps=2", "train.steps.more=1"], ["train.steps.more", "2"]),
        (["model.width=abc"], ["model.width", "abc"]),
        (["method.masks=foo"], ["method.masks", "foo", "counted"]),
        (["method.masks=counted", "method.schedule=cosine"], ["method.masks", "method.schedule"]),
        (["method={kind: block, masks: counted, schedule: cosine}"], ["method.masks", "method.schedule"]),
        (["method.short=abc"], ["method.short", "abc"]),
        (["train.optimizer.lr=-1"], ["lr=-1"]),
        (["train.optimizer.lr=abc"], ["train.optimizer.lr", "abc"]),
        (["train.optimizer.betas=3"], ["train.optimizer.betas"]),
        (["method.kind=os:getcwd"], ["os:getcwd", "dataclass"]),
    ],
)
def test_what_does_not_fit_is_named(overrides, words):
    with pytest.raises(UserError) as caught:
        load_recipe(None, overrides)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.text(min_size=1, max_size=8), st.one_of(st.none(), st.integers(), st.text(max_size=5)), max_size=3
    )
)
def test_no_tree_of_keys_gives_a_traceback(tree):
    """Any YAML mapping is a recipe or a UserError."""
    overrides = [f"{key}={yaml.safe_dump(value).splitlines()[0]}" for key, value in tree.items()]
    with contextlib.suppress(UserError):
        load_recipe(None, overrides)


def test_numbers_in_scientific_notation_are_numbers():
    assert load_recipe(None, ["train.optimizer={kind: adamw, lr: 2.0e-3}"]).build_plan().lr == 2e-3
    assert load_recipe(None, ["train.optimizer.kind=adamw", "train.optimizer.lr=2e-3"]).build_plan().lr == 2e-3


def test_the_linear_schedule_is_the_default():
    assert Masked().schedule == Linear()


def test_a_schedule_of_ones_own_is_followed():
    assert method_of({"kind": "masked"}).drawn == "counted"
    assert method_of({"kind": "masked", "schedule": "cosine"}).drawn == "independent"
    assert method_of({"kind": "masked", "masks": "independent"}).drawn == "independent"
    assert method_of({"kind": "block", "size": 4, "schedule": "cosine"}).drawn == "independent"

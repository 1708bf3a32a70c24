"""A run goes on in its own folder under whatever changes nothing, and takes over nobody else's."""

import pytest
import yaml

from unmask.claim import check_claim, claim
from unmask.errors import UserError
from unmask.recipe import Recipe, load_recipe


def recipe(tmp_path, *overrides) -> Recipe:
    return load_recipe(None, overrides, out=str(tmp_path / "run"))


HARMLESS = [
    "train.log_every=3",
    "train.keep=5",
    "train.save_every=7",
    "train.eval_every=50",
    "train.eval_rows=9",
    "train.eval_draws=4",
    "train.recompute=true",
    "device=cpu",
    "train.steps=200",
    "train.log_to=[wandb]",
]


@pytest.mark.parametrize("change", HARMLESS)
def test_what_changes_nothing_is_allowed_and_kept(tmp_path, change):
    claim(recipe(tmp_path, "train.steps=100"))
    changed = recipe(tmp_path, *([] if "steps" in change else ["train.steps=100"]), change)
    check_claim(changed)
    claim(changed)
    assert Recipe(**yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())) == changed


@pytest.mark.parametrize("kind", ["steps", "tokens", "minutes"])
def test_a_budget_may_only_grow(tmp_path, kind):
    claim(recipe(tmp_path, f"train.{kind}=100"))
    check_claim(recipe(tmp_path, f"train.{kind}=101"))
    with pytest.raises(UserError, match=rf"train\.{kind}=100, 99 here; name as much or more"):
        check_claim(recipe(tmp_path, f"train.{kind}=99"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("model.width=64", r"model\.width=256 there, 64 here"),
        ("train.batch=4", r"train\.batch=8 there, 4 here"),
        ("train.minutes=3", r"train\.budget='steps' there, 'minutes' here"),
        ("seed=1", "seed=0 there, 1 here"),
        ("data.source=other.txt", r"data\.source='stdlib' there"),
    ],
)
def test_what_makes_it_another_run_is_refused_by_name(tmp_path, change, says):
    claim(recipe(tmp_path))
    with pytest.raises(UserError, match=says):
        check_claim(recipe(tmp_path, change))


def test_a_thousand_steps_are_the_default_budget(tmp_path):
    claim(recipe(tmp_path))
    check_claim(recipe(tmp_path, "train.steps=1000"))
    with pytest.raises(UserError, match=r"train\.steps=1000, 999 here"):
        check_claim(recipe(tmp_path, "train.steps=999"))


def test_an_older_recipe_lacks_keys_and_is_the_same_run(tmp_path):
    folder = claim(recipe(tmp_path))
    tree = yaml.safe_load((folder / "recipe.yaml").read_text())
    del tree["train"]["eval_draws"], tree["data"]["whole"]
    (folder / "recipe.yaml").write_text(yaml.safe_dump(tree))
    check_claim(recipe(tmp_path))


@pytest.mark.parametrize("content", ["", "[1, 2]", "train: [", "nonsense: 3"])
def test_a_damaged_recipe_is_one_sentence(tmp_path, content):
    (claim(recipe(tmp_path)) / "recipe.yaml").write_text(content)
    with pytest.raises(UserError, match=r"recipe\.yaml cannot be read") as caught:
        check_claim(recipe(tmp_path))
    assert "\n" not in str(caught.value)


def test_the_recipe_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    folder = claim(recipe(tmp_path))
    before = (folder / "recipe.yaml").read_text()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("unmask.folder._fsync", full)
    with pytest.raises(UserError, match="No space left"):
        claim(recipe(tmp_path, "train.log_every=1"))
    assert (folder / "recipe.yaml").read_text() == before
    assert sorted(p.name for p in folder.iterdir()) == ["recipe.yaml"]

"""Whose folder a run's folder is: a run goes on in its own, and takes over nobody else's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from .errors import UserError
from .folder import atomic_text
from .recipe import Recipe
from .training.options import BUDGETS

KEPT = "recipe.yaml"
ELSEWHERE = {"out", "device"}  # the same run on another machine
WATCHING = {"save_every", "keep", "eval_every", "eval_rows", "eval_draws", "log_every", "log_to", "bad_steps"}
PACE = {"recompute", "compile"}  # what a step costs, not what it does


def check_claim(recipe: Recipe) -> None:
    """UserError where the folder holds a run of another recipe: nothing there is overwritten.

    The same run may be watched otherwise, and may get a larger budget of the same kind."""
    theirs = _kept(Path(recipe.out) / KEPT)
    if theirs is None:
        return
    here, there = _essence(recipe), _essence(theirs)
    for key in sorted(here):
        if here[key] != there[key]:
            what = _difference(key, there[key], here[key])
            raise UserError(
                f"out: {recipe.out} holds a run of another recipe ({what}); choose another out=, or delete that folder"
            )
    (kind, most), (_, least) = recipe.train.budget, theirs.train.budget
    if most < least:
        raise UserError(
            f"out: {recipe.out} holds a run with train.{kind}={least:g}, {most:g} here; "
            "name as much or more to go on with it, or choose another out="
        )


def claim(recipe: Recipe) -> Path:
    """The run's folder, with its recipe in it; only once the data could be read, so that a typo claims nothing."""
    folder = Path(recipe.out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        atomic_text(folder / KEPT, yaml.safe_dump(recipe.model_dump(), sort_keys=False))
    except OSError as error:
        raise UserError(f"out: {folder} cannot be written ({error.strerror}); choose another out=") from error
    return folder


def _kept(path: Path) -> Recipe | None:
    """The recipe of the run that is there; what it does not say, because it is older, is as by default."""
    if not path.is_file():
        return None
    try:
        return Recipe(**yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, TypeError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"out: {path} cannot be read ({reason}); choose another out=, or delete that folder") from error


def _essence(recipe: Recipe) -> dict[str, Any]:
    """What makes it this run and no other."""
    tree = recipe.model_dump(exclude=ELSEWHERE)
    tree["train"] = {k: v for k, v in tree["train"].items() if k not in {*WATCHING, *PACE, *BUDGETS}}
    tree["train"]["budget"] = recipe.train.budget[0]
    return tree


def _difference(key: str, theirs: Any, mine: Any) -> str:
    if isinstance(theirs, dict) and isinstance(mine, dict):
        inner = next(k for k in sorted({*theirs, *mine}) if theirs.get(k) != mine.get(k))
        return _difference(f"{key}.{inner}", theirs.get(inner), mine.get(inner))
    return f"{key}={theirs!r} there, {mine!r} here"

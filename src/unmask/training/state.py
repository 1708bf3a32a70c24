"""Everything a run needs to go on as if it had never stopped, in safetensors and JSON. Knows no model and no data.

The noise of a step is keyed by (seed, step), so there is no random state to save: resuming at a step draws what an
undisturbed run would have drawn.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError
from ..folder import atomic_folder, load_tensors, read_json, save_tensors, settled, verify

Facts = dict[str, Any]


@dataclass(frozen=True)
class State:
    """tensors: weights, optimiser moments, averages by name; facts: JSON (step, data position, counters)."""

    tensors: dict[str, Tensor]
    facts: Facts


def save(folder: Path, step: int, state: State, keep: int) -> Path:
    """Write checkpoints/step-N whole or not at all, then drop all but the newest `keep`."""
    target = folder / f"step-{step:08d}"
    with atomic_folder(target) as temporary:
        save_tensors(temporary / "state.safetensors", state.tensors)
        (temporary / "state.json").write_text(json.dumps(state.facts), encoding="utf-8")
    for old in everything(folder)[:-keep]:
        old.rename(old.with_name(f".{old.name}.gone"))  # a kill halfway through deleting must not leave a part of it
    for gone in folder.glob(".step-*.gone"):
        shutil.rmtree(gone, ignore_errors=True)
    return target


def everything(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first. An unfinished one never has such a name."""
    found = (p for p in folder.glob("step-*") if re.fullmatch(r"step-\d{8}", p.name))
    return sorted(found, key=lambda p: p.name)


def newest(folder: Path, tell: Callable[[str], None] = lambda message: None) -> State | None:
    """The newest checkpoint that is whole, if there is any; `tell` hears of those passed over. UserError where all that
    there are are damaged."""
    damage: UserError | None = None
    for path in reversed(everything(folder)):
        try:
            return load(path)
        except UserError as error:
            damage = damage or error
            tell(f"{path.name} is damaged ({error}); going back to the checkpoint before it")
    if damage is not None:
        raise damage
    return None


def load(path: Path) -> State:
    path = settled(path)
    verify(path)
    return State(load_tensors(path / "state.safetensors"), read_json(path / "state.json"))


def pack_optimizers(optimizers: Iterable[torch.optim.Optimizer]) -> tuple[dict[str, Tensor], list[Facts]]:
    """Moments as flat tensors, hyperparameters as JSON."""
    tensors: dict[str, Tensor] = {}
    facts = []
    for i, optimizer in enumerate(optimizers):
        saved = optimizer.state_dict()
        scalars: dict[str, dict[str, Any]] = {}
        for index, moments in saved["state"].items():
            for name, value in moments.items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer.{i}.{index}.{name}"] = value.detach().cpu()
                else:
                    scalars.setdefault(str(index), {})[name] = value
        facts.append({"param_groups": saved["param_groups"], "scalars": scalars})
    return tensors, facts


def unpack_optimizers(optimizers: Iterable[torch.optim.Optimizer], state: State) -> None:
    for i, (optimizer, facts) in enumerate(zip(optimizers, state.facts["optimizers"], strict=True)):
        moments: dict[int, dict[str, Any]] = {int(k): dict(v) for k, v in facts["scalars"].items()}
        prefix = f"optimizer.{i}."
        for key, value in state.tensors.items():
            if key.startswith(prefix):
                index, name = key.removeprefix(prefix).split(".", 1)
                moments.setdefault(int(index), {})[name] = value
        optimizer.load_state_dict({"state": moments, "param_groups": facts["param_groups"]})

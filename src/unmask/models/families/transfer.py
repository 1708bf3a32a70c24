"""Tensors between a published checkpoint and the one transformer, both ways, by a family's table.

Reading goes shard by shard and tensor by tensor into parameters of the wanted dtype, so that the most memory ever
needed is the model itself and what is mapped of one shard. Nothing but safetensors is read: no pickle, no code.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ...errors import UserError, nearest
from ...folder import read_json, save_tensors
from ..transformer import Transformer
from .family import Family, Rows, Source

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD_BYTES = 5 << 30
KEPT = 4096  # numbers in a buffer that is kept for the way back; larger ones are tables that anyone can recompute


@dataclass(frozen=True)
class Landing:
    """Rows of one of their tensors are rows of one of our parameters, all its leading dimensions taken as rows."""

    ours: str
    rows: slice
    theirs: slice
    turned: bool


Plan = dict[str, list[Landing]]  # by their names
Buffers = dict[str, dict[str, Any]]  # tensors that are no weights, as JSON


def planned(family: Family, network: Transformer, prefix: str) -> tuple[Plan, dict[str, tuple[int, ...]]]:
    """Where every tensor of the checkpoint belongs, and the shape that it must have."""
    table, plan, rows = family.names(network.config, prefix), Plan(), dict[str, int]()
    shapes: dict[str, tuple[int, ...]] = {}
    for name, parameter in network.named_parameters():
        sources = _sources(table, name)
        height = _height(parameter)
        share = (height - sum(s.stop - s.start for s in sources if s.stop)) // max(1, sum(not s.stop for s in sources))
        start = 0
        for source in sources:
            wide = source.stop - source.start if source.stop else share
            theirs = slice(source.start, source.start + wide)
            landing = Landing(name, slice(start, start + wide), theirs, source.turned and parameter.dim() > 1)
            plan.setdefault(source.name, []).append(landing)
            rows[source.name] = max(rows.get(source.name, 0), theirs.stop)
            shape = (rows[source.name], *parameter.shape[1:][-1:])
            shapes[source.name] = shape[::-1] if landing.turned else shape
            start += wide
        assert start == height, f"{name}: {start} of {height} rows have a source"
    return plan, shapes


def _height(parameter: Tensor) -> int:
    return parameter.numel() if parameter.dim() == 1 else math.prod(parameter.shape[:-1])


def _sources(table: dict[str, Source | list[Source]], name: str) -> list[Rows]:
    """What a parameter is made of: by its own name, or by its module's with the same ending."""
    module, _, leaf = name.rpartition(".")
    found, ending = (table[name], "") if name in table else (table[module], f".{leaf}")
    each = [Rows(s) if isinstance(s, str) else s for s in (found if isinstance(found, list) else [found])]
    return [Rows(s.name + ending, s.start, s.stop, s.turned) for s in each]


# -- reading


def read_into(
    network: Transformer, folder: Path, family: Family, dtype: torch.dtype | None, device: torch.device | str | None
) -> tuple[str, Buffers]:
    """Fill a network on the meta device; the prefix of the file's names, and the tensors that are no weights.

    dtype None: as stored. UserError names the tensor or shard that is missing, too many, cut or of a wrong shape.
    """
    shards = _shards(folder)
    prefix = _prefix(family, shards)
    plan, shapes = planned(family, network, prefix)
    twin = f"{family.names(network.config, prefix)['head']}.weight" if network.config.tied else None
    filling = _Filling(network, dtype, device)
    buffers: Buffers = {}
    for shard in shards:
        with _opened(shard) as file:
            for name in file.keys():  # noqa: SIM118 (a file, no dictionary)
                if name in plan:
                    _check_shape(shard, name, tuple(file.get_slice(name).get_shape()), shapes[name])
                    filling.put(file.get_tensor(name), plan[name])
                elif family.buffers and re.fullmatch(family.buffers, name):
                    buffers |= _buffer(name, file.get_tensor(name))
                elif name != twin:
                    hint = nearest(name, plan)
                    raise UserError(f"{shard}: tensor {name!r} has no place in a {family.name} model; {hint}")
                filling.seen.add(name)
    for name in plan:
        if name not in filling.seen:
            raise UserError(f"{folder}: tensor {name!r} is missing; download the checkpoint again")
    filling.finish()
    return prefix, buffers


class _Filling:
    """Parameters that come into being when their first piece is here, each tied one once."""

    def __init__(self, network: Transformer, dtype: torch.dtype | None, device: torch.device | str | None) -> None:
        self.network, self.dtype, self.device = network, dtype, device
        self.meta = dict(network.named_parameters())
        self.fresh: dict[str, Tensor] = {}
        self.seen: set[str] = set()

    @torch.no_grad()
    def put(self, tensor: Tensor, landings: list[Landing]) -> None:
        for landing in landings:
            meta = self.meta[landing.ours]
            if landing.ours not in self.fresh:
                wanted = self.dtype if meta.requires_grad else None  # a router's bias stays as exact as it is
                self.fresh[landing.ours] = torch.empty(meta.shape, dtype=wanted or tensor.dtype, device=self.device)
            target = self.fresh[landing.ours].view(_height(meta), *meta.shape[1:][-1:])
            target[landing.rows].copy_((tensor.T if landing.turned else tensor)[landing.theirs])

    def finish(self) -> None:
        assign(self.network, self.fresh)


def assign(network: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Put tensors in place of the meta parameters; modules that shared a parameter share the new one."""
    fresh = {id(p): nn.Parameter(tensors[name], p.requires_grad) for name, p in network.named_parameters()}
    for module in network.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, fresh[id(parameter)])


def _shards(folder: Path) -> list[Path]:
    if (folder / INDEX).is_file():
        weight_map = read_json(folder / INDEX).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise UserError(f"{folder / INDEX}: holds no weight_map; download it again")
        names = sorted({str(name) for name in weight_map.values()})
        outside = [name for name in names if Path(name).name != name]
        if outside:
            raise UserError(f"{folder / INDEX}: names {outside[0]!r}, which is not a file beside it; download it again")
        return [folder / name for name in names]
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    pickled = next(iter(sorted(folder.glob("*.bin"))), None)
    why = f"only {pickled.name}, a pickle that could run code" if pickled else f"neither {WEIGHTS} nor {INDEX}"
    raise UserError(f"{folder}: holds {why}; use a revision of the checkpoint in safetensors")


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A safetensors file; unmapped again on leaving, so that its pages do not count for long."""
    if not path.is_file():
        raise UserError(f"{path}: this shard is missing; download it again")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise UserError(f"{path}: is not a whole safetensors file ({error}); download it again") from error


def _prefix(family: Family, shards: list[Path]) -> str:
    """The first of the family's prefixes that any tensor has."""
    if len(family.prefixes) == 1:
        return family.prefixes[0]
    names = []
    for shard in shards:
        with _opened(shard) as file:
            names += list(file.keys())
    return next((p for p in family.prefixes if any(name.startswith(p) for name in names)), family.prefixes[0])


def _check_shape(shard: Path, name: str, found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    if found != wanted:
        raise UserError(
            f"{shard}: tensor {name!r} has shape {found} where config.json asks for {wanted}; "
            "both must come from one checkpoint"
        )


def _buffer(name: str, tensor: Tensor) -> Buffers:
    if tensor.numel() > KEPT or not tensor.is_floating_point():
        return {}
    dtype = str(tensor.dtype).removeprefix("torch.")
    return {name: {"dtype": dtype, "shape": list(tensor.shape), "values": tensor.double().flatten().tolist()}}


# -- writing


@torch.no_grad()
def write_from(network: Transformer, folder: Path, family: Family, prefix: str, buffers: Buffers) -> None:
    """The network under the family's own names, in as many shards as it takes."""
    plan, shapes = planned(family, network, prefix)
    ours = dict(network.named_parameters())
    size = {name: math.prod(shapes[name]) * ours[plan[name][0].ours].element_size() for name in plan}
    groups = _grouped(size)
    names = [f"model-{i:05}-of-{len(groups):05}.safetensors" for i in range(1, len(groups) + 1)]
    names = names if len(groups) > 1 else [WEIGHTS]
    for file, group in zip(names, groups):
        tensors = {name: _gathered(ours, plan[name], shapes[name]) for name in group}
        extra = {name: _unbuffered(b) for name, b in buffers.items()} if file == names[0] else {}
        save_tensors(folder / file, tensors | extra)
    if len(groups) > 1:
        where = {name: file for file, group in zip(names, groups) for name in group} | dict.fromkeys(buffers, names[0])
        index = {"metadata": {"total_size": sum(size.values())}, "weight_map": where}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _grouped(size: dict[str, int]) -> list[list[str]]:
    groups: list[list[str]] = [[]]
    filled = 0
    for name, n in size.items():
        if groups[-1] and filled + n > SHARD_BYTES:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += n
    return groups


def _gathered(ours: dict[str, nn.Parameter], landings: list[Landing], shape: tuple[int, ...]) -> Tensor:
    like = ours[landings[0].ours]
    out = torch.empty(shape, dtype=like.dtype)
    for landing in landings:
        parameter = ours[landing.ours]
        rows = parameter.reshape(_height(parameter), *parameter.shape[1:][-1:])
        (out.T if landing.turned else out)[landing.theirs].copy_(rows[landing.rows])
    return out


def _unbuffered(kept: dict[str, Any]) -> Tensor:
    return torch.tensor(kept["values"], dtype=torch.float64).to(getattr(torch, kept["dtype"])).view(kept["shape"])

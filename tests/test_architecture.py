"""Arrows only run down: which room may not know which, read from the source, and where outside packages enter."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"
ROOT = SOURCE / "unmask"

# a room (a package or a module of unmask) -> the rooms it must not import
MUST_NOT_KNOW = {
    "errors": {"*"},
    "rowwise": {"*"},
    "folder": {"* but errors"},
    "noise": {"models", "decoding", "training", "data", "evaluation", "denoiser", "methods", "objectives"},
    "models": {"noise", "decoding", "training", "data", "evaluation", "denoiser", "methods", "objectives"},
    "data": {"models", "noise", "decoding", "training", "evaluation", "denoiser", "methods", "objectives"},
    "layout": {"noise", "decoding", "training", "data", "evaluation", "denoiser", "methods", "objectives"},
    "echo": {"noise", "decoding", "training", "data", "evaluation", "denoiser", "methods", "objectives"},
    "denoiser": {"noise", "decoding", "training", "data", "evaluation", "methods", "objectives"},
    "scores": {"decoding", "training", "data", "evaluation", "methods", "objectives"},
    "objectives": {"decoding", "training", "evaluation", "methods"},
    "methods": {"training"},
    "decoding": {"training", "evaluation", "data.sources", "data.packing"},
    "training": {"decoding"},
    "evaluation": {"training"},
    "serving": {"training", "evaluation"},
}
# where the rooms are put together; no room imports these
ASSEMBLY = {
    "base",
    "gemma",
    "loaded",
    "convert",
    "claim",
    "corpus",
    "task",
    "request",
    "run",
    "lm",
    "published",
    "sampling",
    "writing",
    "demo",
    "grid",
    "comparing",
    "bench",
    "draft",
}
NOBODY_BUT = {
    "base": ASSEMBLY,
    "convert": {"cli"},
    "gemma": {"published"},
    "loaded": ASSEMBLY,
    "claim": ASSEMBLY,
    "corpus": ASSEMBLY | {"cli"},
    "task": ASSEMBLY,
    "request": ASSEMBLY | {"cli", "serving.schema", "serving.fill"},
    "run": ASSEMBLY | {"cli"},
    "lm": ASSEMBLY | {"cli", "serving"},
    "published": ASSEMBLY | {"cli", "serving"},
    "sampling": ASSEMBLY | {"cli", "serving"},
    "writing": ASSEMBLY | {"cli"},
    "demo": {"cli"},
    "grid": {"comparing", "cli"},
    "comparing": {"cli"},
    "bench": {"cli"},
    "draft": ASSEMBLY,
    "serving": {"serving", "cli"},
    "cli": {"cli"},
    "recipe": {"recipe", "cli", *ASSEMBLY},
}
# an outside package -> the rooms or modules it may enter through
DOORS = {
    "transformers": {"data.tokenizer", "data.plain", "models.families", "evaluation.peer", "draft"},
    "tokenizers": {"data.tokenizer", "data.plain"},
    "huggingface_hub": {"models.checkpoint", "data", "lm"},
    "datasets": {"data"},
    "accelerate": {"training", "run"},
    "peft": {"training"},
    "lm_eval": {"evaluation.harness"},
    "fastapi": {"serving"},
    "ray": {"serving.ray"},
    "starlette": {"serving"},
    "uvicorn": {"serving.run"},
    "prometheus_client": {"serving.metrics"},
    "typer": {"cli"},
    "rich": {"cli", "demo", "bench", "show", "training.progress"},
    "safetensors": {"folder", "models", "training"},
    "matplotlib": {"evaluation", "training"},
    "wandb": {"training"},
    "tensorboard": {"training"},
    "flax": set(),
    "pickle": set(),
    "numpy": {"data", "training", "evaluation", "corpus"},
}


def modules():
    return {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}


def name_of(path):
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(name, path, *, only_top=False):
    """Every module that `name` imports, absolute; `from x import y` counts as x and, where y is a module, as x.y."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = name.split(".") if path.stem == "__init__" else name.split(".")[:-1]
    for node in tree.body if only_top else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            if base == "unmask" and {alias.name for alias in node.names} == {"__version__"}:
                continue  # the root loads nothing of its own, which is tested below, and owns only this
            inner = [f"{base}.{alias.name}" for alias in node.names if f"{base}.{alias.name}" in KNOWN]
            yield from inner or [base]


MODULES = modules()
KNOWN = set(MODULES)
IMPORTS = {name: set(imports(name, path)) for name, path in MODULES.items()}
every_module = pytest.mark.parametrize("name", sorted(MODULES))


def inside(module, rooms):
    """Whether `module` (without the leading unmask.) is one of the rooms or stands in one."""
    return any(module == room or module.startswith(room + ".") for room in rooms)


def own(name):
    """What a module imports of unmask itself, without the leading unmask."""
    return {i.removeprefix("unmask.") for i in IMPORTS[name] if i.startswith("unmask.")}


@every_module
def test_who_must_not_know_whom(name):
    here = name.removeprefix("unmask.")
    for room, banned in MUST_NOT_KNOW.items():
        if not inside(here, {room}):
            continue
        allowed = {room} | ({"errors"} if banned == {"* but errors"} else set())
        wrong = {i for i in own(name) if inside(i, banned) or ("*" in str(banned) and not inside(i, allowed))}
        assert not wrong, f"{name} must not know {sorted(wrong)}"


@every_module
def test_who_may_know_the_top(name):
    for room, allowed in NOBODY_BUT.items():
        if name != "unmask" and not inside(name.removeprefix("unmask."), allowed):
            assert not any(inside(i, {room}) for i in own(name)), f"{name} must not import {room}"


@every_module
def test_outside_packages_have_one_door_each(name):
    for package in {i.split(".")[0] for i in IMPORTS[name]} & DOORS.keys():
        doors = DOORS[package]
        assert inside(name.removeprefix("unmask."), doors), f"{name} imports {package}; its door is {sorted(doors)}"


@every_module
def test_nobody_imports_the_package_itself(name):
    assert "unmask" not in IMPORTS[name] or name == "unmask", f"{name} imports the root: that is how circles begin"


def test_the_root_loads_nothing():
    """`import unmask` must be quick, and must not be a way round the arrows."""
    loaded = [i for i in imports("unmask", MODULES["unmask"], only_top=True) if i.startswith("unmask")]
    assert not loaded


def test_there_are_no_circles():
    """Depth-first over all imports, those inside functions too."""
    done, trail = set(), []

    def visit(name):
        assert name not in trail, "a circle: " + " -> ".join([*trail[trail.index(name) :], name])
        if name in done:
            return
        trail.append(name)
        for other in sorted(IMPORTS[name] & KNOWN - {name}):
            visit(other)
        done.add(trail.pop())

    for name in sorted(KNOWN):
        visit(name)


def test_the_reader_of_imports_reads():
    """The test of the test: relative, nested and aliased imports are all seen."""
    assert "unmask.models.attention" in IMPORTS["unmask.denoiser"]
    assert "unmask.noise.draws" in IMPORTS["unmask.evaluation.likelihood"]
    assert "huggingface_hub" in IMPORTS["unmask.models.checkpoint"]
    assert inside("models.attention", {"models"})
    assert not inside("modelsx", {"models"})

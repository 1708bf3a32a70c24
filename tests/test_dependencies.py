"""What is imported is declared: what is always needed as a dependency, the rest in an extra and imported on use."""

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "src" / "unmask").rglob("*.py"))
PROVIDERS = packages_distributions()
# rooms that are entered on use: the command line imports them inside the verb, and asks for the extra first
ON_USE = {"serving": {"fastapi", "starlette", "uvicorn", "prometheus_client", "ray"}}


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def declared():
    """(dependencies, those of extras), by normalised name. Read by hand: tomllib is younger than Python 3.10."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    core = re.search(r"^dependencies = \[(.*?)^\]", text, re.MULTILINE | re.DOTALL)[1]
    extras = re.search(r"^\[project\.optional-dependencies\](.*?)^\[", text, re.MULTILINE | re.DOTALL)[1]
    users = "\n".join(
        line for line in re.split(r"^(?=\w+ = )", extras, flags=re.MULTILINE) if not line.startswith("dev")
    )
    return tuple({normal(name) for name in re.findall(r'"([A-Za-z0-9_.-]+)', part)} for part in (core, users))


CORE, EXTRAS = declared()


def imported(nodes):
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module.split(".")[0]


def foreign(names):
    return {name for name in names if name not in sys.stdlib_module_names and name != "unmask"}


def provider(package):
    return {normal(name) for name in PROVIDERS.get(package, [package])}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(ROOT / "src").as_posix())
def test_what_is_imported_is_declared(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for package in foreign(imported(ast.walk(tree))):
        assert provider(package) & (CORE | EXTRAS), f"{path.name} imports {package}, which pyproject.toml does not name"
    for package in foreign(imported(tree.body)) - ON_USE.get(path.parent.name, set()):
        assert provider(package) & CORE, f"{path.name} imports {package} at once, but it is only in an extra"


def test_the_reader_reads():
    assert {"torch", "pyyaml", "huggingface-hub"} <= CORE
    assert {"peft", "matplotlib"} <= EXTRAS
    assert "pytest" not in EXTRAS

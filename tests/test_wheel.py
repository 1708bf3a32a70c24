"""What a user installs: the wheel alone, in an environment of its own, used from outside the repository."""

import json
import os
import subprocess
import sys
import zipfile
from importlib.metadata import Distribution, distribution, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return next(out.glob("*.whl"))


@pytest.mark.slow
def test_the_wheel_holds_the_package_whole(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    source = ROOT / "src"
    kept = {".py", ".yaml", ".html", ".css", ".js", ".json", ".safetensors", ".typed"}
    wanted = {p.relative_to(source).as_posix() for p in (source / "unmask").rglob("*") if p.suffix in kept}
    assert not wanted - inside
    assert not [name for name in inside if name.startswith(("tests/", "benchmarks/"))]
    assert any(name.endswith("LICENSE") for name in inside)


def closure() -> list[Distribution]:
    """What pip would install beside the wheel: its dependencies and theirs, without extras."""
    found: dict[str, Distribution] = {}
    todo = [Requirement(line) for line in requires("unmask") or []]
    while todo:
        wanted = todo.pop()
        if wanted.name in found or (wanted.marker is not None and not wanted.marker.evaluate({"extra": ""})):
            continue
        found[wanted.name] = distribution(wanted.name)
        todo += map(Requirement, found[wanted.name].requires or [])
    return list(found.values())


def lend(folder: Path) -> Path:
    """A folder that holds the declared dependencies and nothing else of the environment that the tests run in."""
    folder.mkdir()
    for package in closure():
        for top in {file.parts[0] for file in package.files or [] if file.parts[0] not in ("..", "__pycache__")}:
            link = folder / top
            if not link.exists():
                link.symlink_to(package.locate_file(top))
    return folder


@pytest.mark.slow
def test_it_runs_from_a_clean_environment(wheel, tmp_path):
    """The environment holds this wheel only; its dependencies, and nothing that is not declared, are lent to it."""
    home = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
    subprocess.run([home / "bin" / "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)], check=True)
    lent = {**os.environ, "PYTHONPATH": str(lend(tmp_path / "lent")), "OMP_NUM_THREADS": "1"}
    for absent in ("peft", "pytest", "matplotlib"):
        assert not list((tmp_path / "lent").glob(absent)), absent
    away = tmp_path / "away"
    away.mkdir()

    def unmask(*words: str) -> subprocess.CompletedProcess[str]:
        command = [str(home / "bin" / "unmask"), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=away, env=lent)

    where = subprocess.run(
        [home / "bin" / "python", "-c", "import unmask; print(unmask.__file__)"],
        capture_output=True, text=True, check=True, cwd=away, env=lent,
    ).stdout  # fmt: skip
    assert where.startswith(str(home))
    assert "generate" in unmask("--help").stdout
    (away / "text.txt").write_text("a line of text to learn from\n" * 40, encoding="utf-8")
    done = unmask("train", "data.source=text.txt", "tokenizer.kind=bytes", "model.width=32", "model.layers=1",
                  "model.heads=2", "model.context=32", "train.steps=1", "train.batch=2", "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 1

"""What deploys the server says what the server takes."""

import re
from pathlib import Path

import pytest

from unmask.cli import app

DEPLOY = Path(__file__).parent.parent / "deploy"


def options(verb):
    from typer.main import get_command

    return {name for parameter in get_command(app).commands[verb].params for name in parameter.opts}


def command(file):
    """The words that follow `serve` where the file starts it."""
    text = (DEPLOY / file).read_text(encoding="utf-8")
    line = re.search(r"^(?:ENTRYPOINT|ExecStart=).*serve.*$", text, re.MULTILINE)[0]
    return re.findall(r"--[a-z-]+", line)


@pytest.mark.parametrize("file", ["Dockerfile", "unmask.service"])
def test_the_server_is_started_with_options_it_has(file):
    said = command(file)
    assert {"--host", "--api-key-file"} <= set(said)  # others can reach it, so it asks for keys
    assert set(said) <= options("serve")


def test_the_image_is_made_of_what_is_there():
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    copied = [word for line in re.findall(r"^COPY (?!--)(.*) \S+$", text, re.MULTILINE) for word in line.split()]
    assert {"pyproject.toml", "src"} <= set(copied)
    assert all((DEPLOY.parent / word).exists() for word in copied)
    let_in = re.findall(r"^!(.*)$", (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(copied) == set(let_in)

"""The command line inside this process: quick, and whatever Python prints is seen."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import NamedTuple

import pytest

from unmask import cli


class Ran(NamedTuple):
    code: int
    out: str
    err: str


def unmask(*words: object) -> Ran:
    """`unmask WORDS`, as a shell would run it."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["unmask", *map(str, words)])
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
    return Ran(code, out.getvalue(), err.getvalue())

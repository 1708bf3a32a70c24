"""The command line: verbs only. Parse, call, print; what is wrong with the input is one sentence and exit code 2."""

from __future__ import annotations

import gc
import sys

from ..errors import UserError
from .app import app

from . import learn, write, look, answer  # isort: skip  # the order of --help

YOUNG = 50_000  # new objects that make Python look for garbage

__all__ = ["answer", "app", "learn", "look", "main", "write"]


def main() -> None:
    gc.set_threshold(YOUNG)  # at the usual 700, a good part of every start is spent looking through what is imported
    try:
        app()
    except UserError as error:
        print(f"unmask: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("unmask: stopped", file=sys.stderr)
        sys.exit(130)

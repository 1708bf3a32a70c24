"""Optional packages, asked for before anything heavy, so that a missing one costs a sentence and no hours."""

from __future__ import annotations

import importlib.util

from .errors import UserError


def require(package: str, field: str, extra: str) -> None:
    """UserError where the package that the user's `field` needs is not installed."""
    if importlib.util.find_spec(package) is None:
        raise UserError(f"{field}: needs {package}, which is not here; install unmask[{extra}], or leave {field} out")

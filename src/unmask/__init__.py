"""Diffusion language models: train, tune, run and measure them.

>>> import unmask
>>> lm = unmask.load()
>>> lm.fill("def area(width, height):\\n    ", "\\n    return result").text
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .draft import draft_for as draft_for
    from .errors import UserError as UserError
    from .lm import LanguageModel as LanguageModel
    from .lm import Text as Text
    from .lm import load as load
    from .published import load_denoiser as load_denoiser
    from .run import train as train
    from .run import tune as tune
    from .sampling import Sample as Sample
    from .sampling import sample as sample

__version__ = "0.1.0"

_PLACES = {
    "load": "lm",
    "LanguageModel": "lm",
    "Text": "lm",
    "UserError": "errors",
    "draft_for": "draft",
    "load_denoiser": "published",
    "load_recipe": "recipe",
    "sample": "sampling",
    "Sample": "sampling",
    "train": "run",
    "tune": "run",
}
__all__ = [*_PLACES, "__version__"]


def __getattr__(name: str) -> Any:
    """Import on first use: `import unmask` alone must not load torch."""
    if name not in _PLACES:
        raise AttributeError(f"module 'unmask' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_PLACES[name]}", __name__), name)

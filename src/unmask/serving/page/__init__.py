"""The page at `/`: which files it is made of and how they are sent. Knows no web framework and no model.

It is plain HTML, CSS and JavaScript modules, sent as they lie here; what it shares with the replay lies in `show`.
It needs no key itself, and asks for one where the API does.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources

from ...show import replay

TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
SHARED = ("past.js", "player.js", "player.css")
# Everything comes from this server, and nothing but the page's own scripts may run in it.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True)
class Asset:
    content: bytes
    media_type: str


@cache
def assets() -> dict[str, Asset]:
    """Address -> what is sent there: `/` and `/page/...`."""
    here, show = resources.files(__package__), resources.files(replay.__package__)
    named = {file.name: file.read_text(encoding="utf-8") for file in here.iterdir() if _type(file.name)}
    named |= {name: show.joinpath(name).read_text(encoding="utf-8") for name in SHARED}
    named["replay.html"] = replay.template()
    found = {f"/page/{name}": Asset(text.encode(), f"{_type(name)}; charset=utf-8") for name, text in named.items()}
    return {"/": found.pop("/page/index.html")} | found


def _type(name: str) -> str | None:
    return TYPES.get(name.rpartition(".")[2])

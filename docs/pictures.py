"""The README's pictures, taken in Chromium: python docs/pictures.py http://127.0.0.1:8000 [CHROMIUM]

of the page of a running `unmask serve`, and of a replay.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright

HERE = Path(__file__).parent
PATIENCE = 120_000  # milliseconds
WRITTEN = 'def area(width, height):\n    """The area of a rectangle."""\n    '
FILLED = """import os

def read(path):
    try:
        with open(<gap:1>) as file:
            <gap:1> file.read()
    except <gap:3>
        return None

class Reader:
    def __init__(<gap:2> stream):
        self.<gap:2> stream
"""
REPLAYED = """class Point:
    \"\"\"A point in the plane.\"\"\"

    def __init__(self, x, y):
        self.x =<gap:1>
        self.y =<gap:1>

    def __repr__(self):
        return "Point(%r, %r)" % (self<gap:2>, self.<gap:1>)

    def move(self, dx, dy):
        self.x<gap:2>dx
        self.y<gap:2>dy
        return<gap:1>


if __<gap:1>__ == "__main__":
    main()
"""


def ask(page: Page, text: str, **settings: object) -> None:
    page.fill("textarea", text)
    for name, value in settings.items():
        page.fill(f"[name={name}]", str(value))
    page.click("#go")
    expect(page.locator("#copy")).to_be_visible(timeout=PATIENCE)
    expect(page.locator("#canvas.growing")).to_have_count(0, timeout=PATIENCE)


def pictures(address: str, chromium: str) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, scheme in (("write", "light"), ("fill", "dark")):
            page = browser.new_page(viewport={"width": 1200, "height": 880}, color_scheme=scheme)
            page.set_default_timeout(PATIENCE)
            page.goto(f"{address}/#{name}")
            if name == "write":
                ask(page, WRITTEN, tokens=40, steps=14, temperature=1.0, seed=4)
                page.locator(".frame").fill("7")
            else:
                ask(page, FILLED, steps=4)
                page.locator(".t.written").nth(3).hover()
            page.mouse.wheel(0, -2000)
            page.wait_for_timeout(1200)  # what was fresh has faded
            page.screenshot(path=HERE / f"page-{name}.png")
        replayed(browser)
        browser.close()


def replayed(browser: Browser) -> None:
    """A replay, stopped half way."""
    file = Path(tempfile.mkdtemp()) / "replay.html"
    subprocess.run([sys.executable, "-m", "unmask.cli", "fill", REPLAYED, "--html", str(file)], check=True)
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.goto(file.as_uri())
    slider = page.locator("input[type=range]").first
    slider.fill(str(int(slider.get_attribute("max") or 0) // 2 + 1))
    slider.blur()
    page.wait_for_timeout(1200)
    page.screenshot(path=HERE / "replay.png")


if __name__ == "__main__":
    pictures(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "/usr/bin/chromium")

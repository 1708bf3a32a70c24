"""The page in a real browser: write, fill, edit, replay, share; dark, narrow; the server gone and back."""

import json
import re
import shutil
import time
from pathlib import Path

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")

from axe_playwright_python.sync_playwright import Axe
from live import Live
from playwright.sync_api import expect, sync_playwright

import unmask
from unmask.decoding.sampler import Counts, Decoded, Frame
from unmask.serving.engine import Engine
from unmask.serving.page import HEADERS, assets
from unmask.show.replay import Page, write_replay

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
PATIENCE = 30_000  # milliseconds; the machine may be busy
pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on this machine")]


class Restarting:
    """The packaged model's server, which may go and come back at its address."""

    def __init__(self):
        self.lm, self.port = unmask.load(device="cpu", dtype="fp32"), 0

    @property
    def address(self):
        return self.live.address

    def start(self):
        self.live = Live(self.lm, port=self.port, max_tokens=64).__enter__()
        self.port = self.live.socket.getsockname()[1]

    def stop(self):
        self.live.__exit__()


@pytest.fixture(scope="module")
def server():
    server = Restarting()
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, server):
    """Opens the page in a context of its own; at the end nothing may stand in its console but what was `expected`."""
    said, contexts = [], []

    def opened(mode="write", size=(1280, 860), **options):
        context = browser.new_context(viewport={"width": size[0], "height": size[1]}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(f"{server.address}/#{mode}")
        expect(page.locator("#go")).to_be_enabled(timeout=PATIENCE)
        return page

    opened.expected = ()
    yield opened
    for context in contexts:
        context.close()
    assert not [words for words in said if not any(word in words for word in opened.expected)]


def finish(page):
    """The answer is there and drawn to its end."""
    expect(page.locator("#panel")).to_have_attribute("aria-busy", "false", timeout=PATIENCE)
    expect(page.locator("#canvas.growing")).to_have_count(0, timeout=PATIENCE)


def ask(page):
    page.locator("#go").click()
    finish(page)
    expect(page.locator("#problem")).to_be_hidden()


def seen(page):
    """The canvas as it reads: line ends are spans of their own."""
    return page.locator("#canvas .text").evaluate("text => text.textContent")


def number(page, name):
    return float(page.locator(f"[data-is={name}]").inner_text())


def serious(page):
    found = Axe().run(page).response["violations"]
    return [(v["id"], [n["html"] for n in v["nodes"]]) for v in found if v["impact"] in ("serious", "critical")]


def test_a_text_is_written_and_counted(visit):
    page = visit()
    page.fill("textarea", "import os\n\ndef ")
    page.fill("[name=tokens]", "24")
    page.fill("[name=steps]", "6")
    ask(page)
    assert seen(page).startswith("import os\n\ndef ")
    assert page.locator(".t.given").count() == 1
    assert page.locator(".t.written").count() > 0
    passes, tokens = number(page, "passes"), number(page, "tokens")
    assert 0 < passes <= 7
    assert 0 < tokens <= 24
    assert number(page, "each") == pytest.approx(tokens / passes, abs=0.06)
    assert page.locator("[data-is=there]").inner_text() == f"would need {tokens:.0f} passes"


def test_the_same_seed_writes_the_same_and_another_one_another(visit):
    page = visit()
    page.fill("[name=tokens]", "16")
    page.fill("[name=temperature]", "1")
    ask(page)
    first = seen(page)
    ask(page)
    assert seen(page) == first
    page.locator("[name=vary]").check()
    ask(page)
    assert page.input_value("[name=seed]") == "1"
    ask(page)
    assert seen(page) != first


def test_a_chat_keeps_its_turns(visit):
    page = visit()
    page.get_by_role("button", name="Chat").click()
    page.fill("[name=tokens]", "8")
    for k, words in enumerate(["How do I open a file?", "And close it?"], 1):
        page.fill("textarea", words)
        ask(page)
        assert page.locator("#turns li").count() == 2 * k - 1  # the last answer is on the canvas
        assert page.input_value("textarea") == ""
    assert page.locator("#turns .user p").all_inner_texts() == ["How do I open a file?", "And close it?"]
    page.get_by_role("button", name="New chat").click()
    expect(page.locator("#turns li")).to_have_count(0)


def test_gaps_are_made_and_filled(visit):
    page = visit("fill")
    area = page.locator("textarea")
    area.fill("def area(width):\n    return width\n")
    page.locator("#go").click()
    expect(page.locator("#problem")).to_contain_text("no gap")
    area.evaluate("area => area.setSelectionRange(28, 33)")  # the second width
    page.get_by_role("button", name="Gap").click()
    assert page.input_value("textarea") == "def area(width):\n    return <gap:2>\n"
    page.get_by_role("button", name="Click words").click()
    area.evaluate("area => area.setSelectionRange(10, 10)")
    area.evaluate("area => area.dispatchEvent(new PointerEvent('pointerup'))")
    expect(page.locator("#marked")).to_have_text("2 gaps")
    assert page.input_value("textarea") == "def area(<gap:2>):\n    return <gap:2>\n"
    assert page.locator(".mirror mark").all_text_contents() == ["<gap:2>", "<gap:2>"]
    ask(page)
    assert page.locator(".t.written").count() == 4
    assert re.fullmatch(r"def area\(.*\):\n    return .*\n", seen(page), flags=re.DOTALL)
    assert number(page, "tokens") == 4
    page.get_by_role("button", name="Keep this text").click()
    assert page.input_value("textarea") == seen(page)


def test_words_are_selected_and_reconsidered(visit):
    page = visit("edit")
    area = page.locator("textarea")
    area.fill("def área(width):\n    return height\n")
    area.evaluate("area => area.setSelectionRange(30, 30)")
    page.get_by_role("button", name="Select").click()
    assert page.locator(".mirror mark").all_text_contents() == ["height"]
    area.evaluate("area => area.setSelectionRange(0, 0)")
    page.keyboard.type("# ")  # marks go along with their text
    assert page.locator(".mirror mark").all_text_contents() == ["height"]
    expect(page.locator("#share-of")).to_be_hidden()
    with page.expect_request("**/v1/edit") as request:
        ask(page)
    sent = request.value.post_data_json
    assert [sent["text"][a:b] for a, b in sent["spans"]] == ["height"]
    assert seen(page).startswith("# def área(width):\n    return ")
    page.get_by_role("button", name="Change the text").click()
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#share-of")).to_be_visible()
    with page.expect_request("**/v1/edit") as request:
        ask(page)
    assert "spans" not in request.value.post_data_json
    assert request.value.post_data_json["share"] == 0.2


def test_the_past_can_be_walked(visit):
    page = visit()
    page.fill("[name=tokens]", "12")
    ask(page)
    whole, frame = seen(page), page.locator("#canvas .frame")
    last = int(frame.get_attribute("max"))
    assert last >= 2
    frame.focus()
    page.keyboard.press("Home")
    assert page.locator(".t.mask").count() == 12
    assert number(page, "passes") == 0
    page.keyboard.press("ArrowRight")
    assert 0 < page.locator(".t.mask").count() < 12
    assert frame.get_attribute("aria-valuetext") == f"pass 1 of {last}"
    page.keyboard.press("End")
    assert seen(page) == whole
    page.get_by_role("button", name="Play", exact=True).click()
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    page.keyboard.press("End")
    page.locator("#canvas .text").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#canvas .token")).to_contain_text(re.compile(r"settled in pass \d+ of \d+"))
    expect(page.locator("#canvas .token")).to_contain_text(re.compile(r"confidence \d+(\.\d)?%"))
    page.locator(".t.written").last.hover()
    expect(page.locator("#canvas .token")).to_contain_text("confidence")


def test_it_can_be_shared(visit, tmp_path):
    page = visit("fill")
    ask(page)
    with page.expect_download() as found:
        page.get_by_role("button", name="Trace").click()
    trace = json.loads(Path(found.value.path()).read_text(encoding="utf-8"))
    assert trace["format"] == "unmask-trace"
    assert trace["request"]["text"].count("<gap") == 2
    assert len(trace["frames"][0]["changed"]) == trace["frames"][0]["length"]
    assert trace["usage"]["forward_passes"] == number(page, "passes")
    text = seen(page)
    with page.expect_download() as found:
        page.get_by_role("button", name="Replay page").click()
    found.value.save_as(tmp_path / "replay.html")
    page.goto(f"file://{tmp_path}/replay.html#frame=end")
    assert page.locator(".text").evaluate("text => text.textContent") == text
    expect(page.locator("#stats")).to_contain_text("tokens per pass")


def test_what_the_server_refuses_is_said(visit):
    visit.expected = ("400", "422")
    page = visit("write")
    page.fill("[name=tokens]", "100000")
    page.locator("#go").click()
    expect(page.locator("#problem")).to_contain_text("context", timeout=PATIENCE)
    page.fill("[name=threshold]", "7")  # out of range: said by the field, and not sent
    assert page.locator("[name=threshold]").evaluate("field => !field.checkValidity()")
    page.fill("[name=threshold]", "")
    page.fill("[name=tokens]", "4")
    ask(page)


def test_it_can_be_stopped(visit, monkeypatch):
    step = Engine._step
    monkeypatch.setattr(Engine, "_step", lambda engine: (time.sleep(0.1), step(engine)))  # slower than any browser
    page = visit()
    page.fill("[name=tokens]", "240")
    page.fill("[name=steps]", "240")
    page.locator("#go").click()
    expect(page.get_by_role("button", name="Stop")).to_be_visible(timeout=PATIENCE)
    page.keyboard.press("Escape")
    finish(page)
    expect(page.get_by_role("button", name="Write again")).to_be_enabled()
    expect(page.locator("#problem")).to_be_hidden()
    assert page.locator(".t.mask").count() > 0


def test_the_server_goes_and_comes_back(visit, server):
    visit.expected = ("ERR_", "Failed to load resource")
    page = visit()
    server.stop()
    expect(page.locator("#gone")).to_be_visible(timeout=PATIENCE)
    page.locator("#go").click()
    expect(page.locator("#problem")).to_contain_text("went away")
    server.start()
    expect(page.locator("#gone")).to_be_hidden(timeout=PATIENCE)
    page.fill("[name=tokens]", "4")
    ask(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_anybody_can_use_it(visit, scheme):
    page = visit("fill", color_scheme=scheme, reduced_motion="reduce")
    assert not serious(page)
    ask(page)
    assert not serious(page)
    shade = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", shade))) < 200) == (scheme == "dark")
    page.locator("#theme").click()  # as the system -> light
    page.locator("#theme").click()  # -> dark
    assert sum(map(int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor")))) < 200


def test_a_narrow_screen_holds_it(visit):
    page = visit("edit", size=(360, 740), has_touch=True)
    ask(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    expect(page.locator("#settings")).to_be_hidden()
    page.get_by_text("Sampler").click()
    expect(page.locator("#settings")).to_be_visible()


def test_the_keyboard_reaches_all(visit):
    page = visit()
    page.locator("#tab-write").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#tab-fill")).to_have_attribute("aria-selected", "true")
    expect(page.locator("#tab-fill")).to_be_focused()
    page.keyboard.press("End")
    expect(page.locator("#tab-edit")).to_have_attribute("aria-selected", "true")
    page.locator("textarea").focus()
    page.keyboard.press("Control+Enter")
    finish(page)
    expect(page.locator("#canvas")).to_be_visible()


# -- what it shares with the replay

AGAIN = "const { fold, unfold } = await import('/page/past.js'); return fold(unfold(data));"


def written(row=0):
    """Three passes over a row: drafts, a token that is taken back, one that is replaced."""
    masked, steps = 0, [([5, 1, 0, 0], [0, 0, 1, 1], [0, 1, 0, 0]), ([5, 0, 2, 0], [0, 1, 0, 1], [0, 0, 1, 0])]
    steps.append(([5, 3, 4, 0], [0, 0, 0, 0], [0, 1, 1, 0]))
    frames = [
        Frame(row, k, tokens, [bool(o) for o in open], [bool(s) for s in settled], [0.25 * (k + 1)] * 4)
        for k, (tokens, open, settled) in enumerate(steps)
    ]
    blank = {"mask_id": masked, "given": [True, False, False, False]}
    return frames, blank


def test_the_replay_draws_every_frame(browser, server, tmp_path):
    frames, blank = written()
    done = Decoded([5, 3, 4], frames[-1].tokens, [-1, 2, 2, -1], [1.0] * 4, "stop", Counts(3, 12, 2, 0.5))
    page = Page.of(lambda ids: [["<m>", "b", "c", "d\n", "e", "a"][i] for i in ids], frames, done, **blank)
    write_replay(tmp_path / "replay.html", [page])
    tab = browser.new_page()
    tab.goto(f"file://{tmp_path}/replay.html#frame=0")
    kinds = []
    for frame in range(4):
        tab.evaluate(f"location.hash = 'frame={frame}'")
        expect(tab.locator(".frame")).to_have_value(str(frame))
        kinds.append([name.split()[1] for name in tab.locator(".t").evaluate_all("all => all.map(t => t.className)")])
    assert kinds == [
        ["given", "mask", "mask", "mask"],
        ["given", "written", "mask", "mask"],
        ["given", "mask", "written", "mask"],
        ["given", "written", "written", "gone"],
    ]
    assert tab.locator(".text").evaluate("text => text.textContent") == "ad\ne"
    assert tab.locator(".t.revised").all_text_contents() == ["d\n", "e"]
    tab.goto(f"{server.address}/")
    data = page.as_dict()
    again = tab.evaluate(
        "async data => { const { fold, unfold } = await import('/page/past.js'); return fold(unfold(data)); }", data
    )
    assert again["given"] == data["given"]
    assert [c.get("settled") for c in again["frames"]] == [c.get("settled") for c in data["frames"]]
    tab.close()


def test_the_page_is_all_its_own():
    found = assets()
    assert {"/", "/page/main.js", "/page/player.js", "/page/past.js", "/page/replay.html"} <= found.keys()
    for asset in found.values():
        assert not re.search(rb"https?://(?!www\.w3\.org)", asset.content)
    assert "default-src 'none'" in HEADERS["Content-Security-Policy"]
    scripts = b"\n".join(asset.content for asset in found.values())
    imports = set(re.findall(rb'^import .* from "\./(.*)";', scripts, re.MULTILINE))
    assert {f"/page/{name.decode()}" for name in imports} <= found.keys()

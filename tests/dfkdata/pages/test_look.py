"""The skeleton of every page: escaped, closed to the network, readable in light and dark."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from jinja2 import UndefinedError
from markupsafe import Markup

from dfkdata.pages import LineChart, Look, line_chart, look
from tests.helpers.browser import Browser, opened
from tests.helpers.html import parsed

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    yield from opened(tmp_path_factory.mktemp("profile"))


def the_page(lang: str = "en") -> str:
    """A page with every element, hostile wherever a text can be."""
    made = Look(lang)
    ui = made.ui
    body = Markup("").join(
        [
            ui.banner(EVIL), ui.badge(EVIL, "good", EVIL), ui.mark("better"), ui.facts([(EVIL, EVIL)]),
            ui.chips([EVIL]),
            ui.table([EVIL, "#n", "*" + EVIL], [(EVIL, 1, EVIL)], EVIL), ui.folded(EVIL, EVIL), ui.panel(EVIL),
            ui.code(EVIL), line_chart(LineChart(EVIL, {EVIL: [(0, 1.0), (1, 2.0)]})),
            Markup('<section id="a"><h2>A</h2></section>'),
        ]
    )  # fmt: skip
    return made.document(EVIL, body, nav=[("a", EVIL)], scripts=["window.answer = 42"], data={"rows": [EVIL]})


def test_everything_that_is_not_markup_stays_text() -> None:
    tags = parsed(the_page())
    scripts = [attributes for tag, attributes in tags.tags if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "data-rows"}, {}, {}]
    assert not [tag for tag, _ in tags.tags if tag in ("img", "iframe", "object", "embed", "form", "base")]
    names = {name for _, attributes in tags.tags for name in attributes}
    assert not [name for name in names if name.startswith("on") or name == "style"]
    assert tags.text.count(EVIL) >= 12


def test_the_policy_names_this_style_and_these_scripts_and_nothing_else() -> None:
    html = the_page()
    (policy,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', html)
    (style,) = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)

    def digest(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    assert dict(rule.strip().split(" ", 1) for rule in policy.split(";")) == {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": digest(style),
        "script-src": " ".join(map(digest, scripts)),
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert html.index("Content-Security-Policy") < html.index("<style>")
    assert "url(" not in style and "@import" not in style
    served = Look().document("t", Markup(""), served=True)
    assert "connect-src 'self'" in served and "img-src 'self' data:" in served


def test_headers_of_tables_have_a_scope_and_what_scrolls_can_be_reached() -> None:
    tags = parsed(the_page()).tags
    assert all(attributes.get("scope") for tag, attributes in tags if tag == "th")
    scrolling = [attributes for _, attributes in tags if attributes.get("class") == "scroll"]
    assert scrolling and all(part.get("tabindex") == "0" and part.get("aria-label") for part in scrolling)


@pytest.mark.parametrize("size", [3, 300_000])
def test_data_comes_back_whatever_its_size(size: int) -> None:
    value = {"rows": [f"{EVIL}\u2028 {at}" for at in range(size)]}
    text = look.packed(value)
    assert "<" not in text
    if size > 3:
        assert text.startswith("z") and len(text) < 4_000_000
        text = zlib.decompress(base64.b64decode(text[1:]), -zlib.MAX_WBITS).decode()
    assert json.loads(text) == value


def test_a_template_without_its_value_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        look._environment("dfkdata.pages").get_template("pages/page.html").render(title="t")


# --- contrast ----------------------------------------------------------------------------------------------

#: What is written on what.
PAIRS = [
    *[(ink, "ground") for ink in ("ink", "quiet", "accent", "good", "bad", "warn")],
    *[(ink, "surface") for ink in ("ink", "quiet", "accent", "good", "bad", "warn")],
    *[(ink, "sunk") for ink in ("ink", "quiet", "accent")],
    *[(kind, f"{kind}-soft") for kind in ("good", "bad", "warn", "none", "accent")],
    *[("ink", ground) for ground in ("good-soft", "bad-soft", "warn-soft", "accent-soft", "add", "del", "hit")],
    *[("ink", f"f{at}") for at in range(6)], ("on-accent", "accent"), ("ground", "ink"),
]  # fmt: skip


def tokens(scheme: str) -> dict[str, str]:
    """Name -> colour of a scheme, as the style says."""
    css = look.asset("style.css")
    blocks = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    light, dark = (dict(re.findall(r"--([\w-]+): (#\w{6})", block)) for block in blocks)
    assert set(light) == set(dark)
    return light if scheme == "light" else dark


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    r, g, b = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_lines_have_enough_contrast(scheme: str) -> None:
    colours = tokens(scheme)

    def contrast(a: str, b: str) -> float:
        high, low = sorted((luminance(colours[a]), luminance(colours[b])), reverse=True)
        return (high + 0.05) / (low + 0.05)

    poor = {(ink, ground): contrast(ink, ground) for ink, ground in PAIRS if contrast(ink, ground) < 4.5}
    assert not poor
    lines = ["edge", *(f"s{at}" for at in range(6))]
    assert not {line: contrast(line, "surface") for line in lines if contrast(line, "surface") < 3}


# --- in a browser ------------------------------------------------------------------------------------------


@pytest.mark.browser
def test_a_browser_runs_the_pages_own_scripts_and_nothing_else(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(the_page("id"), encoding="utf-8")
    browser.screen(1200, 900)
    browser.open(page)
    assert (browser.errors, browser.requests) == ([], [])
    assert browser.run("[document.documentElement.lang, window.answer, document.title]") == ["id", 42, EVIL]
    assert browser.run("JSON.parse(document.getElementById('data-rows').textContent)") == [EVIL]
    browser.run(
        "document.body.insertAdjacentHTML('beforeend', '<p style=\"color:red\" onclick=\"x()\">a</p>')"
    )
    assert any("Content Security Policy" in error for error in browser.errors)
    browser.errors.clear()


@pytest.mark.browser
@pytest.mark.parametrize("width", [360, 1400])
def test_the_page_never_scrolls_sideways(browser: Browser, tmp_path: Path, width: int) -> None:
    page = tmp_path / "page.html"
    page.write_text(the_page(), encoding="utf-8")
    browser.screen(width, 800)
    browser.open(page)
    assert browser.run("document.documentElement.scrollWidth - innerWidth") <= 0


@pytest.mark.browser
def test_a_chart_says_the_value_under_the_mouse(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    chart = line_chart(LineChart("Loss", {"loss": [(at, 10.0 - at) for at in range(10)]}))
    page.write_text(Look().document("t", chart), encoding="utf-8")
    browser.screen(800, 700)
    browser.open(page)
    box = browser.run(
        "(() => { const b = document.querySelectorAll('svg.chart circle')[3].getBoundingClientRect();"
        " return [b.x + 3, b.y + 5] })()"
    )
    browser.send("Input.dispatchMouseEvent", type="mouseMoved", x=box[0], y=box[1])
    browser.settle()
    assert browser.text(".tip") == "step 3: 7"
    assert browser.errors == []

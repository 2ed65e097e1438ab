"""The page of a run: what stands beside the loss, its words in both languages, and the page in a browser."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from dfktrain.reports import curves
from dfktrain.reports.curves import page
from dfktrain.reports.curves.usage import Usage
from tests.helpers.browser import Browser, opened
from tests.helpers.html import parsed

EVIL = "</script><script>document.title='owned'</script><img src=x onerror=alert(1)>"


def staged(
    name: str = "sft", *, falls_to: float = 0.5, rises: bool = False, steps: int = 60
) -> curves.StageCurve:
    """A stage as a trainer logs it."""
    history: list[dict[str, float]] = []
    for step in range(1, steps + 1):
        loss = falls_to + (2.5 - falls_to) * math.exp(-step / 6)
        history.append(
            {"step": step, "loss": loss, "learning_rate": 2e-4 * step / steps, "grad_norm": 1 / step}
        )
        if step % 20 == 0:
            validated = loss + 0.2 + (0.01 * max(0, step - 20) if rises else 0)
            history.append({"step": step, "eval_loss": validated, "watch/labels.f1": step / steps})
    usage = Usage("NVIDIA H100", 400.0, 9000.0, 38.0, 12.0, 80.0)
    return curves.StageCurve(name, history, steps, finished=True, usage=usage, facts={"samples": "40"})


@pytest.mark.parametrize(("falls_to", "log"), [(0.5, False), (0.01, True), (0.0, True), (-1.0, False)])
def test_the_loss_axis_is_logarithmic_only_where_the_loss_spans_much(falls_to: float, log: bool) -> None:
    stage = staged(falls_to=falls_to)
    assert stage.log_loss is log
    assert ("loss per scored token (log)" in page.html("run", [stage], finished=True)) is log


def test_learning_rate_and_norm_stand_beside_the_loss_and_validation_is_marked() -> None:
    made = page.html("run", [staged(rises=True)], finished=True)
    titles = re.findall(r"<figcaption><span>(.*?)</span>", made)
    assert titles == ["Loss", "Learning rate", "Gradient norm", "Answers: labels"]
    assert len(re.findall(r'<circle class="point s1"[^>]*><title>validation: step', made)) == 3
    assert "lowest: step 20" in made and made.count('<details class="values">') == 4
    only = curves.StageCurve("s", [{"step": 1, "loss": 1.0}], 9, finished=False)
    assert re.findall(r"<figcaption><span>(.*?)</span>", page.html("run", [only], finished=False)) == ["Loss"]


@pytest.mark.parametrize("lang", ["en", "id"])
def test_every_state_of_a_run_is_told_in_the_language_of_the_page(lang: str) -> None:
    stages: dict[str, list[curves.StageCurve]] = {
        "learning": [staged()],
        "overfitting": [staged(rises=True)],
        "flat": [staged(falls_to=2.5)],
        "too short": [staged(steps=2)],
        "nothing yet": [curves.StageCurve("s", [], 9, finished=False)],
        "no stage": [],
    }
    for (kind, run), finished in product(stages.items(), (True, False)):
        made = page.html("run", run, finished=finished, lang=lang)
        parsed(made)
        assert f'<html lang="{lang}">' in made
        english = [word for word in ("Finished", "Running", "Loss per", "the training loss") if word in made]
        assert (lang == "en") == bool(english), (kind, english)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    yield from opened(tmp_path_factory.mktemp("profile"))


@pytest.mark.browser
def test_in_a_browser_values_show_on_hover_nothing_is_loaded_and_nothing_overflows(
    browser: Browser, tmp_path: Path
) -> None:
    file = page.write(
        tmp_path / "training.html", EVIL, [staged("a"), staged(EVIL, rises=True)], finished=True
    )
    for width, dark in product((1400, 360), (False, True)):
        browser.screen(width, 900, dark=dark)
        browser.open(file)
        assert browser.run("document.documentElement.scrollWidth") <= width
        at: list[float] = browser.run(
            "(() => { const c = document.querySelector('svg.chart circle.point');"
            " c.scrollIntoView({block: 'center', behavior: 'instant'});"
            " const b = c.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2] })()"
        )
        browser.settle()
        browser.send("Input.dispatchMouseEvent", type="mouseMoved", x=at[0], y=at[1])
        browser.settle()
        assert browser.text(".tip").startswith("validation: step")
    browser.click("details.values summary")
    assert browser.texts("details.values[open] thead th") == ["step", "training", "validation"]
    assert EVIL in browser.texts("section h2")[1]
    assert not browser.errors and not browser.requests and browser.run("document.title") == EVIL

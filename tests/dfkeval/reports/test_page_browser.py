"""The report in a browser: filters, links, keys, pictures, and hostile answers that stay text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from dfkeval import reports
from dfkeval.analysis import comparison
from dfkeval.evaluation import evaluate
from dfkeval.runs.run import Run
from tests.helpers.browser import Browser, opened
from tests.helpers.html import block
from tests.helpers.runs import (
    CAPTION,
    DFK,
    LABELS,
    answer_text,
    caption_gold,
    config_of,
    dfk_gold,
    row_of,
    write_answers,
)

pytestmark = pytest.mark.browser
EVIL = "</pre></script><script>document.title='owned'</script><img src=x onerror=alert(2)>\"'&<b>"
N = 40


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    yield from opened(tmp_path_factory.mktemp("profile"))


def posts(folder: Path) -> list[Run]:
    """Two runs of hostile posts: the first is often wrong or unreadable, the second rarely."""
    Image.new("RGB", (900, 600), "teal").save(folder / "p.png")
    rows = []
    for index in range(N):
        row = row_of(index, DFK)
        row["meta"]["gold"]["analisis"] = (
            EVIL + " satu dua tiga empat lima enam tujuh delapan sembilan sepuluh"
        )
        row["meta"]["platform"] = ("tiktok", "x")[index % 2]
        row["messages"][0]["content"].append({"type": "text", "text": f"{EVIL} unik-{index}"})
        row["images"] = ["p.png"] if index == 0 else ["gone.png"] if index == 1 else []
        rows.append(row)
    rows[3]["id"] += EVIL
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    runs = []
    for name, bad in (("base", lambda at: at % 2), ("tuned", lambda at: at in (5, 11))):
        answers = []
        for at, row in enumerate(rows):
            label = LABELS[(at + 1) % 4] if bad(at) and at % 3 else LABELS[at % 4]
            said = answer_text({"label": label, "analisis": EVIL + " satu dua TIGA empat lain enam"}, DFK)
            if bad(at) and at % 3 == 0:
                said = EVIL if at % 2 else ""
            if at == 11:
                said = f"Label: bohong\n\nAnalisis: {EVIL}"
            answers.append(
                json.dumps(
                    {"id": row["id"], "text": said, "label_probs": {label: 0.5 + at / 100, "netral": 0.1}}
                )
            )
        (folder / f"{name}.jsonl").write_text("\n".join(answers))
        config = config_of(
            folder / "test.jsonl", folder / f"{name}.jsonl", ["validity", "labels", "rouge"], confidences=True
        )
        runs.append(evaluate.evaluate(config, folder / name))
    return runs


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("posts")
    runs = posts(folder)
    path = folder / "page.html"
    path.write_text(reports.page("base against tuned", runs, [comparison.compare(*runs)]), encoding="utf-8")
    return path


def ready(browser: Browser, page: Path, fragment: str = "", width: int = 1400) -> None:
    """Open the page and wait for its browser over samples."""
    browser.errors.clear()
    browser.requests.clear()
    browser.screen(width, 1000)
    browser.open(page, fragment)
    wait(browser)


def wait(browser: Browser) -> None:
    browser.run(
        "new Promise((done, failed) => { let turns = 0; const place = document.getElementById('browser');"
        " const look = () => 'ready' in place.dataset ? done() : turns++ > 400 ? failed('not ready')"
        " : setTimeout(look, 10); look() })"
    )
    browser.settle()


def listed(browser: Browser) -> int:
    """The number of samples that fit the filters."""
    return int(browser.text("#count").split(" / ")[0].replace(",", "").replace(".", ""))


def pick(browser: Browser, key: str, value: str) -> None:
    browser.run(
        f"(() => {{ const s = document.querySelector('[data-key={json.dumps(key)}]'); s.value = {json.dumps(value)};"
        " s.dispatchEvent(new Event('change')) })()"
    )
    browser.run("new Promise(done => setTimeout(done, 50))")
    browser.settle()


def chosen(browser: Browser) -> str:
    """The id of the sample on the card."""
    return browser.text(".card-head a")


def test_nothing_is_run_or_loaded_and_hostile_answers_stay_text(browser: Browser, page: Path) -> None:
    ready(browser, page)
    title = browser.run("document.title")
    for place in range(N):
        browser.press("j") if place else None
        card = browser.text(".card")
        assert "onerror=alert(2)" in card
        assert browser.run("document.querySelectorAll('.card script, .card b, .card img[src=x]').length") == 0
    assert browser.run("document.title") == title == "base against tuned"
    assert (browser.errors, browser.requests) == ([], [])


def test_the_wrong_ones_come_first_and_the_list_draws_only_what_is_seen(browser: Browser, page: Path) -> None:
    ready(browser, page)
    assert listed(browser) == N
    first = browser.text(".item.chosen")
    assert "wrong" in first and "✕" in first
    assert browser.run("document.querySelectorAll('.item').length") < N
    browser.run("document.querySelector('.list').scrollTop = 1e6")
    browser.run("new Promise(done => setTimeout(done, 60))")
    assert "right" in browser.texts(".item")[-1]


@pytest.mark.parametrize(
    ("key", "value", "fits"),
    [
        ("outcome", "unknown_label", lambda at, set_: at == 11),
        ("right", "0", lambda at, set_: set_["answers"][1]["right"][at] == 0),
        ("gold", "fitnah", lambda at, set_: set_["labels"][set_["gold"][at]] == "fitnah"),
        ("answer", "unparsed", lambda at, set_: set_["answers"][1]["label"][at] == len(set_["labels"])),
        ("slice.platform", "x", lambda at, set_: at % 2 == 1),
        ("changed", "better", lambda at, set_: set_["answers"][0]["right"][at] != 1 == set_["answers"][1]["right"][at]),
    ],
)  # fmt: skip
def test_a_filter_shows_exactly_what_fits_and_stands_in_the_address(
    browser: Browser, page: Path, key: str, value: str, fits: object
) -> None:
    (group,) = block(page.read_text(encoding="utf-8"), "report")["sets"]
    fitting = [at for at in range(N) if fits(at, group)]  # type: ignore[operator]
    ready(browser, page)
    pick(browser, key, value)
    assert listed(browser) == len(fitting)
    address = browser.run("location.hash")
    ready(browser, page, address)
    assert listed(browser) == len(fitting)
    browser.click(".controls .button")
    assert listed(browser) == N


def test_the_search_looks_into_prompts_and_answers(browser: Browser, page: Path) -> None:
    ready(browser, page)
    browser.press("/")
    assert browser.run("document.activeElement.type") == "search"
    for sign in "unik-17":
        browser.press(sign)
    browser.run("new Promise(done => setTimeout(done, 400))")
    assert listed(browser) == 1 and chosen(browser) == "r017"
    assert browser.run("document.activeElement.type") == "search"
    ready(browser, page, "#q=tidak%20ada%20di%20mana%20pun")
    assert listed(browser) == 0 and "No sample" in browser.text(".nothing")


@pytest.mark.parametrize(
    "address",
    [
        "#%E0%A4%A=1",
        "#run=99&id=none",
        "#run=1&gold=<b>&sort=x",
        "#sort=constructor",
        "#=&&=",
        "#run=1&changed=%00",
    ],
)
def test_an_address_that_nobody_wrote_breaks_nothing(browser: Browser, page: Path, address: str) -> None:
    ready(browser, page, address)
    assert 0 <= listed(browser) <= N
    assert browser.errors == []
    browser.click(".controls .button")
    assert listed(browser) == N


def test_keys_walk_through_the_samples(browser: Browser, page: Path) -> None:
    ready(browser, page)
    first = chosen(browser)
    browser.press("j")
    second = chosen(browser)
    browser.press("k")
    assert chosen(browser) == first != second
    browser.press("w")
    wrong = listed(browser)
    browser.press("w")
    assert wrong == 2 and listed(browser) == N
    browser.run("document.querySelector('.list').focus()")
    browser.press("ArrowDown")
    assert browser.run("document.querySelector('.list').getAttribute('aria-activedescendant')") == "item-1"
    assert browser.run("document.getElementById('item-1').getAttribute('aria-selected')") == "true"


def test_cells_and_bars_filter_the_samples_and_a_link_opens_one(browser: Browser, page: Path) -> None:
    ready(browser, page)
    cells = browser.run(
        "[...document.querySelectorAll('table.confusion a, .outcome-bar a, table.outcomes a, .changed a')].map(a =>"
        " [a.getAttribute('href'), (a.getAttribute('aria-label') || a.closest('tr, p').innerText + ' ' + a.innerText)])"
    )
    assert len(cells) > 12
    for href, _ in cells:
        browser.run(f"location.hash = {json.dumps(href)}")
        browser.run("new Promise(done => setTimeout(done, 60))")
        assert listed(browser) > 0, href
    ready(browser, page, "#run=1&id=r011")
    assert browser.text(".card-head a") == "r011"
    assert browser.run("Math.abs(document.getElementById('samples').getBoundingClientRect().top) < 200")


def test_a_card_shows_fields_problems_and_differences(browser: Browser, page: Path) -> None:
    ready(browser, page, "#run=1&id=r011")
    assert browser.texts(".card > .answer-text .wavy") == ["bohong"]
    assert "unknown_label" in browser.run("document.querySelector('.wavy').title")
    ready(browser, page, "#run=1&id=r005")
    rows = browser.texts("table.fields tbody tr")
    assert "≠" in rows[0] and "disinformasi" in rows[0] and "fitnah" in rows[0]
    assert [text.strip() for text in browser.texts("table.fields .extra")][:1] == ["fitnah"]
    assert "lain" in " ".join(browser.texts("table.fields .prose .extra"))
    assert "sepuluh" in " ".join(browser.texts("table.fields .prose .lost"))
    assert "TIGA" not in " ".join(
        browser.texts("table.fields .prose .extra")
    )  # letters' case is no difference
    assert "0.550" in browser.text("table.probabilities")


def test_pictures_enlarge_and_a_missing_one_is_named(browser: Browser, page: Path) -> None:
    ready(browser, page, "#run=1&id=r000")
    browser.click(".card button.thumb")
    assert browser.run("document.querySelector('dialog[open] img').naturalWidth") == 640
    browser.press("Escape")
    assert browser.run("document.querySelector('dialog') === null")
    ready(browser, page, "#run=1&id=r001")
    assert "picture not readable: gone.png" in browser.text(".card .thumbs")
    assert browser.errors == []


@pytest.mark.parametrize("width", [360, 768, 1400])
def test_no_width_scrolls_sideways(browser: Browser, page: Path, width: int) -> None:
    ready(browser, page, "#run=1&id=r000", width)
    browser.run("document.querySelectorAll('details').forEach(part => { part.open = true })")
    browser.settle()
    assert browser.run("document.documentElement.scrollWidth - innerWidth") <= 0
    assert browser.errors == []


def test_what_the_source_does_not_hold_is_marked_in_a_call(browser: Browser, tmp_path: Path) -> None:
    rows = [row_of(index, CAPTION) for index in range(4)]
    (tmp_path / "cap.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = caption_gold(0)
    said["subjects"] = [*said["subjects"], {"name": "dragon", "attributes": ["golden"]}]
    answers = [
        (rows[0]["id"], answer_text(said, CAPTION)),
        *((row["id"], answer_text(caption_gold(at), CAPTION)) for at, row in list(enumerate(rows))[1:]),
    ]
    config = config_of(
        tmp_path / "cap.jsonl", write_answers(tmp_path / "a.jsonl", answers), ["fields", "grounding"]
    )
    run = evaluate.evaluate(config, tmp_path / "run")
    ready(browser, run.folder / "report.html")
    assert browser.texts(".leaf.extra") == ["dragon ⚠", "dragon › golden ⚠"]
    assert browser.texts(".leaf.invented") == ["dragon ⚠", "dragon › golden ⚠"]
    assert browser.run("document.querySelectorAll('.answer-text .f0, .answer-text .f1').length") >= 2
    assert browser.errors == []


@pytest.mark.parametrize("n", [2_500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_of_many_samples_only_those_looked_at_are_read(browser: Browser, tmp_path: Path, n: int) -> None:
    """The page stays below 1 kB a sample, and draws the list of all without reading their texts."""
    rows = []
    words = [f"kata{at * 7919 % 4001}" for at in range(300_000)]
    for at in range(n):
        row = row_of(at, DFK)
        row["messages"][0]["content"][0]["text"] += " ".join(words[at * 29 : at * 29 + 60])
        rows.append(row)
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    answers = [(row["id"], answer_text(dfk_gold(at + (at % 10 == 0)), DFK)) for at, row in enumerate(rows)]
    config = config_of(
        tmp_path / "test.jsonl", write_answers(tmp_path / "a.jsonl", answers), ["labels"], resamples=100
    )
    run = evaluate.evaluate(config, tmp_path / "run")
    html = run.folder / "report.html"
    assert html.stat().st_size < 1000 * n
    ready(browser, html)
    assert listed(browser) == n
    assert browser.run("document.querySelectorAll('.item').length") < 60
    unread = (
        "[...document.querySelectorAll('script[id^=data-rows]')].filter(block => block.textContent).length"
    )
    chunks = -(-n // 1000)
    assert browser.run(unread) == chunks - 1
    browser.run("location.hash = '#run=0&id=r2222'")
    browser.run("new Promise(done => setTimeout(done, 400))")
    assert browser.text(".card-head a") == "r2222"
    assert browser.run(unread) == chunks - 2
    assert browser.errors == []

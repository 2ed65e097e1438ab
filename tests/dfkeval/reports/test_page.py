"""Reports: everything is in them, everything is escaped, nothing is loaded or run."""

from __future__ import annotations

import dataclasses
import re
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from dfkeval import compare, evaluate, reports
from dfkeval.analysis.comparison import Change
from dfkeval.reports import sample_cards
from dfkeval.reports.charts import line_chart
from dfkeval.reports.run_curves import calibration_curves, without_probabilities
from dfkeval.reports.sample_cards import badges
from dfkeval.runs.run import Run
from dfkeval.types import Sample
from tests.helpers.runs import DFK, config_of, dfk_gold, gold_answers, row_of, write_answers

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&`|"


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    import json

    Image.new("RGB", (300, 200), "teal").save(tmp_path / "p.png")
    rows = [row_of(index, DFK) | {"images": ["p.png"]} for index in range(24)]
    rows[0]["messages"][0]["content"].append({"type": "text", "text": EVIL})
    rows[1]["images"] = ["missing.png"]
    rows[2]["id"] = EVIL
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    good = [(row["id"], text) for row, (_, text) in zip(rows, gold_answers(DFK, 24), strict=True)]
    bad = [(name, text if index > 21 else EVIL) for index, (name, text) in enumerate(good)]
    found = []
    for name, answers in (("before", bad), ("after", good)):
        path = write_answers(tmp_path / f"{name}.a", answers)
        found.append(
            evaluate(config_of(tmp_path / "test.jsonl", path, ["validity", "labels"]), tmp_path / name)
        )
    return found


class Tags(HTMLParser):
    """Collects tags, attributes and text, and checks that tags close in order."""

    VOID = {"meta", "img", "br", "line", "rect", "circle", "polyline"}

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(html: str) -> Tags:
    tags = Tags()
    tags.feed(html)
    assert tags.open == []
    return tags


def the_page(runs: list[Run]) -> str:
    curve = reports.Curve("Loss " + EVIL, {EVIL: [(0, 2.5), (10, 1.0), (20, 0.25)]})
    return reports.page("Report " + EVIL, runs, [compare(runs[0], runs[1])], [curve])


def test_hostile_text_stays_text(runs: list[Run]) -> None:
    tags = parsed(the_page(runs))
    assert not [tag for tag, _ in tags.tags if tag in ("script", "iframe", "object", "embed", "form", "base")]
    assert not [name for _, attributes in tags.tags for name in attributes if name.startswith("on")]
    assert tags.text.count("<script>alert(1)</script>") >= 6


def test_the_page_loads_nothing_and_says_so(runs: list[Run]) -> None:
    html = the_page(runs)
    tags = parsed(html)
    policy = next(a["content"] for tag, a in tags.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'; img-src data:")
    sources = [value for _, a in tags.tags for key, value in a.items() if key in ("src", "href", "style")]
    assert sources and all(value and value.startswith(("data:image/jpeg;base64,", "#")) for value in sources)
    assert "url(" not in html and "@import" not in html


def test_the_page_shows_everything_that_a_reader_needs(runs: list[Run]) -> None:
    html = the_page(runs)
    tags = parsed(html)
    wanted = ["labels.macro_f1", "Confusion matrix", "Answer, verbatim", "Parsed", "Gold", "Prompt"]
    wanted += ["no_call", "before → after", dfk_gold(5)["analisis"], "picture not readable: missing.png"]
    for text in wanted:
        assert text in tags.text, text
    assert "<polyline" in html and 'class="badge good">better' in html


def test_answers_that_became_wrong_are_shown_first_and_counted(runs: list[Run]) -> None:
    there = compare(runs[0], runs[1])
    turns = [sample_cards.turn(each) for each in there.changed]
    back = [sample_cards.turn(each) for each in compare(runs[1], runs[0]).changed]
    assert (turns.count(1), turns.count(2)) == (back.count(2), back.count(1))
    assert turns.count(1) and not turns.count(2)
    again = dataclasses.replace(there, changed=(*there.changed, Change("lost", *_turned(there.changed))))
    html = reports.page("Report", runs, [again])
    assert f"changed answers ({turns.count(1)} became right, 1 wrong)" in html
    assert html.index('class="id">lost<') < html.index(f'class="id">{escape(there.changed[0].id)}<')


def _turned(changed: tuple[Change, ...]) -> tuple[Sample, Sample]:
    """An answer that became right, in the wrong order."""
    won = next(each for each in changed if sample_cards.turn(each) == 1)
    return won.after, won.before


def test_a_reliability_curve_shows_its_ideal_apart_and_how_many_answers_a_point_has() -> None:
    bins = [{"n": n, "confidence": c, "accuracy": a} for n, c, a in ((1, 0.4, 0.0), (4, 0.9, 0.75))]
    details = {
        "reliability": bins,
        "abstention": [{"kept": 1.0, "accuracy": 0.6}],
        "without_probabilities": 1,
    }
    reliability, abstention = calibration_curves(details)
    html = line_chart(reliability)
    assert html.count('class="line guide"') == 2 and html.count('class="line s0"') == 2  # line and key
    assert re.findall(r'r="([\d.]+)"><title>n = (\d)', html) == [("5.5", "1"), ("9.0", "4")]
    assert 'class="key"' not in line_chart(abstention)
    assert without_probabilities(details).startswith("1 answer has no label probabilities")
    assert without_probabilities({}) == ""


def test_every_link_in_the_page_has_its_place(runs: list[Run]) -> None:
    tags = parsed(the_page(runs))
    places = {a["id"] for _, a in tags.tags if "id" in a}
    assert {str(a["href"])[1:] for tag, a in tags.tags if tag == "a"} <= places


def test_cards_are_bounded_and_show_every_outcome(runs: list[Run]) -> None:
    html = reports.page("t", runs[:1], cards=2)
    assert html.count('<article class="card">') == 2
    cards = html[html.index('<article class="card">') :]
    assert "no_call" in cards and ">ok<" in cards


def test_markdown_cells_cannot_break_the_table(runs: list[Run]) -> None:
    text = reports.markdown(runs[0], [compare(runs[0], runs[1])])
    for line in text.splitlines():
        if line.startswith("| validity.schema_valid"):
            assert len(re.findall(r"(?<!\\)\|", line)) in (5, 9)
    assert "| no_call | 22 | 91.7% |" in text
    assert "## before -> after" in text


def test_thumbnails_are_small(runs: list[Run]) -> None:
    sizes = [
        (int(str(a["width"])), int(str(a["height"])))
        for tag, a in parsed(the_page(runs)).tags
        if tag == "img"
    ]
    assert sizes and all(max(size) <= 200 for size in sizes)


def _judged(gold: dict[str, str], value: dict[str, str]) -> Sample:
    return Sample(id="a", group="a", outcome="ok", gold=gold, value=value, lenient=value, text="")


@pytest.mark.parametrize(
    ("gold", "value", "badge"),
    [
        (
            {"label": "fitnah", "analisis": "x" * 60},
            {"label": "fitnah", "analisis": "y" * 60},
            ">label as gold<",
        ),
        (
            {"label": "fitnah", "analisis": "x" * 60},
            {"label": "netral", "analisis": "x" * 60},
            ">label not as",
        ),
        ({"setting": "indoor"}, {"setting": "indoor"}, ">as gold<"),
        ({"setting": "indoor"}, {"setting": "outdoor"}, ">not as gold<"),
    ],
)
def test_a_card_says_which_fields_agree_with_the_gold(
    gold: dict[str, str], value: dict[str, str], badge: str
) -> None:
    assert badge in badges(_judged(gold, value))


def test_prose_alone_is_called_neither_right_nor_wrong() -> None:
    assert "as gold" not in badges(_judged({"text": "x" * 60}, {"text": "y" * 60}))

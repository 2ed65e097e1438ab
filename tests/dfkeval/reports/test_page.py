"""Reports: everything is in them, everything is escaped, nothing is loaded."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dfkdata.pages import LineChart, Words
from dfkeval import compare, evaluate, reports
from dfkeval.analysis.comparison import Change
from dfkeval.reports.headline import headlines
from dfkeval.reports.outcome_look import look_of
from dfkeval.reports.page import turn
from dfkeval.reports.run_curves import calibration_curves, without_probabilities
from dfkeval.runs.run import Run
from dfkeval.types import OUTCOMES, Sample
from tests.helpers.html import block, parsed
from tests.helpers.runs import (
    CAPTION,
    DFK,
    config_of,
    evaluated,
    gold_answers,
    row_of,
    write_answers,
    write_rows,
)

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&`|"


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    Image.new("RGB", (300, 200), "teal").save(tmp_path / "p.png")
    rows = [row_of(index, DFK) | {"images": ["p.png"]} for index in range(24)]
    rows[0]["messages"][0]["content"].append({"type": "text", "text": EVIL})
    rows[1]["images"] = ["missing.png"]
    rows[2]["id"] = EVIL
    for index, row in enumerate(rows):
        row["meta"]["platform"] = ("tiktok", EVIL[:40])[index % 2]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    good = [(row["id"], text) for row, (_, text) in zip(rows, gold_answers(DFK, 24), strict=True)]
    bad = [(name, text if index > 21 else EVIL) for index, (name, text) in enumerate(good)]
    found = []
    for name, answers in (("before", bad), ("after", good)):
        path = write_answers(tmp_path / f"{name}.a", answers)
        config = config_of(tmp_path / "test.jsonl", path, ["validity", "labels"])
        found.append(evaluate(config, tmp_path / name))
    return found


def the_page(runs: list[Run], lang: str = "en") -> str:
    curve = LineChart("Loss " + EVIL, {EVIL: [(0, 2.5), (10, 1.0), (20, 0.25)]})
    return reports.page("Report " + EVIL, runs, [compare(runs[0], runs[1])], [curve], lang=lang)


def test_hostile_text_stays_text(runs: list[Run]) -> None:
    tags = parsed(the_page(runs))
    assert not [tag for tag, _ in tags.tags if tag in ("iframe", "object", "embed", "form", "base", "img")]
    scripts = [attributes for tag, attributes in tags.tags if tag == "script"]
    assert all(attributes.get("type") == "application/json" for attributes in scripts[:-3])
    assert scripts[-3:] == [{}, {}, {}]  # page.js, card.js, browser.js
    names = {name for _, attributes in tags.tags for name in attributes}
    assert not [name for name in names if name.startswith("on") or name == "style"]
    assert tags.text.count(EVIL) >= 4


def test_the_page_loads_nothing_and_says_so(runs: list[Run]) -> None:
    tags = parsed(the_page(runs))
    policy = next(a["content"] for tag, a in tags.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy and policy.count("'sha256-") == 4
    sources = [value for _, a in tags.tags for key, value in a.items() if key in ("src", "href")]
    assert sources and all(value and value.startswith("#") for value in sources)


def test_every_sample_is_in_the_page_with_everything_that_was_said(runs: list[Run]) -> None:
    html = the_page(runs)
    (index,) = block(html, "report")["sets"]
    rows = block(html, "rows-0-0")
    assert index["ids"] == [sample.id for sample in runs[0].samples]
    assert [run["name"] for run in index["runs"]] == ["before", "after"]
    assert index["slices"]["platform"]["values"] == sorted(["tiktok", EVIL[:40]])
    for row, *samples in zip(rows, runs[0].samples, runs[1].samples, strict=True):
        assert row["prompt"] == samples[0].prompt and row["gold"] == samples[0].gold
        for answer, sample in zip(row["answers"], samples, strict=True):
            assert (
                "".join(piece if isinstance(piece, str) else piece[0] for piece in answer["text"])
                == sample.text
            )
            assert answer.get("value") == sample.value
    assert rows[1]["pictures"] == [["missing.png", -1]]
    assert rows[0]["pictures"] == rows[5]["pictures"] == [["p.png", 0]]
    assert [uri[:23] for uri in block(html, "pictures-0-0")] == ["data:image/jpeg;base64,"]


def test_the_page_shows_what_a_reader_needs_first(runs: list[Run]) -> None:
    tags = parsed(the_page(runs))
    for text in ("Confusion matrix", "labels.macro_f1", "before → after", "became right", "Not in the form"):
        assert text in tags.text, text
    headers = [a for tag, a in tags.tags if tag == "th"]
    assert headers and all(a.get("scope") for a in headers)


@pytest.mark.parametrize("lang", ["en", "id"])
def test_every_link_in_the_page_has_its_place(runs: list[Run], lang: str) -> None:
    tags = parsed(the_page(runs, lang))
    places = {a["id"] for _, a in tags.tags if "id" in a}
    links = {str(a["href"])[1:] for tag, a in tags.tags if tag == "a"}
    assert {link for link in links if "=" not in link} <= places
    known = {"run", "outcome", "right", "gold", "answer", "against", "changed"}
    assert {pair.partition("=")[0] for link in links if "=" in link for pair in link.split("&")} <= known


def test_a_page_in_indonesian_has_its_words(runs: list[Run]) -> None:
    tags = parsed(the_page(runs, "id"))
    assert "Matriks konfusi" in tags.text and "Akurasi 1.00 (tadinya" in tags.text
    assert "Confusion matrix" not in tags.text


# --- the result in a sentence ------------------------------------------------------------------------------


def test_the_headline_of_a_comparison(runs: list[Run]) -> None:
    pair = compare(runs[0], runs[1])
    (line,) = headlines(runs, [pair], Words())
    change = pair.differences["labels.accuracy"]
    assert line.text == f"Accuracy 1.00 (was 0.08), 24 posts, +0.92 [{change.low:.2f}, {change.high:.2f}]"
    assert line.verdict == "better"


def test_the_headline_of_one_run_and_of_several(runs: list[Run]) -> None:
    (line,) = headlines(runs[1:], [], Words())
    assert re.fullmatch(r"Accuracy 1\.00, 24 posts, \[0\.\d\d, 1\.00\]", line.text)
    first, second = headlines(runs, [], Words())
    assert (first.of, second.of) == ("before", "after")
    pairs = [
        compare(runs[0], runs[1]),
        dataclasses.replace(compare(runs[0], runs[0].folder.parent / "after"), b="x"),
    ]
    assert len(headlines(runs, pairs, Words())) == 1  # the best of those with one base


def test_failed_requests_and_missing_gold_are_banners(tmp_path: Path) -> None:
    rows = [row_of(index, DFK) for index in range(4)]
    del rows[3]["meta"]["gold"]
    rows[3]["messages"] = rows[3]["messages"][:-1]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    answers = write_answers(tmp_path / "a.jsonl", gold_answers(DFK, 4)[1:])
    run = evaluate(config_of(tmp_path / "test.jsonl", answers, ["validity", "labels"]), tmp_path / "run")
    run.summary["overlap"] = {"link": 3}
    tags = parsed(reports.page("t", [run]))
    assert "1 of 4 requests failed" in tags.text
    assert "1 of 4 samples have no gold answer" in tags.text
    banners = [a for _, a in tags.tags if str(a.get("class", "")).startswith("banner")]
    assert [a["class"] for a in banners][:2] == ["banner bad", "banner warn"]


# --- outcomes and matrix -----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["text", "json", "tool"])
@pytest.mark.parametrize("lang", ["en", "id"])
def test_outcomes_are_told_apart_by_more_than_colour(form: str, lang: str) -> None:
    looks = [look_of(code, form, Words(lang)) for code in OUTCOMES]
    assert len({look.name for look in looks}) == len({look.sign for look in looks}) == len(OUTCOMES)
    assert all(look.name and look.meaning for look in looks)
    assert ("call" in look_of("no_call", form, Words()).name) == (form == "tool")


def test_the_cells_of_the_matrix_lead_to_their_samples(runs: list[Run]) -> None:
    html = the_page(runs)
    (index,) = block(html, "report")["sets"]
    names = [*index["labels"], "unparsed"]
    cells = re.findall(r'href="#run=(\d)&amp;gold=([^&]+)&amp;answer=([^"]+)">(\d+)<', html)
    assert cells
    for run, gold, answer, count in cells:
        told = (gold.replace("+", " "), answer.replace("+", " "))
        own = index["answers"][int(run)]
        pairs = [(names[a], names[b]) for a, b in zip(index["gold"], own["label"], strict=True)]
        assert pairs.count(told) == int(count)


def test_the_parts_of_the_outcome_bar_lead_to_their_samples(runs: list[Run]) -> None:
    html = the_page(runs)
    (index,) = block(html, "report")["sets"]
    codes = [outcome["code"] for outcome in index["outcomes"]]
    parts = re.findall(
        r'href="#run=(\d)&amp;outcome=(\w+)(?:&amp;right=(\d))?" aria-label="[^"]*: (\d+)"', html
    )
    assert {(run, code) for run, code, _, _ in parts} == {("0", "no_call"), ("0", "ok"), ("1", "ok")}
    for run, code, right, count in parts:
        own = index["answers"][int(run)]
        fitting = [
            at for at, outcome in enumerate(own["outcome"])
            if codes[outcome] == code and (not right or own["right"][at] == int(right))
        ]  # fmt: skip
        assert len(fitting) == int(count)


def test_no_difference_has_no_coloured_mark(tmp_path: Path) -> None:
    one, two = (evaluated(tmp_path, name, {}) for name in ("one", "two"))
    html = reports.page("t", [one, two], [compare(one, two)])
    section = html[html.index('<section id="c1">') : html.index('<section id="r2">')]
    assert "no difference shown" in section
    assert not re.search(r'class="(?:dot|mark|whisker) (?:good|bad)"', section)


# --- comparisons -------------------------------------------------------------------------------------------


def test_changed_answers_are_counted_by_their_turn(runs: list[Run]) -> None:
    there = compare(runs[0], runs[1])
    turns = [turn(each) for each in there.changed]
    back = [turn(each) for each in compare(runs[1], runs[0]).changed]
    assert (turns.count("better"), turns.count("worse")) == (back.count("worse"), back.count("better"))
    assert turns.count("better") and not turns.count("worse")
    won = next(each for each in there.changed if turn(each) == "better")
    again = dataclasses.replace(there, changed=(*there.changed, Change("lost", won.after, won.before)))
    html = reports.page("Report", runs, [again])
    assert f"<strong>{turns.count('better')}</strong> became right" in html
    assert "<strong>1</strong> became wrong" in html


def test_several_runs_are_shown_beside_one_another_with_the_best_marked(tmp_path: Path) -> None:
    found = [
        evaluated(tmp_path, name, {f"r{at:03d}": "?" for at in range(n)})
        for name, n in (("a", 4), ("b", 0), ("c", 2))
    ]
    html = reports.page("three", found, [compare(found[0], other) for other in found[1:]])
    table = html[html.index("All runs") :]
    table = table[: table.index("</table>")]
    best = [line for line in table.splitlines() if "★" in line]
    assert len(best) == 1 and '<th scope="row">b</th>' in best[0]
    settings = html[html.index('id="setup"') :]
    assert "<mark>" in settings and "backend.completions" in settings


def test_runs_of_other_rows_or_schemas_are_sets_of_their_own(tmp_path: Path) -> None:
    one = evaluated(tmp_path, "one", {}, n=4)
    data = write_rows(tmp_path / "cap.jsonl", CAPTION, 4)
    answers = write_answers(tmp_path / "cap.a", gold_answers(CAPTION, 4))
    other = evaluate(config_of(data, answers, ["validity", "fields"]), tmp_path / "cap")
    sets = block(reports.page("t", [one, other, one]), "report")["sets"]
    assert [[run["place"] for run in group["runs"]] for group in sets] == [[0, 2], [1]]
    assert sets[1]["score"] == "fields.f1" and sets[1]["answers"][0]["score"] == [1.0] * 4


def test_what_a_metric_found_unsupported_is_marked(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "cap.jsonl", CAPTION, 2)
    said = [(name, text.replace("red", "golden")) for name, text in gold_answers(CAPTION, 2)]
    run = evaluate(config_of(data, write_answers(tmp_path / "cap.a", said), ["grounding"]), tmp_path / "cap")
    first, second = block(reports.page("t", [run]), "rows-0-0")
    assert first["answers"][0]["missing"] == ["golden"] and "missing" not in second["answers"][0]


# --- curves, markdown --------------------------------------------------------------------------------------


def test_a_reliability_curve_shows_its_ideal_apart() -> None:
    bins = [{"n": n, "confidence": c, "accuracy": a} for n, c, a in ((1, 0.4, 0.0), (4, 0.9, 0.75))]
    details: dict[str, Any] = {
        "reliability": bins,
        "abstention": [{"kept": 1.0, "accuracy": 0.6}],
        "without_probabilities": 1,
    }
    reliability, abstention = calibration_curves(details)
    assert reliability.guide == "ideal" and reliability.counts == [1, 4] and abstention.shares
    assert without_probabilities(details).startswith("1 answer has no label probabilities")
    assert without_probabilities({}) == ""


def test_markdown_cells_cannot_break_the_table(runs: list[Run]) -> None:
    text = reports.markdown(runs[0], [compare(runs[0], runs[1])])
    for line in text.splitlines():
        if line.startswith("| validity.schema_valid"):
            assert len(re.findall(r"(?<!\\)\|", line)) in (5, 9)
    assert "| no_call | 22 | 91.7% |" in text
    assert "## before -> after" in text


def test_prose_alone_is_called_neither_right_nor_wrong() -> None:
    from dfkeval.reports.formatting import agrees

    def judged(gold: dict[str, str], value: dict[str, str]) -> bool | None:
        return agrees(Sample(id="a", group="a", outcome="ok", gold=gold, value=value, lenient=value, text=""))

    assert judged({"text": "x" * 60}, {"text": "y" * 60}) is None
    assert (
        judged({"label": "fitnah", "analisis": "x" * 60}, {"label": "fitnah", "analisis": "y" * 60}) is True
    )
    assert (
        judged({"label": "fitnah", "analisis": "x" * 60}, {"label": "netral", "analisis": "x" * 60}) is False
    )


# --- redaction ---------------------------------------------------------------------------------------------

SECRETS = ("@budi_s", "https://contoh.id/budi", "0812-3456-7890", "budi@contoh.co.id")


def test_a_redacted_page_and_its_markdown_hold_nothing_that_points_at_a_person(tmp_path: Path) -> None:
    said = "Kata " + " dan ".join(SECRETS)
    Image.effect_noise((300, 200), 90).convert("RGB").save(tmp_path / "@budi_s.png")
    rows = [row_of(at, DFK) | {"images": ["@budi_s.png"]} for at in range(4)]
    for at, row in enumerate(rows):
        row["id"] = f"{SECRETS[at]} {at}"
        row["meta"]["gold"]["analisis"] = said
        row["meta"]["akun"] = SECRETS[at]
        row["messages"][0]["content"].append({"type": "text", "text": said})
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    texts = [
        f"Label: netral\n\nAnalisis: {said}",
        said,
        f"Label: {said}\n\nAnalisis: a",
        f"<think>{said}</think>{said}",
    ]
    answers = write_answers(tmp_path / "a.jsonl", zip([row["id"] for row in rows], texts, strict=True))
    run = evaluate(
        config_of(tmp_path / "test.jsonl", answers, ["validity", "labels"], redact=True), tmp_path / "run"
    )
    html = (run.folder / "report.html").read_text(encoding="utf-8")
    told = [
        html,
        json.dumps(block(html, "rows-0-0"), ensure_ascii=False),
        json.dumps(block(html, "report"), ensure_ascii=False),
    ]
    told.append((run.folder / "report.md").read_text(encoding="utf-8"))
    assert not [(secret, at) for secret in SECRETS for at, text in enumerate(told) if secret in text]
    assert "[handle]" in told[1] and block(html, "report")["sets"][0]["ids"] == [
        "row 1",
        "row 2",
        "row 3",
        "row 4",
    ]
    sharp = reports.page("t", [run], redact=False)
    assert all(secret in json.dumps(block(sharp, "rows-0-0")) for secret in SECRETS)
    assert run.samples[0].text == texts[0]  # what is stored stays
    sizes = [len(block(page, "pictures-0-0")[0]) for page in (sharp, html)]
    assert sizes[0] > 5 * sizes[1]  # noise is gone

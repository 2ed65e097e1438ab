"""Grounding: whole words, plurals, Indonesian affixes, and emptiness that is not perfection."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dfkdata import convert, schemas
from dfkdata.validation.grounding import GroundingRate, GroundingSource, coverage, rate
from dfkdata.validation.morphology import Language
from tests.helpers.rows import caption, rows_of, write

SCHEMA = schemas.load("caption")


def grounded(text: str, source: str, language: Language = "en") -> bool:
    return GroundingSource(source, language).supports(text)


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("horses", "a horse"),
        ("horse", "two horses"),
        ("children", "a child"),
        ("men", "a man in a suit"),
        ("policemen", "a policeman on a horse"),
        ("grandchildren", "her grandchild"),
        ("knife", "two knives"),
        ("boxes", "a box"),
        ("church", "three churches"),
        ("berries", "a berry"),
        ("bus", "many buses"),
        ("rounded back", "chairs with rounded backs"),
        ("plant on top of table", "a long table with a plant on top of it"),
        ("Café", "a cafe\u0301 at night"),
        ("dog's bowl", "the bowl of a dog"),
        ("the", "the"),
        ("skis", "a ski in the snow"),
        ("taxi", "two taxis"),
        ("menus", "a menu"),
        ("bookshelves", "a bookshelf"),
        ("housewife", "three housewives"),
        ("werewolves", "a werewolf"),
        ("policewomen", "a policewoman"),
        ("salesperson", "some salespeople"),
        ("cookies", "a cookie"),
        ("pies", "a pie"),
        ("dragonflies", "a dragonfly"),
        ("gloves", "one glove"),
        ("roofs", "a red roof"),
        ("shoes", "a shoe"),
        ("potatoes", "a potato"),
        ("oasis", "two oases"),
        ("axes", "an axe"),
        ("quizzes", "a quiz"),
        ("TVs", "a TV"),
        ("ads", "an ad"),
        ("octopuses", "an octopus"),
        ("dress", "two dresses"),
        ("dormice", "a dormouse"),
        ("children's books", "a book for a child"),
        ("series", "a series of photos"),
        ("tennis", "tennis"),
    ],
)
def test_what_the_text_says_is_grounded(text: str, source: str) -> None:
    assert grounded(text, source)


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("cat", "a man catching a ball"),
        ("art", "a party"),
        ("unknown", "a dog"),
        ("red dog", "a dog"),
        ("us", "a bus"),
        ("glas", "a glass"),
        ("", "anything"),
        ("!!!", "anything !!!"),
        ("news", "a new car"),
        ("shorts", "a woman with short hair"),
        ("overalls", "overall a calm scene"),
        ("goods", "a good dog"),
        ("blues", "a blue wall"),
        ("Mrs", "Mr Smith"),
        ("gas", "ga"),
        ("his", "hi there"),
        ("bus", "bu"),
        ("mouse", "a moose"),
        ("police", "a louse"),
        ("policeman", "a man"),
        ("shelf", "a bookshelf"),
        ("bookshelf", "a shelf"),
        ("pass", "a pas de deux"),
        ("cross", "cros"),
        ("chalice", "a louse"),
        ("olives", "a life"),
        ("slice", "a louse"),
        ("women", "a man"),
        ("skies", "a ski"),
        ("ski", "blue skies"),
        ("ties", "a ty"),
        ("horse", "hoarse voices"),
    ],
)
def test_what_the_text_does_not_say_is_not(text: str, source: str) -> None:
    assert not grounded(text, source)


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("makan", "mereka makanan itu"),
        ("membangun jalan", "pembangunan jalan baru"),
        ("tulis", "penulisnya datang"),
        ("sebar", "hoaks yang disebarkan"),
        ("pukul", "ia memukul"),
        ("anak", "anak-anak bermain"),
        ("bermain", "mainkan lagunya"),
        ("rumah", "rumahnya"),
    ],
)
def test_indonesian_affixes_are_known(text: str, source: str) -> None:
    assert grounded(text, source, "id")


@pytest.mark.parametrize(("between", "supported"), [(0, True), (3, True), (4, False)])
def test_with_a_gap_words_stand_in_order_and_at_most_that_far_apart(between: int, supported: bool) -> None:
    source = " ".join(["red", *["x"] * between, "dog"])
    assert GroundingSource(source, max_gap=3).supports("red dogs") is supported
    assert not GroundingSource(source, max_gap=3).supports("dog red")
    assert GroundingSource(source).supports("dog red")


def test_a_gap_follows_every_place_that_a_word_may_have() -> None:
    assert GroundingSource("a dog x x x x a dog and a red big ball", max_gap=3).supports("dog red ball")


@pytest.mark.parametrize(("text", "source"), [("no dog", "a dog"), ("not red", "red")])
def test_a_negation_is_content(text: str, source: str) -> None:
    assert not grounded(text, source)


def test_coverage_is_the_share_of_the_sources_content_words() -> None:
    assert coverage("two horses", "a horse near the fence of a farm") == 0.25
    assert coverage("a dog", "it is on") is None
    assert coverage("", "a dog") == 0.0


def test_indonesian_affixes_do_not_apply_to_english() -> None:
    assert not grounded("race", "a terrace")
    assert not grounded("ikan", "permainan", "id")


def test_only_grounded_roles_count() -> None:
    gold = {"subjects": [{"name": "dog", "attributes": ["red"]}], "setting": "indoor", "style": None}
    assert rate(gold, "a dog", SCHEMA) == GroundingRate(1, 2, ("red",))


@pytest.mark.parametrize("gold", [{}, {"subjects": []}, {"subjects": [], "actions": [], "setting": "indoor"}])
def test_an_answer_that_says_nothing_has_no_rate(gold: dict[str, Any]) -> None:
    assert rate(gold, "a dog", SCHEMA).value is None


def test_the_filter_keeps_grounded_rows_and_writes_the_others_with_reasons(tmp_path: Path) -> None:
    rows = [
        caption(1),
        {"caption": "a man catching a ball", "gold": {"subjects": [{"name": "cat"}]}},
        {"caption": "a dog", "gold": {}},
    ]
    source = write(tmp_path / "in.jsonl", rows)
    summary = convert(source, tmp_path / "out", format="captions", validation=0, grounding=1.0)
    assert summary.rows["out"] == 1
    codes = [row["code"] for row in rows_of(tmp_path / "out", "quarantine")]
    assert codes == ["NOT_GROUNDED", "GROUNDING_EMPTY"]


def test_weights_of_classes_are_written_and_no_row_is_copied(tmp_path: Path) -> None:
    import json

    from tests.helpers.pictures import KINDS

    (tmp_path / "a.png").write_bytes(KINDS["png"])
    rows = [f"t{n},l{n},x,a.png,{'fitnah' if n % 4 else 'netral'},Analisis {n}" for n in range(40)]
    (tmp_path / "in.csv").write_text("title,link,text,img_path,label,analisis\n" + "\n".join(rows) + "\n")
    summary = convert(tmp_path / "in.csv", tmp_path / "out", format="dfk_csv", validation=0, balance=True)
    weights = json.loads((tmp_path / "out" / "manifest.json").read_text())["weights"]["label"]
    assert weights == {"fitnah": round(40 / 60, 6), "netral": 2.0}
    assert summary.rows["out"] == 40

"""Grounding gives one verdict, whoever asks: conversion, metric, validator and coverage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from dfkdata import convert
from dfkdata.common.config import Config
from dfkdata.validation.morphology import Language
from dfkeval import metrics, validators
from dfkeval.metrics import Scoring
from tests.helpers.runs import CAPTION, sample_of

CASES: list[tuple[Language, str, str, bool]] = [
    ("en", "skis", "a ski", True),
    ("en", "bookshelves", "a bookshelf", True),
    ("en", "horse man", "a man on a horse", True),
    ("en", "policemen", "her policeman", True),
    ("en", "news", "a new", False),
    ("en", "shorts", "short", False),
    ("en", "membangun", "pembangunan", False),
    ("id", "membangun jalan", "pembangunan jalan", True),
    ("id", "jalan membangun", "pembangunan jalan itu", True),
    ("id", "anak", "anak-anak", True),
    ("id", "ikan", "permainan", False),
]


def by_convert(language: Language, text: str, source: str, folder: Path) -> bool:
    (folder / "in.jsonl").write_text(json.dumps({"caption": source, "gold": answer(text)}) + "\n")
    summary = convert(
        folder / "in.jsonl", folder / "out", format="captions", validation=0, max_rejects="100%",
        grounding=1.0, grounding_language=language,
    )  # fmt: skip
    return summary.rows["out"] == 1


def by_metric(language: Language, text: str, source: str, folder: Path) -> bool:
    return rate_of("grounding", language, text, source) == 1.0


def by_coverage(language: Language, text: str, source: str, folder: Path) -> bool:
    return rate_of("coverage", language, text, source) == 1.0


def by_validator(language: Language, text: str, source: str, folder: Path) -> bool:
    validator = validators.build({"grounding": {"language": language}}, "caption")
    return validator(replace(sample_of(0, CAPTION), lenient=answer(text), source_text=source)) is None


def answer(text: str) -> dict[str, Any]:
    return {"subjects": [{"name": text, "attributes": []}]}


def rate_of(name: str, language: Language, text: str, source: str) -> float:
    metric = metrics.load(name)
    module = __import__(f"dfkeval.metrics.{name}", fromlist=["Options"])
    options: dict[str, Config] = {name: module.Options(language=language)}
    sample = replace(sample_of(0, CAPTION), value=answer(text), source_text=source)
    measured = metric.measure([sample], Scoring(CAPTION, options))
    return float(metric.reduce(measured.values, measured.columns)["rate"][0])


@pytest.mark.parametrize("ask", [by_convert, by_metric, by_validator, by_coverage])
@pytest.mark.parametrize(("language", "text", "source", "supported"), CASES)
def test_one_text_gets_one_verdict(
    ask: Any, language: Language, text: str, source: str, supported: bool, tmp_path: Path
) -> None:
    assert ask(language, text, source, tmp_path) is supported

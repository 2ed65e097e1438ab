"""Numbers of two earlier evaluators, reproduced on files that the originals' rules were run over.

The expected values were computed with the originals' own steps (their regular expressions, scikit-learn,
rouge_score, pydantic) on inputs that show their faults; they are data, not output of this project."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from eval_helpers import CAPTION, DFK

from dfkdata import schemas
from dfkdata.schemas import Schema
from dfkeval import compat
from dfkeval.metrics import Metric, Scoring, qwen_test_runner, sita, sita_keywords
from dfkeval.samples import Sample

GOLDEN = Path(__file__).parents[1] / "golden"
KEYWORDS = schemas.load("keywords")


def lines(place: str) -> list[dict[str, Any]]:
    with (GOLDEN / place).open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def number_of(place: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((GOLDEN / place).read_text(encoding="utf-8"))
    return found


def sample(index: int, text: str, gold: dict[str, Any] | None, source: str | None = None) -> Sample:
    name = str(index)
    return Sample(
        id=name,
        group=name,
        outcome="no_call",
        gold=gold,
        value=None,
        lenient=None,
        text=text,
        source_text=source,
    )


def values(metric: Metric, samples: list[Sample], schema: Schema) -> dict[str, float]:
    measured = metric.measure(samples, Scoring(schema))
    point = metric.reduce(measured.values.sum(axis=0, keepdims=True), measured.columns)
    return {name: float(value[0]) for name, value in point.items()}


CAPTIONS = lines("qwen_test_runner/cases.jsonl")


@pytest.mark.parametrize("case", CAPTIONS, ids=range(len(CAPTIONS)))
def test_qwen_test_runner_s_verdict_on_one_answer_is_reproduced(case: dict[str, Any]) -> None:
    caption, error = qwen_test_runner.read(case["raw_output"])
    assert (caption is not None, error) == (case["schema_valid"], case["parse_error"])
    if caption is not None:
        rate, covered, lost = qwen_test_runner.score(caption, case["caption"])
        assert (rate, covered) == (case["grounding_rate"], case["coverage_rate"])
        assert [list(each) for each in lost] == case["hallucinations"]


def test_qwen_test_runner_s_summary_of_a_run_is_reproduced() -> None:
    samples = [
        sample(index, case["raw_output"], None, case["caption"]) for index, case in enumerate(CAPTIONS)
    ]
    want = number_of("qwen_test_runner/summary.json")
    assert want.pop("n_samples") == len(samples)
    assert values(qwen_test_runner.METRIC, samples, CAPTION) == pytest.approx(want, abs=1e-12)


def test_sita_s_vlm_gen_numbers_are_reproduced() -> None:
    rows = lines("sita/vlm_gen.jsonl")
    samples = [
        sample(index, row["generated"], {"label": row["label"], "analisis": row["analisis"]})
        for index, row in enumerate(rows)
    ]
    want = number_of("sita/vlm_gen.json")
    matrix = want.pop("confusion_matrix")
    assert values(sita.METRIC, samples, DFK) == pytest.approx(want, abs=1e-12)
    assert sita.METRIC.measure(samples, Scoring(DFK)).details["confusion_matrix"] == matrix


KEYWORD_ROWS = lines("sita/keyword_gen.jsonl")


@pytest.mark.parametrize("row", KEYWORD_ROWS, ids=range(len(KEYWORD_ROWS)))
def test_sita_s_verdict_on_one_keyword_list_is_reproduced(row: dict[str, Any]) -> None:
    assert compat.sita_keywords(row["generated"]) == row["parsed"]
    got = dict(
        zip(sita_keywords.NAMES, sita_keywords.score_lists(row["parsed"], row["keywords"]), strict=True)
    )
    assert got == pytest.approx({name: row[name] for name in sita_keywords.NAMES}, abs=1e-12)


def test_sita_s_keyword_gen_numbers_are_reproduced() -> None:
    samples = [
        sample(index, row["generated"], {"keywords": row["keywords"]})
        for index, row in enumerate(KEYWORD_ROWS)
    ]
    want = number_of("sita/keyword_gen.json")
    assert values(sita_keywords.METRIC, samples, KEYWORDS) == pytest.approx(want, abs=1e-12)

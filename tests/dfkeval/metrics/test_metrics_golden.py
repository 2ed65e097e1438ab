"""Numbers of two earlier evaluators, reproduced on files that the originals were run over.

The expected values are data, not output of this project. SITA's were returned by its published code
(`python -m tools.sita_golden`; commit and packages in tests/golden/sita/source.json), with a small encoder in place of
multilingual BERT. Those of qwen-test-runner were computed with its own steps."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from msgspec.structs import replace

from dfkdata import schemas
from dfkdata.common.config import bind
from dfkdata.common.errors import ConfigError
from dfkdata.schemas import Schema
from dfkeval.analysis import statistics
from dfkeval.metrics import (
    Metric,
    Scoring,
    bertscore,
    qwen_test_runner,
    sita,
    sita_bertscore,
    sita_captioning,
    sita_captioning_bertscore,
    sita_keywords,
)
from dfkeval.parsing import legacy
from dfkeval.types import Sample
from tests.helpers.places import GOLDEN
from tests.helpers.runs import CAPTION, DFK, minilm

KEYWORDS, SUMMARY = schemas.load("keywords"), schemas.load("summary")


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


def values(
    metric: Metric, samples: list[Sample], schema: Schema, scoring: Scoring | None = None
) -> dict[str, float]:
    measured = metric.measure(samples, scoring or Scoring(schema))
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


EVALUATORS = {
    "text_gen": (schemas.load("dfk_text"), sita.Options(evaluator="text_gen")),
    "text_gen_raw": (schemas.load("dfk_text_raw"), sita.Options(evaluator="text_gen", normalize=False)),
    "text_gen_v3": (schemas.load("dfk_explained"), sita.Options(evaluator="text_gen_v3")),
    "vlm_gen": (DFK, sita.Options()),
}


def sita_rows(name: str) -> list[Sample]:
    return [
        sample(index, row["generated"], {"label": row["label"], "analisis": row["analisis"]})
        for index, row in enumerate(lines(f"sita/{name}.jsonl"))
    ]


@pytest.mark.parametrize("name", ["text_gen", "text_gen_raw", "text_gen_v3"])
def test_sita_s_text_evaluators_numbers_are_reproduced(name: str) -> None:
    schema, options = EVALUATORS[name]
    want = number_of(f"sita/{name}.json")
    scoring = Scoring(schema, {"sita": options})
    assert values(sita.METRIC, sita_rows(name), schema, scoring) == pytest.approx(want["scores"], abs=1e-12)
    measured = sita.METRIC.measure(sita_rows(name), scoring)
    assert int(measured.scored.sum()) == want["rows"]
    assert measured.details["dropped_pairs"] == want["rows"] - want["pairs"] > 0
    groups = [str(index) for index in range(len(measured.scored))]
    found = statistics.estimate(sita.METRIC, measured, groups, resamples=100)
    assert (found["cls_accuracy"].n, found["rouge_l_f1"].n) == (want["rows"], want["pairs"])


@pytest.mark.parametrize("name", sorted(EVALUATORS))
def test_sita_s_bertscore_is_reproduced_under_its_names(name: str) -> None:
    schema, options = EVALUATORS[name]
    want = number_of(f"sita/{'vlm_gen_bertscore' if name == 'vlm_gen' else name}.json")
    encoder = bertscore.Options(model=str(minilm()), layer=6, windows=True, idf=True)  # SITA has neither
    scoring = Scoring(schema, {"sita": options, "bertscore": encoder})
    found = values(sita_bertscore.METRIC, sita_rows(name), schema, scoring)
    assert found == pytest.approx(want["bertscore"], abs=1e-6)
    assert int(sita_bertscore.METRIC.measure(sita_rows(name), scoring).scored.sum()) == want["pairs"]


_PACKED = (GOLDEN / "sita" / "answers.jsonl.gz").read_bytes()
RANDOM = [json.loads(line) for line in gzip.decompress(_PACKED).splitlines()]
READERS = EVALUATORS | {
    "text_gen_v3_raw": (
        schemas.load("dfk_explained"),
        sita.Options(evaluator="text_gen_v3", normalize=False),
    )
}


@pytest.mark.parametrize("name", sorted(READERS))
def test_random_answers_are_read_as_sita_s_code_reads_them(name: str) -> None:
    options = READERS[name][1]
    found = [options.pair(row["generated"]) for row in RANDOM]
    assert [[pair.label or "", pair.explanation or ""] for pair in found] == [row[name] for row in RANDOM]
    assert len(RANDOM) == 2000
    assert len({tuple(row[name]) for row in RANDOM}) > 500


@pytest.mark.parametrize("name", sorted(READERS))
def test_a_run_of_random_answers_has_the_numbers_of_sita_s_code(name: str) -> None:
    schema, options = READERS[name]
    samples = [
        sample(index, row["generated"], {"label": row["label"], "analisis": row["analisis"]})
        for index, row in enumerate(RANDOM)
    ]
    want = number_of("sita/answers.json")[name]
    pairs = want.pop("pairs")
    scoring = Scoring(schema, {"sita": options})
    found = values(sita.METRIC, samples, schema, scoring)
    assert {key: found[key] for key in want} == pytest.approx(want, abs=1e-12)
    measured = sita.METRIC.measure(samples, scoring)
    assert int(measured.scored.sum()) - measured.details["dropped_pairs"] == pairs


def test_sita_drops_rows_whose_gold_its_evaluator_cannot_read() -> None:
    odd: list[dict[str, Any] | None] = [None, {}, {"label": 3, "analisis": None}, {"label": "netral"}]
    for name, (schema, options) in EVALUATORS.items():
        scoring = Scoring(schema, {"sita": options})
        scored = sita.METRIC.measure([sample(0, "netral", gold) for gold in odd], scoring).scored
        assert scored.tolist() == [False, False, False, name == "vlm_gen"], name
    unread = Scoring(schemas.load("dfk_text"), {"sita": sita.Options(evaluator="text_gen_v3")})
    rows = [sample(0, "Label: netral", {"label": "netral", "analisis": "isi"})]
    # "Label: **Netral.**": the stars and the full stop go
    assert values(sita.METRIC, rows, unread.schema, unread)["cls_netral_support"] == 1


def test_sita_s_vlm_gen_merges_the_gold_as_it_merges_answers() -> None:
    raw = schemas.load("dfk_text_raw")
    rows = [sample(0, "Label: Fakta\nAnalisis: isi", {"label": "non_dfk", "analisis": "isi"})]
    assert values(sita.METRIC, rows, raw)["cls_accuracy"] == 1.0
    scoring = Scoring(raw, {"sita": sita.Options(evaluator="text_gen", normalize=False)})
    assert values(sita.METRIC, rows, raw, scoring)["cls_accuracy"] == 0.0


def test_a_sita_evaluator_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="vlm_gen always merges labels"):
        bind({"normalize": False}, sita.Options, "sita")
    with pytest.raises(ConfigError, match="evaluator"):
        bind({"evaluator": "vlm_captioning"}, sita.Options, "sita")


KEYWORD_ROWS = lines("sita/keyword_gen.jsonl")


@pytest.mark.parametrize("row", KEYWORD_ROWS, ids=range(len(KEYWORD_ROWS)))
def test_sita_s_verdict_on_one_keyword_list_is_reproduced(row: dict[str, Any]) -> None:
    assert legacy.sita_keywords(row["generated"]) == row["parsed"]
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


def test_sita_s_vlm_captioning_numbers_are_reproduced() -> None:
    field = next(iter(SUMMARY.roles))
    samples = [
        sample(index, row["generated"], {field: row["caption"]})
        for index, row in enumerate(lines("sita/vlm_captioning.jsonl"))
    ]
    want = number_of("sita/vlm_captioning.json")
    assert values(sita_captioning.METRIC, samples, SUMMARY) == pytest.approx(want["scores"], abs=1e-12)
    scored = sita_captioning.METRIC.measure(samples, Scoring(SUMMARY)).scored
    assert int(scored.sum()) == want["rows"] == len(samples) - 2  # no caption to compare with
    encoder = bertscore.Options(model=str(minilm()), layer=6, windows=True, idf=True)  # SITA has neither
    scoring = Scoring(SUMMARY, {"bertscore": encoder})
    found = values(sita_captioning_bertscore.METRIC, samples, SUMMARY, scoring)
    assert found == pytest.approx(want["bertscore"], abs=1e-6)


def test_sita_s_captioning_drops_rows_without_a_gold_caption_and_failed_requests() -> None:
    field = next(iter(SUMMARY.roles))
    odd: list[dict[str, Any] | None] = [None, {}, {field: 3}, {field: " "}, {field: "isi"}]
    samples = [sample(index, "isi", gold) for index, gold in enumerate(odd)]
    samples.append(replace(samples[-1], outcome="request_failed"))
    scored = sita_captioning.METRIC.measure(samples, Scoring(SUMMARY)).scored
    assert scored.tolist() == [False, False, False, False, True, False]

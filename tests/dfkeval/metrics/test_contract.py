"""Every metric keeps one contract: gold is best, failures are worst, intervals hold the value."""

from __future__ import annotations

import doctest
import importlib
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from dfkdata.common import plugins
from dfkdata.common.errors import ConfigError
from dfkeval import metrics
from dfkeval.analysis import bootstrap, statistics
from dfkeval.metrics import Measured, Metric, Scoring
from dfkeval.metrics.bertscore import Options
from dfkeval.types import Sample
from tests.helpers.runs import CAPTION, DFK, LABELS, minilm, sample_of

#: Values where less is not worse, or that say nothing about a failed answer.
NOT_GRADED = {
    "validity.complete", "grounding.leaf_rate",
    "fields.precision", "labels.macro_precision", "calibration.confidence",
}  # fmt: skip


def cases() -> list[tuple[str, str]]:
    found = []
    for name in plugins.names(metrics.FAMILY):
        for schema in (DFK, CAPTION):
            needs = metrics.load(name).needs
            if not needs or metrics.fields_of(schema, needs):
                found.append((name, schema.name))
    return found


def scoring(name: str, schema: str) -> Scoring:
    options = {"bertscore": Options(model=str(minilm()), layer=6)} if "bertscore" in name else {}
    return Scoring(DFK if schema == "dfk_label" else CAPTION, options)


def values(name: str, schema: str, samples: Sequence[Sample]) -> dict[str, float]:
    metric, measured = measured_of(name, schema, samples)
    point = metric.reduce(measured.values.sum(axis=0, keepdims=True), measured.columns)
    return {f"{name}.{key}": float(value[0]) for key, value in point.items()}


def measured_of(name: str, schema: str, samples: Sequence[Sample]) -> tuple[Metric, Measured]:
    metric = metrics.load(name)
    return metric, metric.measure(samples, scoring(name, schema))


def samples_of(schema: str, texts: Sequence[str | None]) -> list[Sample]:
    chosen = DFK if schema == "dfk_label" else CAPTION
    found = [sample_of(index, chosen, text) for index, text in enumerate(texts)]
    return [known(sample, text is None) for sample, text in zip(found, texts, strict=True)]


def known(sample: Sample, right: bool) -> Sample:
    """The sample with what only some backends say: sure of the gold where it answers it, else of nothing."""
    gold = (sample.gold or {}).get("label", LABELS[0])
    probs = {label: float(label == gold) if right else 0.25 for label in LABELS}
    return replace(sample, label_probs=probs, gold_nll=0.5, gold_tokens=4)


def graded(found: dict[str, float]) -> list[str]:
    """Values that our contract binds; a metric that repeats another tool keeps that tool's rules."""
    if any(metrics.load(name.partition(".")[0]).reproduces for name in found):
        return []
    lower = {
        f"{name}.{key}"
        for name in plugins.names(metrics.FAMILY)
        for key in metrics.load(name).lower_is_better
    }
    return [name for name in found if name not in NOT_GRADED | lower and "precision" not in name]


@pytest.mark.parametrize(("name", "schema"), cases())
def test_a_table_without_rows_is_reduced_to_values_without_rows(name: str, schema: str) -> None:
    """Two runs of which no common row is scored are compared like any others."""
    metric, measured = measured_of(name, schema, samples_of(schema, [None, "nothing"]))
    point = metric.reduce(measured.values[:0], measured.columns)
    assert point and {len(value) for value in point.values()} == {0}


@pytest.mark.parametrize(("name", "schema"), cases())
def test_gold_as_answer_is_best(name: str, schema: str) -> None:
    found = values(name, schema, samples_of(schema, [None] * 12))
    assert found
    for key in graded(found):
        assert found[key] == pytest.approx(1.0, abs=1e-6), key


@pytest.mark.parametrize(("name", "schema"), cases())
def test_answers_that_cannot_be_read_are_worst(name: str, schema: str) -> None:
    found = values(name, schema, samples_of(schema, ["no answer at all"] * 12))
    for key in graded(found):
        assert found[key] == 0.0, key


@pytest.mark.parametrize(("name", "schema"), cases())
def test_half_failures_are_strictly_between(name: str, schema: str) -> None:
    found = values(name, schema, samples_of(schema, [None, None, "?", "?"] * 4))
    for key in (key for key in graded(found) if key.count(".") == 1):
        assert 0.0 < found[key] < 1.0, key


@pytest.mark.parametrize(("name", "schema"), cases())
def test_intervals_hold_the_value_and_count_failures(name: str, schema: str) -> None:
    metric, measured = measured_of(name, schema, samples_of(schema, [None, "?", None] * 6))
    found = statistics.estimate(metric, measured, [str(index // 2) for index in range(18)], resamples=300)
    for key, estimate in found.items():
        assert estimate.n == 18, key
        assert estimate.value is not None and estimate.low is not None and estimate.high is not None
        assert estimate.low <= estimate.value <= estimate.high, key


@pytest.mark.parametrize(("name", "schema"), cases())
def test_values_are_shares_unless_the_metric_says_otherwise(name: str, schema: str) -> None:
    texts = [None, "?", None, "Label: fitnah\n\nAnalisis: lain"] * 4
    metric, measured = measured_of(name, schema, samples_of(schema, texts))
    drawn = bootstrap.resample(
        bootstrap.clusters(measured.values, [str(index) for index in range(16)]), 200, 1
    )
    for key, found in metric.reduce(drawn, measured.columns).items():
        if metric.is_share(key):
            assert np.nanmin(found) >= -1e-12 and np.nanmax(found) <= 1 + 1e-12, key


@pytest.mark.parametrize(("name", "schema"), cases())
def test_order_of_samples_changes_nothing(name: str, schema: str) -> None:
    samples = samples_of(schema, [None, "?", None, "Label: fitnah\n\nAnalisis: lain"] * 3)
    assert values(name, schema, samples) == pytest.approx(values(name, schema, samples[::-1]), nan_ok=True)


@pytest.mark.parametrize(("name", "schema"), cases())
def test_failed_requests_are_left_out_and_not_counted(name: str, schema: str) -> None:
    answered = samples_of(schema, [None, "?"] * 3)
    failed = [
        sample_of(
            index, DFK if schema == "dfk_label" else CAPTION, "", finish_reason="error", error="refused"
        )
        for index in range(6, 9)
    ]
    _, with_failed = measured_of(name, schema, answered + failed)
    assert int(with_failed.scored.sum()) == 6
    assert not with_failed.values[6:].any()
    assert values(name, schema, answered + failed) == pytest.approx(
        values(name, schema, answered), nan_ok=True
    )


@pytest.mark.parametrize(("name", "schema"), cases())
def test_no_samples_give_no_number_and_no_crash(name: str, schema: str) -> None:
    assert all(np.isnan(value) for value in values(name, schema, []).values())


@pytest.mark.parametrize(("name", "schema"), cases())
def test_details_are_plain_json(name: str, schema: str) -> None:
    _, measured = measured_of(name, schema, samples_of(schema, [None, "?", None] * 3))
    assert msgspec.json.decode(msgspec.json.encode(measured.details)) == measured.details


def test_a_metric_that_finds_no_field_is_refused_before_the_run() -> None:
    with pytest.raises(ConfigError, match="needs a field with the role Label"):
        metrics.check("labels", metrics.load("labels"), CAPTION)


def test_without_a_source_text_grounding_is_not_available() -> None:
    samples = [replace(sample, source_text=None) for sample in samples_of("caption", [None] * 4)]
    metric, measured = measured_of("grounding", "caption", samples)
    rate = statistics.estimate(metric, measured, ["a", "b", "c", "d"])["rate"]
    assert (rate.value, rate.n) == (None, 0)


@pytest.mark.parametrize("family", ["metrics", "validators", "reports.trackers"])
def test_the_member_in_the_contract_of_a_family_is_python_that_runs(family: str) -> None:
    module = importlib.import_module(f"dfkeval.{family}")
    tests = doctest.DocTestFinder(recurse=False).find(module)
    assert sum(len(test.examples) for test in tests) > 1
    assert all(doctest.DocTestRunner().run(test).failed == 0 for test in tests)

"""Two runs side by side: what is compared, what is left out, and what is said about it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from msgspec.structs import replace

from dfkdata.common.errors import ConfigError
from dfkdata.schemas import Schema
from dfkeval import compare, evaluate
from dfkeval.analysis.comparison import HEADLINES
from dfkeval.reports import comparison_table
from dfkeval.runs.run import Run
from tests.helpers.runs import CAPTION, DFK, config_of, gold_answers, write_answers, write_rows


def run_of(tmp_path: Path, name: str, wrong: range, schema: Schema = DFK, n: int = 40) -> Run:
    answers = [(i, "?" if k in wrong else text) for k, (i, text) in enumerate(gold_answers(schema, n))]
    data = write_rows(tmp_path / f"{schema.name}.jsonl", schema, n)
    config = config_of(data, write_answers(tmp_path / f"{name}.a", answers), ["validity", "fields"])
    return evaluate(config, tmp_path / name)


def test_an_improvement_is_found_and_its_samples_are_listed(tmp_path: Path) -> None:
    before, after = run_of(tmp_path, "before", range(20)), run_of(tmp_path, "after", range(2))
    found = compare(before, after)
    change = found.differences["validity.schema_valid"]
    assert (found.n, change.n, change.a, change.b) == (40, 40, 0.5, 0.95)
    assert change.value == pytest.approx(0.45)
    assert found.verdict("validity.schema_valid") == "better"
    assert compare(after, before).verdict("validity.schema_valid") == "worse"
    assert [each.id for each in found.changed] == [f"r{index:03d}" for index in range(2, 20)]


def test_folders_compare_like_runs_and_repeat_exactly(tmp_path: Path) -> None:
    before, after = run_of(tmp_path, "before", range(9)), run_of(tmp_path, "after", range(5, 9))
    found = compare(before, after)
    assert compare(before.folder, str(after.folder)) == found


def test_a_run_against_itself_shows_no_difference(tmp_path: Path) -> None:
    run = run_of(tmp_path, "run", range(9))
    found = compare(run, run)
    assert not found.changed
    assert {found.verdict(name) for name in found.differences} == {"no difference shown"}


def test_rows_that_are_not_the_same_question_are_counted_and_left_out(tmp_path: Path) -> None:
    before, after = run_of(tmp_path, "before", range(0)), run_of(tmp_path, "after", range(0))
    first, second, third, *rest = after.samples
    after.samples = [
        replace(first, key="another picture"),
        replace(second, gold={"label": "netral", "analisis": "lain"}),
        replace(third, id="new"),
        *rest,
    ]
    found = compare(before, after)
    assert found.n == 37
    assert found.left_out == {
        "only in after": 1, "only in before": 1, "other gold": 1, "other prompt or images": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("key", "reason"), [("template_sha256", "other chat template"), ("pixels", "other image size")]
)
def test_runs_with_another_template_or_image_size_have_no_common_rows(
    tmp_path: Path, key: str, reason: str
) -> None:
    before, after = run_of(tmp_path, "before", range(0)), run_of(tmp_path, "after", range(0))
    before.environment["backend"][key], after.environment["backend"][key] = "a", "b"
    found = compare(before, after)
    assert (found.n, found.left_out) == (0, {reason: 40})
    assert {found.verdict(name) for name in found.differences} <= {"n/a"}


def test_scores_of_different_encoders_are_not_compared(tmp_path: Path) -> None:
    before, after = run_of(tmp_path, "before", range(0)), run_of(tmp_path, "after", range(0))
    before.measured["fields"][1].details["model"] = "one"
    after.measured["fields"][1].details["model"] = "other"
    found = compare(before, after)
    assert found.notes == ("fields is not compared: one run used model one, the other model other",)
    assert not any(name.startswith("fields.") for name in found.differences)


def test_grounding_by_the_words_of_two_languages_is_not_compared(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl", CAPTION, 4)
    answers = write_answers(tmp_path / "a.jsonl", gold_answers(CAPTION, 4))
    runs = [
        evaluate(config_of(data, answers, ["grounding"], metric_options=options), tmp_path / name)
        for name, options in (("english", {}), ("indonesian", {"grounding": {"language": "id"}}))
    ]
    found = compare(*runs)
    note = "grounding is not compared: one run used the defaults, the other language id"
    assert (found.notes, found.differences) == ((note,), {})


def test_runs_of_different_schemas_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="answers schema"):
        compare(run_of(tmp_path, "a", range(0)), run_of(tmp_path, "b", range(0), CAPTION))


def test_p_values_are_corrected_over_the_headlines_alone(tmp_path: Path) -> None:
    before, after = run_of(tmp_path, "before", range(9)), run_of(tmp_path, "after", range(5, 9))
    for name, change in compare(before, after).differences.items():
        assert (change.p_holm is not None) == (name in HEADLINES)
        assert change.p_holm is None or change.p is None or change.p_holm >= change.p


def test_the_table_says_how_small_a_difference_the_rows_would_show(tmp_path: Path) -> None:
    before, after = run_of(tmp_path, "before", range(9)), run_of(tmp_path, "after", range(5, 9))
    found = compare(before, after)
    change = found.differences["fields.f1"]
    assert change.low is not None and change.high is not None
    least = found.detectable("fields.f1")
    assert least == pytest.approx(2.8016 * (change.high - change.low) / (2 * 1.95996), rel=1e-3)
    assert f"- a true difference of {least:.3f} in fields.f1 would show" in comparison_table(found)


def test_a_table_never_asks_for_more_than_a_share_can_be(tmp_path: Path) -> None:
    found = compare(run_of(tmp_path, "a", range(20)), run_of(tmp_path, "b", range(10, 30)))
    wide = replace(found.differences["fields.f1"], low=-1.0, high=1.0)
    wider = dataclasses.replace(found, differences=found.differences | {"fields.f1": wide})
    assert "- no true difference in fields.f1 would show in 4 of 5 such runs" in comparison_table(wider)


def test_a_failed_request_is_no_changed_answer_and_is_told(tmp_path: Path) -> None:
    a = run_of(tmp_path, "a", range(0))
    answers = [row for row in gold_answers(DFK, 40) if row[0] not in ("r001", "r002")]
    path = write_answers(tmp_path / "less.jsonl", answers)
    b = evaluate(config_of(a.config.data, path, ["validity"]), tmp_path / "b")
    found = compare(a, b)
    assert (found.n, found.changed) == (40, ())
    assert found.differences["validity.schema_valid"].n == 38
    assert found.notes == ("2 of the common rows got no answer in a run, and are in no value",)
    assert f"- {found.notes[0]}" in comparison_table(found)
    assert compare(a, a).notes == ()

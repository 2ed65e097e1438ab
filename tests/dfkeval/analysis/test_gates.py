"""Conditions for pipelines, trends, and golds that look wrong."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dfkdata.common.errors import ConfigError, DataError
from dfkeval import evaluate, load_run
from dfkeval.analysis import gates
from dfkeval.cli import app
from dfkeval.evaluation.evaluate import Run
from tests.helpers.runs import DFK, config_of, gold_answers, write_answers, write_rows

N = 12


def run_of(tmp_path: Path, name: str, changed: dict[str, str]) -> Run:
    answers = [(key, changed.get(key, text)) for key, text in gold_answers(DFK, N)]
    data = write_rows(tmp_path / "test.jsonl", DFK, N)
    path = write_answers(tmp_path / f"{name}.jsonl", answers)
    return evaluate(config_of(data, path, ["validity", "labels"]), tmp_path / "runs" / name)


@pytest.mark.parametrize(
    ("text", "fails"),
    [
        ("labels.accuracy.value < 0.8", False),
        ("labels.accuracy.value < 1", True),
        ("labels.accuracy.low<=0.95", True),
        ("labels.f1.ujaran_kebencian.value < 0.5", False),
        ("validity.schema_valid.n < 12", False),
    ],
)
def test_a_condition_says_whether_the_pipeline_fails(tmp_path: Path, text: str, fails: bool) -> None:
    run = run_of(tmp_path, "a", {"r000": "?"})
    assert gates.gate(text).fails(run.summary) is fails


def test_a_metric_without_a_number_fails_the_condition(tmp_path: Path) -> None:
    summary = {"metrics": {"grounding.rate": {"value": None, "low": None, "high": None, "n": 0}}}
    assert gates.gate("grounding.rate.value < 0.1").fails(summary)


@pytest.mark.parametrize(
    "text", ["labels.accuracy < 0.8", "labels.accuracy.low = 0.8", "import os", "a.low < b"]
)
def test_what_is_no_condition_is_refused_with_the_form(text: str) -> None:
    with pytest.raises(ConfigError, match=r"for example 'labels\.macro_f1\.low < 0\.8'"):
        gates.gate(text)


def test_an_unknown_metric_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'labels\.accuracy'"):
        gates.gate("labels.acuracy.low < 0.8").fails(run_of(tmp_path, "a", {}).summary)


def test_fail_if_sets_the_exit_code_of_score(tmp_path: Path) -> None:
    folder = str(run_of(tmp_path, "a", {"r000": "?"}).folder)
    good = CliRunner().invoke(app.app, ["score", folder, "--fail-if", "labels.accuracy.value < 0.5"])
    bad = CliRunner().invoke(app.app, ["score", folder, "--fail-if", "labels.accuracy.value < 0.99"])
    assert (good.exit_code, bad.exit_code) == (0, 1)
    assert "labels.accuracy.value is 0.916" in bad.stderr


def test_history_lists_runs_from_old_to_new_with_their_change(tmp_path: Path) -> None:
    for place, (name, wrong) in enumerate((("z", 6), ("a", 3), ("m", 0))):
        run = run_of(tmp_path, name, {f"r{index:03d}": "?" for index in range(wrong)})
        os.utime(run.folder / "completions.jsonl", (place, place))
    header, rows = gates.history(tmp_path / "runs", ["labels.accuracy"])
    assert header == ["run", "n", "labels.accuracy"]
    assert rows == [("z", "12", "0.500"), ("a", "12", "0.750 (+0.250)"), ("m", "12", "1.000 (+0.250)")]
    assert gates.history(tmp_path / "runs")[0][:3] == ["run", "n", "validity.schema_valid"]
    with pytest.raises(ConfigError, match="holds no scored runs"):
        gates.history(tmp_path)
    for command in (["history", str(tmp_path / "runs")], ["pool", str(tmp_path / "runs")]):
        refused = CliRunner().invoke(app.app, [*command, "--metric", "labels.acuracy"])
        assert "no run has a value 'labels.acuracy'" in str(refused.exception)
        assert "labels.accuracy" in str(refused.exception)


def test_a_summary_that_is_none_is_one_message(tmp_path: Path) -> None:
    run = run_of(tmp_path, "a", {})
    for text in ('{"n": 1}', "[]", '{"n": "x", "outcomes": {}, "metrics": {}, "details": {}}', "{"):
        (run.folder / "summary.json").write_text(text)
        for reads in (lambda: load_run(run.folder), lambda: gates.history(tmp_path / "runs")):
            with pytest.raises(DataError, match=r"summary\.json"):
                reads()


def test_suspects_are_rows_whose_gold_all_runs_contradict_alike(tmp_path: Path) -> None:
    other, third = "Label: netral\n\nAnalisis: lain", "Label: fitnah\n\nAnalisis: lain"
    runs = [
        run_of(tmp_path, "a", {"r001": other, "r002": other, "r003": other, "r005": "?"}),
        run_of(tmp_path, "b", {"r001": other, "r002": other, "r003": third, "r005": "?"}),
    ]
    found = gates.suspects(runs)
    assert [(each.id, each.gold, each.said) for each in found] == [
        ("r001", "disinformasi", "netral"),
        ("r002", "fitnah", "netral"),
    ]
    path = tmp_path / "check.csv"
    called = CliRunner().invoke(app.app, ["suspects", *(str(run.folder) for run in runs), "--csv", str(path)])
    assert called.exit_code == 0 and "2 rows" in called.stdout
    with path.open(newline="") as file:
        assert [row["id"] for row in csv.DictReader(file)] == ["r001", "r002"]

"""Trends over a folder of runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dfkdata.common.errors import ConfigError, DataError
from dfkeval import load_run
from dfkeval.analysis import history
from dfkeval.cli import app
from tests.helpers.runs import evaluated


def test_history_lists_runs_from_old_to_new_with_their_change(tmp_path: Path) -> None:
    for place, (name, wrong) in enumerate((("z", 6), ("a", 3), ("m", 0))):
        run = evaluated(tmp_path, name, {f"r{index:03d}": "?" for index in range(wrong)})
        os.utime(run.folder / "completions.jsonl", (place, place))
    header, rows, _ = history.history(tmp_path / "runs", ["labels.accuracy"])
    assert header == ["run", "n", "labels.accuracy"]
    assert rows == [("z", "12", "0.500"), ("a", "12", "0.750 (+0.250)"), ("m", "12", "1.000 (+0.250)")]
    assert history.history(tmp_path / "runs")[0][:3] == ["run", "n", "validity.schema_valid"]
    with pytest.raises(ConfigError, match="holds no scored runs"):
        history.history(tmp_path)
    for command in (["history", str(tmp_path / "runs")], ["pool", str(tmp_path / "runs")]):
        refused = CliRunner().invoke(app.app, [*command, "--metric", "labels.acuracy"])
        assert "no run has a value 'labels.acuracy'" in str(refused.exception)
        assert "labels.accuracy" in str(refused.exception)


def test_a_summary_that_is_none_is_one_message(tmp_path: Path) -> None:
    run = evaluated(tmp_path, "a", {})
    for text in ('{"n": 1}', "[]", '{"n": "x", "outcomes": {}, "metrics": {}, "details": {}}', "{"):
        (run.folder / "summary.json").write_text(text)
        for reads in (lambda: load_run(run.folder), lambda: history.history(tmp_path / "runs")):
            with pytest.raises(DataError, match=r"summary\.json"):
                reads()


BROKEN = (
    "", "{", "[]", "null", '{"n": 1}', '{"n": 1, "outcomes": {}, "metrics": {"labels.accuracy": 0.5}, "details": {}}',
    '{"n": 1, "outcomes": {}, "metrics": {"labels.accuracy": {"value": "x", "n": 1}}, "details": {}}', "\udcff",
)  # fmt: skip


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_run_has_a_row_of_its_own_and_the_others_go_on(tmp_path: Path, text: str) -> None:
    for place, (name, wrong) in enumerate((("z", 6), ("a", 3), ("m", 0))):
        run = evaluated(tmp_path, name, {f"r{index:03d}": "?" for index in range(wrong)})
        os.utime(run.folder / "completions.jsonl", (place, place))
    (tmp_path / "runs" / "a" / "summary.json").write_bytes(text.encode(errors="surrogateescape"))
    _, rows, broken = history.history(tmp_path / "runs", ["labels.accuracy"])
    assert rows == [("z", "12", "0.500"), ("a", "broken", ""), ("m", "12", "1.000 (+0.500)")]
    shown = CliRunner().invoke(app.app, ["history", str(tmp_path / "runs"), "--metric", "labels.accuracy"])
    assert shown.exit_code == 0 and len(broken) == 1
    assert "summary.json" in shown.stdout and "0.500" in shown.stdout


def test_a_run_without_its_answers_still_has_its_numbers(tmp_path: Path) -> None:
    run = evaluated(tmp_path, "a", {})
    (run.folder / "completions.jsonl").unlink()
    assert history.history(tmp_path / "runs", ["labels.accuracy"])[1] == [("a", "12", "1.000")]

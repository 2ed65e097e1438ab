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
    header, rows = history.history(tmp_path / "runs", ["labels.accuracy"])
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

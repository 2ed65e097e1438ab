"""Golds that look wrong."""

from __future__ import annotations

import csv
from pathlib import Path

from typer.testing import CliRunner

from dfkeval.analysis import label_errors
from dfkeval.cli import app
from tests.helpers.runs import evaluated


def test_suspects_are_rows_whose_gold_all_runs_contradict_alike(tmp_path: Path) -> None:
    other, third = "Label: netral\n\nAnalisis: lain", "Label: fitnah\n\nAnalisis: lain"
    runs = [
        evaluated(tmp_path, "a", {"r001": other, "r002": other, "r003": other, "r005": "?"}),
        evaluated(tmp_path, "b", {"r001": other, "r002": other, "r003": third, "r005": "?"}),
    ]
    found = label_errors.suspects(runs)
    assert [(each.id, each.gold, each.answered) for each in found] == [
        ("r001", "disinformasi", "netral"),
        ("r002", "fitnah", "netral"),
    ]
    path = tmp_path / "check.csv"
    called = CliRunner().invoke(app.app, ["suspects", *(str(run.folder) for run in runs), "--csv", str(path)])
    assert called.exit_code == 0 and "2 rows" in called.stdout
    with path.open(newline="") as file:
        assert [row["id"] for row in csv.DictReader(file)] == ["r001", "r002"]

"""Rows, answers and samples stay in their files: a run of many rows needs little more memory than one of few."""

from __future__ import annotations

import gc
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dfkeval import EvalConfig, compare, evaluate, score
from dfkeval.evaluation.evaluate import write_reports
from dfkeval.reports import sample_sets
from dfkeval.runs.run import load_run
from tests.helpers.runs import DFK, answer_text, dfk_gold, row_of

FEW, MANY = 100, 300
A_ROW = 1000
"""Bytes a row; each one's question, answer and sample are several times as long."""


def fabricated(folder: Path, count: int) -> None:
    """Write rows, and two sets of answers of which every second one differs."""
    folder.mkdir()
    rows = [row_of(at, DFK) for at in range(count)]
    for row in rows:
        row["messages"][0]["content"][-1]["text"] += " panjang sekali" * 100
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, shift in (("base", 0), ("tuned", 1)):
        texts = [answer_text(dfk_gold(at + shift * (at % 2)), DFK) + " sebab itu" * 60 for at in range(count)]
        lines = [
            json.dumps({"id": row["id"], "text": text}) + "\n" for row, text in zip(rows, texts, strict=True)
        ]
        (folder / f"{name}.jsonl").write_text("".join(lines))


def peaks(folder: Path, count: int) -> dict[str, int]:
    """Bytes at the peak of each command above what was in use before."""
    fabricated(folder, count)

    def run(name: str) -> None:
        backend = {"kind": "scripted", "completions": folder / f"{name}.jsonl"}
        evaluate(
            EvalConfig(data=folder / "rows.jsonl", backend=backend, resamples=100), folder / f"run-{name}"
        )

    def reported() -> None:
        write_reports(load_run(folder / "run-tuned"), [load_run(folder / "run-base")])

    def compared() -> None:
        pair = compare(folder / "run-base", folder / "run-tuned")
        assert sum(change.before.id == change.after.id for change in pair.changed) == count // 2

    run("base")
    steps: dict[str, Callable[[], Any]] = {
        "run": lambda: run("tuned"),
        "score": lambda: score(folder / "run-tuned"),
        "report": reported,
        "compare": compared,
    }
    found = {}
    for name, work in steps.items():
        gc.collect()
        tracemalloc.start()
        try:
            work()
            found[name] = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    return found


def test_a_row_costs_less_than_a_kilobyte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sample_sets, "CHUNK", 25
    )  # the texts of a chunk are held, whatever the number of rows
    peaks(tmp_path / "warm", 20)
    few, many = peaks(tmp_path / "few", FEW), peaks(tmp_path / "many", MANY)
    a_row = {name: round((many[name] - few[name]) / (MANY - FEW)) for name in few}
    assert {name: size for name, size in a_row.items() if size > A_ROW} == {}, a_row

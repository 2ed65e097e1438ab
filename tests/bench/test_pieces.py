"""Pieces run in processes of their own, within their time, and never twice."""

from __future__ import annotations

import importlib
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"

SCRIPT = """
import argparse, json, pathlib, sys, time
parser = argparse.ArgumentParser()
for name in ("--work", "--piece", "--seconds", "--do"):
    parser.add_argument(name)
options = parser.parse_args()
results = pathlib.Path(options.work) / "results"
(results / f"{options.piece}.partial.json").write_text('{"rate": 1}')
if options.do == "sleep":
    time.sleep(60)
if options.do == "fail":
    sys.exit("no such card")
with (results / "runs").open("a") as runs:
    runs.write(options.piece + " ")
(results / f"{options.piece}.json").write_text('{"rate": 2}')
"""


@pytest.fixture
def pieces(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("pieces")


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


def test_a_piece_with_a_result_is_not_run_again(pieces: Any, script: Path, tmp_path: Path) -> None:
    one = pieces.Piece("one", ("--do", "work"), 30)
    for _ in range(2):
        pieces.run_all(script, tmp_path, [one], minutes=1)
    assert (tmp_path / "results/runs").read_text() == "one "
    assert pieces.read_results(tmp_path) == {"one": {"rate": 2}}


def test_a_failure_keeps_what_was_found_and_the_reason(pieces: Any, script: Path, tmp_path: Path) -> None:
    asked = [pieces.Piece("bad", ("--do", "fail"), 30), pieces.Piece("late", ("--do", "sleep"), 2)]
    asked += [pieces.Piece("absent", (), 30, skip="needs a card"), pieces.Piece("good", ("--do", "work"), 30)]
    pieces.run_all(script, tmp_path, asked, minutes=1)
    found = pieces.read_results(tmp_path)
    assert found["bad"]["rate"] == 1 and found["bad"]["failed"] == "exit status 1: no such card"
    assert found["late"]["rate"] == 1 and found["late"]["failed"] == "over 2 s"
    assert found["absent"]["failed"] == "needs a card"
    assert found["good"] == {"rate": 2}


def test_nothing_is_started_that_would_end_too_late(pieces: Any, script: Path, tmp_path: Path) -> None:
    pieces.run_all(script, tmp_path, [pieces.Piece("one", ("--do", "work"), 300)], minutes=0.1)
    assert pieces.read_results(tmp_path) == {}


def test_a_cold_piece_finds_its_cache_empty(pieces: Any, script: Path, tmp_path: Path) -> None:
    kept, dropped = (tmp_path / f"caches/{name}/triton/kernel" for name in ("warm", "cold"))
    for path in (kept, dropped):
        path.parent.mkdir(parents=True)
        path.write_text("tuned")
    asked = [pieces.Piece(name, ("--do", "work"), 30, name, name == "cold") for name in ("warm", "cold")]
    pieces.run_all(script, tmp_path, asked, minutes=1)
    assert kept.is_file() and not dropped.exists()


def test_wheels_are_unpacked_once(pieces: Any, tmp_path: Path) -> None:
    folder = tmp_path / "wheels"
    folder.mkdir()
    with zipfile.ZipFile(folder / "a-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("a/__init__.py", "")
    for _ in range(2):
        pieces.unpack_wheels(folder, tmp_path / "site")
        (tmp_path / "site/mark").write_text("")
    assert (tmp_path / "site/a/__init__.py").is_file() and (tmp_path / "site/mark").is_file()


def test_results_are_plain_json(pieces: Any, tmp_path: Path) -> None:
    pieces.write_result(tmp_path, "one", {"rate": 2})
    assert json.loads((tmp_path / "results/one.json").read_text()) == {"rate": 2}

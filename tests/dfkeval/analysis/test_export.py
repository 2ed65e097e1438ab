"""Samples as tables: nothing is lost, whatever the answers hold."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from dfkdata.common.errors import ConfigError
from dfkeval import evaluate
from dfkeval.analysis.export import write_samples
from dfkeval.cli import app
from dfkeval.types import Sample
from tests.helpers.runs import CAPTION, DFK, config_of, gold_answers, sample_of, write_answers, write_rows

TEXTS = [None, "", "?", "\x00 NUL", 'quote " and, comma\nand line', "狗在跑 😀 собака", "x " * 5000]


def samples() -> list[Sample]:
    found = [sample_of(index, schema, text) for schema in (DFK, CAPTION) for index, text in enumerate(TEXTS)]
    probs = {"netral": 0.75, "fitnah": 0.25}
    first = replace(found[0], label_probs=probs, gold_nll=1.5, gold_tokens=3, images=("a.png", "b.png"))
    return [first, *found[1:]]


def frozen(sample: Sample) -> dict[str, Any]:
    """What a reader should find, JSON texts read."""
    names = zip(sample.__struct_encode_fields__, sample.__struct_fields__, strict=True)
    found = {column: getattr(sample, name) for column, name in names} | {"confidence": sample.confidence}
    return found | {name: list(found[name]) for name in ("repairs", "problems", "images")}


def read(row: dict[str, Any], lists_as_json: bool = False) -> dict[str, Any]:
    names = ["gold", "value", "lenient", "label_probs", "slices"]
    names += ["repairs", "problems", "images"] if lists_as_json else []
    return row | {name: json.loads(row[name]) if row[name] else None for name in names}


def test_parquet_holds_every_field_of_every_sample(tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    table = pq.read_table(write_samples(samples(), tmp_path / "s.parquet"))
    assert [read(row) for row in table.to_pylist()] == [frozen(sample) for sample in samples()]
    empty = pq.read_table(write_samples([], tmp_path / "empty.parquet"))
    assert (empty.num_rows, empty.schema) == (0, table.schema)


def test_csv_holds_the_same_texts(tmp_path: Path) -> None:
    path = write_samples(samples(), tmp_path / "s.csv")
    with path.open(newline="", encoding="utf-8") as file:
        rows = [read(row, lists_as_json=True) for row in csv.DictReader(file)]
    for row, sample in zip(rows, samples(), strict=True):
        for name in ("id", "text", "outcome", "gold", "value", "problems", "images", "label_probs"):
            assert row[name] == frozen(sample)[name], name


def test_jsonl_is_read_back_as_samples(tmp_path: Path) -> None:
    import msgspec

    lines = write_samples(samples(), tmp_path / "s.jsonl").read_bytes().splitlines()
    assert [msgspec.json.decode(line, type=Sample) for line in lines] == samples()


@pytest.mark.parametrize("name", ["s.txt", "s", "no/such/folder/s.csv"])
def test_a_file_that_cannot_be_written_is_refused_with_the_reason(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"ending must be one of|cannot be written"):
        write_samples(samples(), tmp_path / name)


def test_the_command_writes_the_samples_of_one_outcome(tmp_path: Path) -> None:
    answers = [(i, "" if k < 2 else text) for k, (i, text) in enumerate(gold_answers(DFK, 6))]
    data, path = write_rows(tmp_path / "t.jsonl", DFK, 6), write_answers(tmp_path / "a.jsonl", answers)
    run = evaluate(config_of(data, path, ["validity"]), tmp_path / "run")
    out = tmp_path / "empty.csv"
    called = CliRunner().invoke(
        app.app, ["samples", str(run.folder), "--out", str(out), "--outcome", "empty"]
    )
    assert called.exit_code == 0 and "2 samples" in called.stdout
    with out.open(newline="") as file:
        assert [row["id"] for row in csv.DictReader(file)] == ["r000", "r001"]
    bad = CliRunner().invoke(app.app, ["samples", str(run.folder), "--out", str(out), "--outcome", "nope"])
    assert isinstance(bad.exception, ConfigError)

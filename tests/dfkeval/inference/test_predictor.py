"""Answers without gold: one as a dict, many as one typed line a row."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dfkdata.common.errors import BackendError, ConfigError, DataError
from dfkdata.rows.record import Record, Reject
from dfkeval import PredictionError, Predictor, predict_many
from dfkeval.backends import Capabilities
from dfkeval.models import metadata
from dfkeval.types import Completion, Request, Sampling
from tests.helpers.runs import CAPTION, DFK, answer_text, caption_gold, dfk_gold


class Says:
    """A backend that answers every request with `text`, or breaks after `limit` of them."""

    capabilities = Capabilities()

    def __init__(self, text: str, limit: int = 10_000) -> None:
        self.text, self.limit = text, limit
        self.asked: list[Request] = []
        self.info: dict[str, Any] = {}

    def generate(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[Completion]:
        for request in requests:
            if len(self.asked) >= self.limit:
                raise BackendError("broken")
            self.asked.append(request)
            yield Completion(id=request.id, text=self.text)

    def close(self) -> None: ...


GOOD = answer_text(dfk_gold(2), DFK)


def records(count: int) -> list[Record | Reject]:
    return [Record(id=f"r{i}", group="g", source=f"f:{i}", fields={"title": f"T{i}"}) for i in range(count)]


def test_a_prediction_is_the_validated_dict_and_asks_as_training_did() -> None:
    backend = Says(GOOD)
    assert Predictor(schema="dfk_label", backend=backend)(
        image="x.jpg", title="Judul", text="Isi"
    ) == dfk_gold(2)
    parts = backend.asked[0].messages[0]["content"]
    assert parts[1]["text"] == "Judul: Judul\nKonteks: Isi"
    assert parts[2] == {"type": "image"} and backend.asked[0].images == ("x.jpg",)


def test_a_tool_schema_is_asked_with_its_tool_and_stop_string() -> None:
    backend = Says(answer_text(caption_gold(1), CAPTION))
    ask = Predictor(schema="caption", backend=backend)
    assert ask(caption="A small horse.") == caption_gold(1)
    assert backend.asked[0].tools == CAPTION.tools
    assert ask.sampling.stop == ("</tool_call>",)


def test_an_answer_that_is_not_valid_is_an_error_with_its_text() -> None:
    with pytest.raises(PredictionError, match=r"no valid answer \(no_call\)") as found:
        Predictor(schema="dfk_label", backend=Says("entah"))(title="x")
    assert found.value.sample.text == "entah"


def test_an_input_that_the_prompt_has_no_use_for_is_refused() -> None:
    with pytest.raises(ConfigError, match="has no input 'titel'; did you mean 'title'"):
        Predictor(schema="dfk_label", backend=Says(GOOD))(titel="x")


def test_the_schema_comes_from_the_adapter_and_another_is_refused(tmp_path: Path) -> None:
    metadata.write(tmp_path, metadata.ModelMetadata(schema="caption"))
    assert Predictor(adapter=tmp_path, backend=Says("x")).schema.name == "caption"
    with pytest.raises(ConfigError, match="trained on schema 'caption'"):
        Predictor(adapter=tmp_path, schema="dfk_label", backend=Says("x"))
    with pytest.raises(ConfigError, match="say which schema"):
        Predictor(backend=Says("x"))
    with pytest.raises(ConfigError, match="say which model"):
        Predictor(schema="caption")


def test_many_rows_give_one_line_each_rejects_included(tmp_path: Path) -> None:
    reject = Reject(source="f:9", code="IMG_MISSING", reason="no such file")
    counts = predict_many(
        Predictor(schema="dfk_label", backend=Says(GOOD)), [*records(3), reject], tmp_path / "p.jsonl"
    )
    assert counts == {"ok": 3, "rejected": 1}
    lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert {line["id"] for line in lines} == {"r0", "r1", "r2", "f:9"}
    assert next(line for line in lines if line["id"] == "r1")["value"] == dfk_gold(2)
    assert next(line for line in lines if line["id"] == "f:9")["problems"] == ["IMG_MISSING: no such file"]


def test_a_stopped_prediction_goes_on_and_asks_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfkeval.inference.batch.CHUNK", 4)
    path = tmp_path / "p.jsonl"
    with pytest.raises(BackendError):
        predict_many(Predictor(schema="dfk_label", backend=Says(GOOD, limit=6)), records(10), path)
    path.write_bytes(path.read_bytes() + b'{"id": "r9", "outc')
    second = Says(GOOD)
    assert predict_many(Predictor(schema="dfk_label", backend=second), records(10), path) == {"ok": 10}
    assert [request.id for request in second.asked] == [f"r{index}" for index in range(6, 10)]
    assert len(path.read_text().splitlines()) == 10


def test_a_file_of_something_else_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    path.write_text('{"note": 1}\n')
    with pytest.raises(DataError, match="not a prediction"):
        predict_many(Predictor(schema="dfk_label", backend=Says(GOOD)), records(1), path)
    assert path.read_text() == '{"note": 1}\n'

"""Pairs of prompt and completion, or of query and response, against TRL and in every spelling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dfkdata import Record, convert, load_rows, read
from dfkdata.formats import query_response
from tests.helpers.pictures import picture
from tests.helpers.rows import rows_of

IMAGE = {"type": "image"}


def turn(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def text(value: str) -> dict[str, str]:
    return {"type": "text", "text": value}


PAIRS: list[dict[str, Any]] = [
    {"prompt": [turn("user", "What?")], "completion": [turn("assistant", "A line.")]},
    {
        "prompt": [turn("system", "Be brief."), turn("user", "What?")],
        "completion": [turn("assistant", "A line.")],
        "images": ["a.png"],
    },
    {
        "prompt": [turn("user", [IMAGE, text("One?")]), turn("assistant", "Yes."), turn("user", [text("And?"), IMAGE])],
        "completion": [turn("assistant", [text("Two.")])],
        "images": ["a.png", "b.png"],
    },
    {
        "prompt": [turn("user", "One?"), turn("assistant", "Yes."), turn("user", "And?")],
        "completion": [turn("assistant", "Two.")],
        "images": ["a.png", "b.png"],
    },
]  # fmt: skip


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for at, name in enumerate(("a.png", "b.png")):
        (tmp_path / name).write_bytes(picture("PNG", (20 + at, 30)))
    return tmp_path


@pytest.mark.parametrize("pair", PAIRS, ids=["text", "one", "placed", "two"])
def test_pictures_stand_where_trl_puts_them(pair: dict[str, Any], images: Path) -> None:
    data_utils = pytest.importorskip("trl.data_utils")
    (item,) = read([pair], "prompt_completion", images=images)
    assert isinstance(item, Record) and item.messages is not None
    theirs = data_utils.prepare_multimodal_messages(
        [*pair["prompt"], *pair["completion"]], images=list(pair.get("images", []))
    )
    kinds = [[(part["type"], part.get("text")) for part in message["content"]] for message in theirs]
    assert [
        [(part["type"], part.get("text")) for part in message["content"]] for message in item.messages
    ] == kinds


@pytest.mark.parametrize("pair", PAIRS[:3], ids=["text", "one", "placed"])
def test_what_the_layout_writes_reads_back(pair: dict[str, Any], images: Path, tmp_path: Path) -> None:
    how: dict[str, Any] = {"images": images, "validation": 0}
    convert([pair], tmp_path / "one", format="prompt_completion", to="prompt_completion", **how)
    convert(
        tmp_path / "one" / "train.jsonl",
        tmp_path / "two",
        format="auto",
        to="prompt_completion",
        validation=0,
    )
    first, second = rows_of(tmp_path / "one", "train"), rows_of(tmp_path / "two", "train")
    keys = ("id", "prompt", "completion")
    assert [{key: row[key] for key in keys} for row in first] == [
        {key: row[key] for key in keys} for row in second
    ]
    assert [len(row["images"]) for row in load_rows_of(tmp_path / "two")] == [len(pair.get("images", []))]


def load_rows_of(folder: Path) -> list[Any]:
    rows = rows_of(folder, "train")
    assert all((folder / name).is_file() for row in rows for name in row["images"])
    return rows


@pytest.mark.parametrize("query", query_response.QUERY)
@pytest.mark.parametrize("response", query_response.RESPONSE)
def test_every_spelling_of_ms_swift_is_read(query: str, response: str) -> None:
    (item,) = read([{query: "Apa?", response: "Itu."}], "query_response")
    assert isinstance(item, Record) and item.messages is not None
    assert [message["content"] for message in item.messages] == [[text("Apa?")], [text("Itu.")]]


def test_texts_stay_as_they_are_written(tmp_path: Path) -> None:
    rows = [{"prompt": "The sky is", "completion": " blue.\n"}]
    convert(rows, tmp_path / "out", format="prompt_completion", validation=0)
    (row,) = load_rows(tmp_path / "out" / "train.jsonl")
    assert [message["content"][0]["text"] for message in row["messages"]] == ["The sky is", " blue.\n"]

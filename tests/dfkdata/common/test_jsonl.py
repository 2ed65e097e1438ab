"""JSONL files survive a kill, and no text stops them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import msgspec
import pytest

from dfkdata.common.errors import DataError
from dfkdata.common.jsonl import JsonlAppender, JsonlWriter, read_finished, rewrite, write_lines


class Line(msgspec.Struct):
    id: str
    n: int = 0


def test_a_half_written_last_line_is_not_read_and_is_cut_off_before_more_is_appended(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"id":"a"}\n{"id":"b"')
    assert [line.id for _, line in read_finished(path, Line, "a line")] == ["a"]
    with JsonlAppender(path) as file:
        file.put(Line("c", 3))
    assert path.read_bytes() == b'{"id":"a"}\n{"id":"c","n":3}\n'


def test_an_appended_line_is_in_the_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with JsonlAppender(path) as file:
        file.put({"id": "a"})
        assert path.read_bytes() == b'{"id":"a"}\n'


def test_a_file_is_made_durable_before_it_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The suite waits for no disk (`tests/conftest.py`); this is where it is seen that a user does."""
    durable: list[bytes] = []
    paths = (tmp_path / "a.jsonl", tmp_path / "b.jsonl")

    def noted(number: int) -> None:
        (path,) = (path for path in paths if path.exists() and os.path.sameopenfile(number, opened[path]))
        durable.append(path.read_bytes())

    monkeypatch.setattr(os, "fsync", noted)
    opened: dict[Path, int] = {}
    with JsonlAppender(paths[0]) as file:
        opened[paths[0]] = os.open(paths[0], os.O_RDONLY)
        file.put({"n": 1})
    writer = JsonlWriter(paths[1])
    opened[paths[1]] = os.open(paths[1], os.O_RDONLY)
    writer.put({"n": 2})
    writer.close()
    for number in opened.values():
        os.close(number)
    assert durable == [b'{"n":1}\n', b'{"n":2}\n']


def test_lone_surrogates_become_question_marks_when_appended_and_when_replaced(tmp_path: Path) -> None:
    with JsonlAppender(tmp_path / "a.jsonl") as file:
        file.put(Line("a\ud800"))
    write_lines(tmp_path / "b.jsonl", [{"x": ["\udc00"]}])
    assert (tmp_path / "a.jsonl").read_bytes() == b'{"id":"a?","n":0}\n'
    assert (tmp_path / "b.jsonl").read_bytes() == b'{"x":["?"]}\n'


def test_a_broken_line_in_the_middle_is_an_error_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"id":"a"}\n{"id":1}\n{"id":"b"}\n')
    with pytest.raises(DataError, match=r"a\.jsonl:2: not a line "):
        list(read_finished(path, Line, "a line"))
    assert list(read_finished(tmp_path / "none.jsonl", Line, "a line")) == []


def test_rewriting_keeps_the_bytes_of_the_lines_that_stay(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"id": "a" }\n{"id":"b"}\n{"n":1, "id":"c"}\n{"id"')
    rewrite(path, Line, "a line", lambda line: line.id != "b")
    assert path.read_bytes() == b'{"id": "a" }\n{"n":1, "id":"c"}\n'


def test_a_writer_hashes_what_is_in_its_file_and_adds_nothing_of_a_row_that_is_no_text(
    tmp_path: Path,
) -> None:
    writer = JsonlWriter(tmp_path / "a.jsonl")
    rows = [{"id": str(n), "text": "x" * 5000} for n in range(100)]
    writer.put_all(rows[:50])
    for row in rows[50:]:
        writer.put(row)
    with pytest.raises(UnicodeEncodeError):
        writer.put({"id": "\ud800"})
    with pytest.raises(UnicodeEncodeError):
        writer.put_all([{"id": "x"}, {"id": "\ud800"}])
    writer.put_line(b"{}\n")
    writer.close()
    data = (tmp_path / "a.jsonl").read_bytes()
    assert msgspec.json.Decoder().decode_lines(data) == [*rows, {}]
    assert writer.facts == {"path": "a.jsonl", "rows": 101, "sha256": hashlib.sha256(data).hexdigest()}

"""Sequences whose values lie in a file behave as lists that cannot be changed, and know the file that they read."""

from __future__ import annotations

import gc
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dfkdata.common import limits, stored_lines
from dfkdata.common.errors import DataError
from dfkdata.common.stored_lines import MadeSequence, StoredById, StoredLines


def write(path: Path, values: list[Any]) -> Path:
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path


def stored(path: Path, **options: Any) -> StoredLines[Any]:
    lines = StoredLines(path, lambda line, number: json.loads(line))
    for _ in lines.scan(**options):
        pass
    return lines


@pytest.fixture
def values() -> list[Any]:
    rng = random.Random(1)
    return [{"id": str(at), "text": "é" * rng.choice((0, 3, 5_000))} for at in range(300)]


def test_it_reads_as_the_list_of_its_lines(tmp_path: Path, values: list[Any]) -> None:
    lines = stored(write(tmp_path / "a.jsonl", values))
    assert lines == values and list(lines) == values and len(lines) == 300 and lines != values[:-1]
    assert [lines[at] for at in (5, 299, 0, -1)] == [values[at] for at in (5, 299, 0, -1)]
    assert lines[7:100:9] == values[7:100:9] and list(reversed(lines)) == values[::-1]
    order = random.Random(2).sample(range(300), 300)
    assert [lines[at] for at in order] == [values[at] for at in order]
    one, other = iter(lines), iter(lines)
    assert [(next(one), next(other)) for _ in range(300)] == list(zip(values, values, strict=True))
    with pytest.raises(IndexError):
        lines[300]


def test_blank_lines_and_a_half_written_end_do_not_count_where_that_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"1\n\n \n2\n3")
    assert (
        stored(path) == [1, 2, 3] and stored(path, finished=True) == [1, 2] and stored(path, limit=1) == [1]
    )
    numbers = [number for number, _ in StoredLines(path, lambda line, number: number).scan()]
    assert numbers == [1, 4, 5]


def test_a_file_that_takes_its_place_is_not_read_and_one_that_is_written_to_is_an_error(
    tmp_path: Path,
) -> None:
    path = write(tmp_path / "a.jsonl", [1, 2])
    lines = stored(path)
    write(tmp_path / "b.jsonl", [7, 8, 9]).replace(path)
    assert lines == [1, 2]
    again = stored(path)
    path.write_text("5\n6\n")
    with pytest.raises(DataError, match=r"a\.jsonl: was changed while it was read"):
        again[0]


def test_a_line_that_is_too_long_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_current", limits.FileLimits(line=20))
    with pytest.raises(DataError, match="longer than 20 bytes"):
        stored(write(tmp_path / "a.jsonl", ["x" * 40]))


def test_the_file_is_closed_with_the_last_sequence_that_reads_it(tmp_path: Path) -> None:
    def opened() -> bool:
        """Whether the file is open: numbers of other tests' files may go meanwhile."""
        return str(tmp_path / "a.jsonl") in [
            os.path.realpath(path) for path in Path("/proc/self/fd").iterdir()
        ]

    lines = stored(write(tmp_path / "a.jsonl", [1, 2, 3]))
    part = lines[1:]
    del lines
    gc.collect()
    assert part == [2, 3] and opened()
    del part
    assert not opened()


def test_an_index_error_of_a_value_is_no_end_of_the_sequence() -> None:
    def make(place: int) -> int:
        raise IndexError(place)

    with pytest.raises(IndexError):
        list(MadeSequence(make, range(3)))


def test_values_by_id_are_those_of_their_places(tmp_path: Path) -> None:
    by_id = StoredById(stored(write(tmp_path / "a.jsonl", ["x", "y"])), {"a": 1, "b": 0})
    assert dict(by_id) == {"a": "y", "b": "x"} == by_id and len(by_id) == 2 and "c" not in by_id
    assert by_id.get("c") is None


def test_line_by_line_reads_in_windows(
    tmp_path: Path, values: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []

    def pread(file: int, size: int, start: int) -> bytes:
        reads.append(size)
        return real(file, size, start)

    real = os.pread
    lines = stored(write(tmp_path / "a.jsonl", values))
    monkeypatch.setattr(stored_lines.os, "pread", pread)
    assert list(_ids(lines)) == [str(at) for at in range(300)]
    assert len(reads) <= 2 + (tmp_path / "a.jsonl").stat().st_size // 200_000
    reads.clear()
    assert [lines[at]["id"] for at in range(290, 0, -10)] and max(reads) < 40_000


def _ids(lines: StoredLines[Any]) -> Iterator[str]:
    return (value["id"] for value in lines)


def test_a_pipe_and_a_folder_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", tmp_path):
        with pytest.raises(OSError, match="no regular file"):
            stored(place)

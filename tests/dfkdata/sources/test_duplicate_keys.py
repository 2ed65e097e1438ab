"""A JSON object that names a key twice is a reject, and the quick way to see it is right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfkdata import convert, sources
from dfkdata.common.errors import DataError
from dfkdata.rows.record import Reject
from dfkdata.sources import _duplicate_keys, _json

TWICE = '{"instruction": "q", "output": "one", "output": "two"}'
FINE = '{"instruction": "q", "output": "a"}'


def found(path: Path, text: str) -> list[str]:
    path.write_text(text, encoding="utf-8")
    (part,) = sources.parts(path)
    return [row.code if isinstance(row, Reject) else "row" for row, _ in sources.rows(part)]


@pytest.mark.parametrize(
    ("name", "text", "codes"),
    [
        ("a.jsonl", f"{FINE}\n{TWICE}\n", ["row", "KEY_TWICE"]),
        ("b.json", f"[{FINE}, {TWICE}, {FINE}]", ["row", "KEY_TWICE", "row"]),
        ("c.json", f'{{"data": [{TWICE}, {FINE}]}}', ["KEY_TWICE", "row"]),
        ("d.jsonl", '{"meta": {"a": 1, "a" : 2}, "b": 3}\n', ["KEY_TWICE"]),
        ("e.jsonl", '{"a":1,"a":2,"t":"\\u0022:"}\n', ["KEY_TWICE"]),
        ("f.jsonl", '{"a": "x \\": y", "b": [{"c": 1}, {"c": 2}]}\n', ["row"]),
    ],
)
def test_a_key_named_twice_is_a_reject(name: str, text: str, codes: list[str], tmp_path: Path) -> None:
    assert found(tmp_path / name, text) == codes


def test_the_whole_row_is_kept_as_text(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(TWICE + "\n")
    convert(tmp_path / "a.jsonl", tmp_path / "out", format="alpaca", keep_empty=True)
    (reject,) = (json.loads(line) for line in (tmp_path / "out/quarantine.jsonl").read_text().splitlines())
    assert (reject["raw"], reject["path"]) == (TWICE, "output")


def test_two_rows_under_one_name_are_an_error_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'a' stands twice"):
        found(tmp_path / "a.json", f'{{"a": {FINE}, "a": {FINE}}}')


PIECES = [
    '{"a":1}',
    '{"a":1,"a":2}',
    '{"a": 1, "b": {"c": 2}}',
    '{"c":',
    "1}",
    "{",
    "}",
    '{"t":"\\": "}',
    "[]",
]
PIECES += ['{"a" :1,"a":2}', '{"t":"\\u0022:","x":1,"x":1}', "", " ", '{"a":1} {"b":2}', '{"raw": 1}', "7"]


@given(st.lists(st.sampled_from(PIECES), max_size=12), st.sampled_from(["\n", "\r\n"]), st.integers(1, 40))
def test_lines_read_in_pieces_are_what_they_are_one_by_one(lines: list[str], end: str, chunk: int) -> None:
    import io

    text = "".join(line + end for line in lines).encode()
    expected = list(_json._one_by_one(text, "x", 0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_duplicate_keys, "_BIG", 0)
        patch.setattr(_json, "_LINES_CHUNK", chunk)
        assert [_bare(one) for one in _json.lines(io.BytesIO(text), "x")] == [_bare(one) for one in expected]


def _bare(one: Any) -> Any:
    row, source = one
    return (row.code, row.raw, source) if isinstance(row, Reject) else (row, source)

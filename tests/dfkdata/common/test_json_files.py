"""JSON files hold plain data only, and are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from dfkdata.common.errors import DataError
from dfkdata.common.json_files import encode, read_json, read_json_or_none, write_json


@pytest.mark.parametrize("floats", ["short", "repr"])
def test_a_value_that_json_cannot_hold_is_no_text_and_leaves_the_file_as_it_was(
    tmp_path: Path, floats: str
) -> None:
    path = tmp_path / "new" / "a.json"
    write_json(path, {"n": 1})
    for value in ({"path": path}, {"object": object()}, {"deep": [{"error": ValueError("x")}]}):
        with pytest.raises(TypeError):
            write_json(path, value, floats=floats)  # type: ignore[arg-type]  # a parameter of the test
    assert read_json(path) == {"n": 1} and [*path.parent.iterdir()] == [path]


def test_floats_are_written_as_the_file_has_always_had_them() -> None:
    assert encode({"rate": 6.25e-6, "loss": float("nan")}) == b'{\n  "rate": 6.25e-6,\n  "loss": null\n}\n'
    assert (
        encode({"rate": 6.25e-6, "é": []}, floats="repr") == '{\n  "rate": 6.25e-06,\n  "é": []\n}\n'.encode()
    )


@pytest.mark.parametrize(
    ("text", "reason"), [(b"{", "not JSON"), (b"[1]", "not a JSON object"), (b"\xff", "not JSON")]
)
def test_a_file_that_holds_no_object_says_so(tmp_path: Path, text: bytes, reason: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text)
    with pytest.raises(DataError, match=reason):
        read_json(path)
    with pytest.raises(DataError, match=reason):
        read_json_or_none(path)


def test_a_missing_file_is_an_error_with_a_hint_or_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be read .*; is it a run directory\?"):
        read_json(tmp_path / "a.json", "is it a run directory?")
    assert read_json_or_none(tmp_path / "a.json") is None

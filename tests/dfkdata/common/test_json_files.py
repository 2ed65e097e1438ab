"""JSON files hold plain data only, and are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from dfkdata.common.errors import DataError
from dfkdata.common.json_files import encode, read_json, read_json_or_none, write_bytes, write_json


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


@pytest.mark.parametrize("shared", [False, True])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    path = tmp_path / "new" / "a.bin"
    write_bytes(path, b"old", shared=shared)
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "no space left")))
    with pytest.raises(OSError, match="no space left"):
        write_bytes(path, b"new", shared=shared)
    assert path.read_bytes() == b"old" and [*path.parent.iterdir()] == [path]


def test_two_writers_of_one_file_do_not_share_the_file_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[Path] = []
    monkeypatch.setattr(
        Path, "replace", lambda part, _: moved.append(part.rename(tmp_path / part.name.upper()))
    )
    for data in (b"one", b"two"):
        write_bytes(tmp_path / "a.bin", data, shared=True)
    assert [part.read_bytes() for part in moved] == [b"one", b"two"]

"""Packed files, long lines and large values stop at their limits, in little memory, and the user can raise them."""

from __future__ import annotations

import gzip
import json
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dfkdata import load_rows, read
from dfkdata.cli.app import main
from dfkdata.common import limits
from dfkdata.common.errors import ConfigError, DataError
from dfkdata.common.limits import FileLimits

MIB = 1 << 20


@pytest.fixture(autouse=True)
def small_limits(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Limits that a test reaches in a moment: 8 MiB unpacked, 20 times the size of what is packed, lines of 1 MiB."""
    monkeypatch.setattr(limits, "_current", FileLimits(unpacked=8 * MIB, ratio=20, line=MIB))
    monkeypatch.setattr(limits, "_ALWAYS", MIB)
    yield


def _line(number: int, padding: int = 0) -> bytes:
    row = {"caption": f"A dog {number}.", "gold": {"subjects": [{"name": "dog"}]}, "more": "x" * padding}
    return json.dumps(row).encode() + b"\n"


def _lines(size: int) -> Iterator[bytes]:
    written = number = 0
    while written < size:
        line = _line(number, 1_000)
        written, number = written + len(line), number + 1
        yield line


def _gzip(path: Path, parts: Iterator[bytes]) -> None:
    with gzip.open(path, "wb") as file:
        file.writelines(parts)


def _zstd(path: Path, parts: Iterator[bytes]) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    with pyarrow.output_stream(str(path), compression="zstd") as file:
        for part in parts:
            file.write(part)


PACKERS: dict[str, Callable[[Path, Iterator[bytes]], None]] = {".gz": _gzip, ".zst": _zstd}


def _peak(action: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _refused(path: Path, match: str, format: str = "captions") -> int:
    """Return the peak of memory until the refusal."""

    def action() -> None:
        with pytest.raises(DataError, match=match) as caught:
            for _ in read(path, format):
                pass
        assert path.name in str(caught.value) and "--allow " in str(caught.value)

    return _peak(action)


def _as_list(parts: Iterator[bytes]) -> Iterator[bytes]:
    yield b"["
    yield from (part.rstrip() + b"," for part in parts)
    yield _line(0).rstrip() + b"]"


def _as_table(parts: Iterator[bytes]) -> Iterator[bytes]:
    yield b"caption,gold\n"
    for number, _ in enumerate(parts):
        yield f"A dog {number}.{' ' * 1000},{{}}\n".encode()


@pytest.mark.parametrize("end", PACKERS)
@pytest.mark.parametrize("kind", [".jsonl", ".json", ".csv"])
def test_a_packed_file_stops_at_its_limit_in_little_memory(kind: str, end: str, tmp_path: Path) -> None:
    path = tmp_path / f"bomb{kind}{end}"
    parts = _lines(10 * MIB)
    PACKERS[end](path, {".jsonl": iter, ".json": _as_list, ".csv": _as_table}[kind](parts))
    assert path.stat().st_size < MIB
    assert _refused(path, "unpacks to more than") < 16 * MIB


def test_a_packed_file_below_its_limit_is_read(tmp_path: Path) -> None:
    for end, pack in PACKERS.items():
        pack(tmp_path / f"rows.jsonl{end}", _lines(MIB // 2))
        assert len([*read(tmp_path / f"rows.jsonl{end}", "captions")]) > 400


def test_a_parquet_file_stops_at_its_limit(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    for name, column in {
        "repeated": ["x" * 1_000] * 40_000,
        "one": ["x" * (30 * MIB)],
        "lists": [["x" * 100] * 10] * 40_000,
    }.items():
        path = tmp_path / f"{name}.parquet"
        parquet.write_table(pyarrow.table({"caption": column}), path, compression="zstd")
        assert path.stat().st_size < MIB / 4
        _refused(path, "unpacks to more than")


def test_an_arrow_file_stops_at_its_limit(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    path, table = tmp_path / "x.arrow", pyarrow.table({"caption": ["x" * 1_000] * 40_000})
    options = pyarrow.ipc.IpcWriteOptions(compression="zstd")
    with pyarrow.ipc.new_stream(str(path), table.schema, options=options) as file:
        file.write_table(table)
    _refused(path, "unpacks to more than")


LONG: dict[str, tuple[str, Callable[[int], bytes], str]] = {
    "a line of JSON": ("rows.jsonl", lambda size: _line(0, size), "a line is longer"),
    "an object": ("rows.json", lambda size: b'{"a": "' + b"x" * size + b'"}', "read whole is longer"),
    "an item of a list": ("rows.json", lambda size: b"[" + _line(0, size) + b"]", "a JSON value is longer"),
    "a cell": ("rows.csv", lambda size: b"caption,gold\n" + b"x" * size + b",{}\n", "a line is longer"),
    "a header": ("rows.csv", lambda size: b"x," * (size // 2) + b"\n1\n", "a line is longer"),
}


@pytest.mark.parametrize("kind", LONG)
def test_a_long_line_or_value_stops_at_its_limit_in_little_memory(kind: str, tmp_path: Path) -> None:
    name, make, match = LONG[kind]
    (path := tmp_path / name).write_bytes(make(32 * MIB))
    assert _refused(path, match) < 20 * MIB


def test_a_quote_that_never_ends_costs_one_line(tmp_path: Path) -> None:
    lines = b"".join(b"A dog %d.,{}\n" % number for number in range(80_000))
    (path := tmp_path / "rows.csv").write_bytes(b'caption,gold\n"' + lines)
    items = [*read(path, "captions")]
    broken = [item for item in items if getattr(item, "code", "") == "CSV_BROKEN"]
    assert len(items) == 80_000 and len(broken) == 1
    assert "--allow line=" in broken[0].reason  # type: ignore[union-attr]


def test_rows_of_a_training_file_have_lines_of_a_limited_length(tmp_path: Path) -> None:
    turn = {"role": "user", "content": "x" * (32 * MIB)}
    (path := tmp_path / "rows.jsonl").write_text(json.dumps({"id": "1", "messages": [turn]}))

    def action() -> None:
        with pytest.raises(DataError, match=r"rows\.jsonl:1: a line is longer than 1048576 bytes"):
            [*load_rows(path)]

    assert _peak(action) < 8 * MIB


def _ended(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["dfkdata", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_the_command_refuses_and_takes_larger_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _gzip(path := tmp_path / "rows.jsonl.gz", _lines(2 * MIB))
    words = ("check", path, "--from", "captions")
    assert _ended(monkeypatch, *words) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert "--allow ratio=" in line and "Traceback" not in line
    assert _ended(monkeypatch, *words, "--allow", "ratio=1000", "--allow", "line=2MB") == 0
    assert limits.current() == FileLimits(unpacked=8 * MIB, ratio=1_000, line=2_000_000)


@pytest.mark.parametrize(
    "text", ["line", "line=", "line=0", "line=-1", "line=1XB", "lines=5", "=5", "line=1e9", "line=inf"]
)
def test_a_limit_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--allow"):
        limits.change([text])


@pytest.mark.parametrize(
    ("text", "size"), [("500MB", 500_000_000), ("2 gib", 2 << 30), ("7", 7), ("1tb", 10**12)]
)
def test_sizes_have_the_usual_units(text: str, size: int) -> None:
    limits.change([f"line={text}"])
    assert limits.current().line == size


def test_the_limits_allow_what_is_usual() -> None:
    usual: Any = FileLimits()
    assert (usual.unpacked, usual.ratio, usual.line) == (64 << 30, 1_000, 256 << 20)

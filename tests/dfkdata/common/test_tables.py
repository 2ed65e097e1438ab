"""Tables keep their columns in order and their numbers whole at every width, and a pipe gets one row a line."""

from __future__ import annotations

import io
import sys

import pytest

from dfkdata.common.tables import TextTable, write_table, write_tables

HEADER = ("metric", "base", "tuned", "difference", "interval", "p (Holm)", "n", "verdict")
ROWS = [
    ("validity.schema_valid", "0.123", "0.456", "+0.333", "[+0.100, +0.500]", "0.001", "1,200", "better"),
    ("labels.accuracy", "0.123", "n/a", "-0.333", "[-0.100, +0.500]", "< 0.001", "12", "no difference shown"),
]


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def drawn(table: TextTable, monkeypatch: pytest.MonkeyPatch, width: int | None) -> list[str]:
    """Return the lines of a table on a terminal of a width; None is a pipe."""
    stream = io.StringIO() if width is None else Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("COLUMNS", str(width or 80))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb" if width is None else "xterm")
    write_table(table)
    return stream.getvalue().replace("\x1b[1m", "").replace("\x1b[0m", "").splitlines()


@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_a_table_fits_the_terminal_and_breaks_no_number(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    lines = drawn(TextTable(HEADER, ROWS, spare=("n", "p (Holm)")), monkeypatch, width)
    text = "\n".join(lines)
    assert all(number in text for row in ROWS for number in row[1:5])
    if width >= 80:
        assert all(len(line.rstrip()) <= width for line in lines)
    told = "left out, for they do not fit: n, p (Holm)" in text
    assert told is ("p (Holm)" not in lines[0]), "a column that is left out is named"
    assert told is (width <= 80)


def test_a_pipe_gets_one_row_a_line_without_lines_and_blanks_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    long = "word " * 60
    lines = drawn(TextTable((*HEADER, "text"), [(*row, long.strip()) for row in ROWS]), monkeypatch, None)
    assert len(lines) == 1 + len(ROWS) and all(line == line.rstrip() for line in lines)
    assert lines[1].endswith(long.strip()) and "─" not in "".join(lines)
    assert [line.index("0.123") for line in lines[1:]] == [lines[1].index("0.123")] * 2


def test_tables_without_rows_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    write_tables([TextTable(("a",), []), TextTable(("b",), [("1",)], "title"), TextTable(("c",), [("2",)])])
    assert capsys.readouterr().out.split() == ["title", "b", "1", "c", "2"]


def test_markdown_escapes_cells() -> None:
    assert TextTable(("a", "b"), [("x|y", "1\n2")]).markdown() == [
        "| a | b |",
        "|---|---|",
        "| x\\|y | 1 2 |",
    ]

"""CSV as offices write it gives the rows of a plain UTF-8 file, or an error that names the option."""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dfkdata import convert, read, sources
from dfkdata.cli import app
from dfkdata.common.errors import ConfigError, DataError
from dfkdata.reports.preview import preview
from tests.helpers.pictures import KINDS
from tests.helpers.rows import rows_of

HEADER = ["instruction", "output", "note"]
ROWS = [["Sapa “dunia”", "Halo, dunia; apa|kabar?", "café"], ["Dua\nbaris", 'kata "kutip"', "\té"]]
ENCODINGS = {
    "utf-8": "utf-8",
    "utf-8-sig": "utf-8",
    "utf-16": "utf-16",
    "utf-16-le": "utf-16-le",
    "utf-16-be": "utf-16-be",
    "utf-32": "utf-32",
    "windows-1252": "windows-1252",
}


def table(rows: list[list[str]], delimiter: str, newline: str = "\r\n") -> str:
    def cell(text: str) -> str:
        return (
            '"' + text.replace('"', '""') + '"' if any(sign in text for sign in f'{delimiter}"\n') else text
        )

    return "".join(delimiter.join(map(cell, row)) + newline for row in rows)


def raw(path: Path, **options: str) -> list[Any]:
    (part,) = sources.parts(path, tables=sources.TableOptions(**options))
    return [row for row, _ in sources.rows(part, (frozenset(HEADER),))]


GRID = list(itertools.product(ENCODINGS, ",;\t|", ("\n", "\r\n"), (False, True)))


@pytest.mark.parametrize(("encoding", "delimiter", "newline", "packed"), GRID)
def test_every_encoding_and_delimiter_gives_the_same_rows(
    encoding: str, delimiter: str, newline: str, packed: bool, tmp_path: Path
) -> None:
    data = table([HEADER, *ROWS], delimiter, newline).encode(encoding)
    path = tmp_path / ("a.csv.gz" if packed else "a.csv")
    path.write_bytes(gzip.compress(data) if packed else data)
    rows = [dict(zip(HEADER, row, strict=True)) for row in ROWS]
    assert raw(path) == rows
    assert raw(path, encoding=encoding, delimiter=delimiter) == rows
    done = convert(path, tmp_path / "out", format="alpaca", validation=0)
    facts = json.loads((tmp_path / "out" / "manifest.json").read_text())["tables"][path.name]
    assert facts == {"encoding": ENCODINGS[encoding], "delimiter": delimiter}
    plain = delimiter == "," and encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32")
    assert list(done.warnings) == ([] if plain else ["CSV_GUESSED"])


@pytest.mark.parametrize("name", ["a.tsv", "a.TSV", "a.tsv.gz"])
def test_a_tsv_file_has_tabs_between_its_cells_whatever_they_hold(name: str, tmp_path: Path) -> None:
    rows = [["instruction", "output"], ["one, two; three", "a|b, c"], ["four", "d"]]
    data = table(rows, "\t").encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    assert [list(row.values()) for row in raw(tmp_path / name)] == rows[1:]
    done = convert(tmp_path / name, tmp_path / "out", format="alpaca", validation=0)
    assert done.warnings == {} and done.splits["train"] == 2
    facts = json.loads((tmp_path / "out/manifest.json").read_text())["tables"][name]
    assert facts == {"encoding": "utf-8", "delimiter": "\t"}


@pytest.mark.parametrize("where", [0, 1_100_000])
def test_windows_signs_anywhere_in_a_large_file_decide_its_encoding(where: int, tmp_path: Path) -> None:
    text = "x" * where + "café"
    (tmp_path / "a.csv").write_bytes(table([HEADER, ["a", text, ""]], ",").encode("windows-1252"))
    assert raw(tmp_path / "a.csv")[0]["output"] == text


def test_damaged_utf8_stays_utf8_and_only_its_rows_are_rejects(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("a,b\né,1\n".encode() + b"\xe9,2\n" + "“,3\n".encode())
    good, bad, last = raw(tmp_path / "a.csv")
    assert (good["a"], last["a"]) == ("é", "“")
    assert bad.code == "BAD_ENCODING" and "--encoding" in bad.hint


def test_the_line_that_names_the_delimiter_is_obeyed(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("sep=;\r\n" + table([HEADER, *ROWS[:1]], ";"), newline="")
    assert raw(tmp_path / "a.csv") == [dict(zip(HEADER, ROWS[0], strict=True))]


def test_the_header_of_the_format_decides_between_delimiters(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("instruction;output;note;a,b,c,d,e\nx;y;z;1,2\n")
    assert raw(tmp_path / "a.csv") == [{"instruction": "x", "output": "y", "note": "z", "a,b,c,d,e": "1,2"}]


def test_blank_rows_and_columns_are_ignored_and_counted(tmp_path: Path) -> None:
    text = ",,,,\ninstruction,output,,note,\nx,y,,z,\n , ,,,\n,,,,\n\nx2,y2,,z2,,,\nx3,y3,,z3\n"
    (tmp_path / "a.csv").write_text(text)
    assert raw(tmp_path / "a.csv") == [
        {"instruction": f"x{n}", "output": f"y{n}", "note": f"z{n}"} for n in ("", 2, 3)
    ]
    done = convert(tmp_path / "a.csv", tmp_path / "out", format="alpaca", validation=0)
    assert done.rows["in"] == done.rows["out"] == 3
    facts = json.loads((tmp_path / "out" / "manifest.json").read_text())["tables"]["a.csv"]
    assert (facts["blank_rows"], facts["unnamed_columns"], facts["blank_cells"]) == (3, 2, 2)


def test_a_cell_without_a_column_is_never_dropped(tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("a,b,\nx,y,lost\n")
    assert raw(tmp_path / "one.csv") == [{"a": "x", "b": "y", "": "lost"}]
    (tmp_path / "two.csv").write_text("a,b,,\nx,y,,lost\nx,y,,\n")
    bad, good = raw(tmp_path / "two.csv")
    assert bad.code == "CSV_LONG" and "column 4" in bad.reason and bad.raw[""] == ["lost"]
    assert good == {"a": "x", "b": "y"}


def test_options_that_cannot_be_meant_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("instruction,output\nx,y\n")
    (tmp_path / "a.jsonl").write_text('{"instruction": "x", "output": "y"}\n')
    for options in ({"delimiter": ";;"}, {"delimiter": '"'}, {"encoding": "klingon"}, {"encoding": "base64"}):
        with pytest.raises(ConfigError, match=f"--{next(iter(options))}"):
            convert(tmp_path / "a.csv", tmp_path / "out", format="alpaca", **options)
    with pytest.raises(ConfigError, match="about CSV files"):
        list(read(tmp_path / "a.jsonl", "alpaca", delimiter=";"))


def test_a_header_that_does_not_fit_names_how_it_was_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("label^image_filename\nfitnah^a.jpg\n")
    with pytest.raises(DataError, match=r"read as utf-8 with ','.*--delimiter"):
        list(read(tmp_path / "a.csv", "dfk_csv"))
    (tmp_path / "b.csv").write_bytes("a,b\n€,2\n".encode("utf-16")[:-1])
    with pytest.raises(DataError, match="--encoding"):
        raw(tmp_path / "b.csv")


def test_the_command_takes_both_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_bytes("instruction^output\ncafé^ya\n".encode("latin-1"))
    how = ["--delimiter", "^", "--encoding", "latin-1", "--from", "alpaca"]
    done = CliRunner().invoke(app.app, ["convert", "a.csv", *how, "--to", "messages", "--out", "out"])
    assert done.exit_code == 0, done.output
    assert rows_of(Path("out"), "train")[0]["messages"][0]["content"][0]["text"] == "café"
    assert "café" in CliRunner().invoke(app.app, ["preview", "a.csv", *how]).output
    assert CliRunner().invoke(app.app, ["check", "a.csv", *how]).exit_code == 0


TITLED = ["image_filename", "analisis_pelanggaran", "label"]
ABOVE: dict[str, list[list[str]]] = {
    "a title": [["Laporan Pelanggaran 2024"]],
    "a wide title": [["Laporan Pelanggaran 2024", "", ""]],
    "a title and a blank row": [["Laporan"], []],
    "facts": [["Dibuat oleh", "Budi"], ["Tanggal", "2024-01-01", "3"]],
    "a title of two lines": [["Laporan\nbulan ini", "", ""]],
}


def _laid_table(kind: str, rows: list[list[str]], sign: str) -> Path:
    if kind == "xlsx":
        import openpyxl

        book = openpyxl.Workbook()
        for number, row in enumerate(rows, start=1):
            for column, value in enumerate(row, start=1):
                book.active.cell(number, column, value)
        book.save("posts.xlsx")
        return Path("posts.xlsx")
    with Path("posts.csv").open("w", newline="", encoding="utf-16" if kind == "utf-16" else "utf-8") as file:
        csv.writer(file, delimiter=sign).writerows(rows)
    return Path("posts.csv")


@pytest.mark.parametrize("kind", ["csv", "utf-16", "xlsx"])
@pytest.mark.parametrize("sign", [",", ";", "\t"])
@pytest.mark.parametrize("above", ABOVE)
@pytest.mark.parametrize("format", ["dfk_csv", "auto"])
def test_a_title_above_the_header_is_told_with_the_option_that_passes_it(
    kind: str, sign: str, above: str, format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "xlsx" and sign != ",":
        return  # a sheet has no delimiter
    monkeypatch.chdir(tmp_path)
    Path("images").mkdir()
    Path("images/0.png").write_bytes(KINDS["png"])
    rows = [*ABOVE[above], TITLED, ["0.png", "Tidak benar.", "fitnah"]]
    table = _laid_table(kind, rows, sign)
    with pytest.raises(DataError, match=r"is no header; line \d+ looks like it .*: --header-row \d+") as told:
        convert(table, "out", format=format, validation=0)
    line = int(re.search(r"--header-row (\d+)", str(told.value))[1])  # type: ignore[index]
    done = convert(table, "out", format=format, validation=0, header_row=line)
    assert done.rows["in"] == done.rows["out"] == 1 and not done.codes
    facts = json.loads(Path("out/manifest.json").read_text())["tables"][table.name]
    assert facts["header_row"] == line
    (shown,) = preview(table, format, header_row=line)
    assert "Tidak benar." in shown


@pytest.mark.parametrize(
    "text",
    [
        "teks\nsatu, dua, tiga\nempat, lima, enam\n",
        "teks\nsatu,dua,tiga\nempat\n",
        "caption\nimage\nsatu\n",
        "a,b\nimg_path,label\n",
    ],
)
def test_rows_below_a_header_are_not_taken_for_one(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(text)
    found = list(sources.rows(sources.parts(tmp_path / "a.csv")[0]))
    assert len(found) == text.count("\n") - 1


def test_a_header_row_that_is_not_there_or_of_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("image_filename,label\n0.png,fitnah\n")
    with pytest.raises(DataError, match="has no row 9 for --header-row"):
        convert(tmp_path / "a.csv", tmp_path / "out", format="dfk_csv", header_row=9)
    (tmp_path / "a.jsonl").write_text("{}\n")
    with pytest.raises(ConfigError, match=r"--header-row is about CSV and \.xlsx files"):
        convert(tmp_path / "a.jsonl", tmp_path / "out", format="alpaca", header_row=2)
    with pytest.raises(ConfigError, match="header_row"):
        convert(tmp_path / "a.csv", tmp_path / "out", format="dfk_csv", header_row=0)

"""Sheets of .xlsx files are read by the rules of CSV; what a sheet can hold beyond CSV is told."""

from __future__ import annotations

import csv
import datetime
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest

from dfkdata import convert, read, sources
from dfkdata.common.errors import ConfigError, DataError
from dfkdata.conversion import detection

openpyxl = pytest.importorskip("openpyxl")


def book(path: Path, *sheets: list[list[Any]], names: tuple[str, ...] = ("Data", "Lain", "Tiga")) -> Path:
    made = openpyxl.Workbook()
    made.remove(made.active)
    for name, rows in zip(names, sheets, strict=False):
        sheet = made.create_sheet(name)
        for row in rows:
            sheet.append(row)
    made.save(path)
    return path


def raw(path: Path, **options: Any) -> list[Any]:
    (part,) = sources.parts(path, tables=sources.TableOptions(**options))
    return [row for row, _ in sources.rows(part)]


HEADER = ["instruction", "output"]


def test_values_are_the_text_that_a_sheet_shows(tmp_path: Path) -> None:
    values: dict[Any, str] = {
        2.0: "2",
        1.5: "1.5",
        0.1 + 0.2: "0.3",
        10**12: "1000000000000",
        False: "FALSE",
        datetime.datetime(2026, 1, 2): "2026-01-02",
        datetime.datetime(2026, 1, 2, 3, 4, 5): "2026-01-02T03:04:05",
        datetime.time(3, 4): "03:04:00",
        "001": "001",
        "NA": "NA",
        " spaced ": " spaced ",
        "two\nlines": "two\nlines",
        "#VALUE!": "#VALUE!",
    }
    values[3] = "3"
    rows = raw(book(tmp_path / "a.xlsx", [["x", "y"], *[[value, "."] for value in values]]))
    assert [row["x"] for row in rows] == [*values.values()]


def test_a_sheet_and_the_same_table_as_csv_give_the_same_rows(tmp_path: Path) -> None:
    cells = [
        ["title", "text", "img_path", "label", "analisis", None, None],
        ["Judul", "Teks; dengan, tanda", "a.png", "fakta", "Aman.", None, None],
        [None] * 7,
        ["kosong", None, "a.png", 3, None, None, ""],
        ["panjang", "x", "a.png", "hoaks", "y", None, "surplus"],
        ["galat", "#VALUE!", "a.png", "netral", "#REF!", None, None],
        ["nol", "\ufffd", "a.png", "netral", "nan", None, None],
    ]
    with (tmp_path / "t.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["" if cell is None else cell for cell in row] for row in cells])
    book(tmp_path / "t.xlsx", cells)
    found = {}
    for kind in ("csv", "xlsx"):
        (tmp_path / "a.png").write_bytes(b"")
        items = list(read(tmp_path / f"t.{kind}", "dfk_csv", images=tmp_path))
        found[kind] = [str(item).replace(f"t.{kind}", "t").partition("excerpt=")[0] for item in items]
    assert found["csv"] == found["xlsx"] and len(found["csv"]) == 5


def test_rejects_name_the_row_of_the_sheet_and_the_manifest_the_sheet(tmp_path: Path) -> None:
    source = book(
        tmp_path / "a.xlsx", [[], ["title"], HEADER, ["a", "b"], [], ["c", None], ["d", "e", None]][2:]
    )
    summary = convert(source, tmp_path / "out", format="auto", validation=0, max_rejects=9)
    assert summary.codes["EMPTY_ANSWER"]["first"]["source"] == "a.xlsx:4"
    manifest = (tmp_path / "out" / "manifest.json").read_text()
    assert '"sheet": "Data"' in manifest and '"blank_rows": 1' in manifest


def test_several_sheets_with_rows_want_a_choice_by_name_or_number(tmp_path: Path) -> None:
    source = book(tmp_path / "a.xlsx", [HEADER, ["a", "b"]], [HEADER, ["c", "d"]], [])
    with pytest.raises(ConfigError, match=r"2 sheets hold rows \('Data', 'Lain'\); name one with --sheet"):
        convert(source, tmp_path / "out", format="alpaca")
    with pytest.raises(ConfigError, match="no sheet 'Empat'; it has 'Data', 'Lain', 'Tiga'"):
        convert(source, tmp_path / "out", format="alpaca", sheet="Empat")
    for sheet in ("Lain", "2"):
        assert raw(source, sheet=sheet) == [{"instruction": "c", "output": "d"}]
    assert detection.detected(source, "auto", tables=sources.TableOptions(sheet="1"))[1].name == "alpaca"


def test_blank_sheets_are_no_choice_and_a_hidden_one_with_rows_is(tmp_path: Path) -> None:
    source = book(tmp_path / "a.xlsx", [], [HEADER, ["a", "b"]], [[None, ""]])
    assert raw(source) == [{"instruction": "a", "output": "b"}]
    made = openpyxl.load_workbook(source)
    made["Data"].append(["something"])
    made["Data"].sheet_state = "hidden"
    made.save(source)
    with pytest.raises(ConfigError, match=r"'Data' \(hidden\), 'Lain'"):
        raw(source)


def test_the_option_is_refused_where_there_is_no_sheet(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("instruction,output\na,b\n")
    with pytest.raises(ConfigError, match="--sheet is about"):
        convert(tmp_path / "a.csv", tmp_path / "out", format="alpaca", sheet="1")
    with pytest.raises(ConfigError, match="are about CSV files"):
        convert(book(tmp_path / "a.xlsx", [HEADER]), tmp_path / "out", format="alpaca", delimiter=";")


def test_a_formula_is_its_value_and_without_one_a_reject(tmp_path: Path) -> None:
    source = book(tmp_path / "a.xlsx", [HEADER, ["a", '="b"&"c"'], ["d", "e"]])
    summary = convert(source, tmp_path / "out", format="alpaca", validation=0, max_rejects=9)
    (code,) = summary.codes
    first = summary.codes[code]["first"]
    assert (code, first["path"], first["excerpt"], first["source"]) == (
        "CELL_NO_VALUE",
        "output",
        '="b"&"c"',
        "a.xlsx:2",
    )
    computed = rewritten(
        source,
        lambda xml: re.sub(
            r'<c r="B2"[^>]*>(<f>.*?</f>)<v ?/?>(</v>)?', r'<c r="B2" t="str">\1<v>bc</v>', xml
        ),
    )
    assert [row["output"] for row in raw(computed)] == ["bc", "e"]


def rewritten(path: Path, change: Any, name: str = "xl/worksheets/sheet1.xml") -> Path:
    """Return a copy of a workbook with one of its files changed."""
    target = path.with_name("changed.xlsx")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.namelist():
            data = old.read(member)
            new.writestr(member, change(data.decode()).encode() if member == name else data)
    return target


def test_cells_merged_downwards_hold_their_value_in_each_row(tmp_path: Path) -> None:
    source = book(
        tmp_path / "a.xlsx", [["label", "text"], ["fakta", "a"], [None, "b"], [None, "c"], [None, "d"]]
    )
    made = openpyxl.load_workbook(source)
    made.active.merge_cells("A2:A4")
    made.save(source)
    (part,) = sources.parts(source)
    rows: list[Any] = [row for row, _ in sources.rows(part)]
    assert [(row["label"], row["text"]) for row in rows] == [
        ("fakta", "a"),
        ("fakta", "b"),
        ("fakta", "c"),
        ("", "d"),
    ]
    assert part.facts["merged_cells"] == 2


def test_a_size_that_the_sheet_claims_costs_nothing(tmp_path: Path) -> None:
    source = rewritten(
        book(tmp_path / "a.xlsx", [HEADER, ["a", "b"]]),
        lambda xml: re.sub(r'<dimension ref="[^"]*"', '<dimension ref="A1:XFD1048576"', xml),
    )
    assert raw(source) == [{"instruction": "a", "output": "b"}]


def test_signs_that_excel_escapes_are_read(tmp_path: Path) -> None:
    source = book(tmp_path / "a.xlsx", [HEADER, ["a", "x_x000D_y_x005F_x000D_"]])
    assert raw(source)[0]["output"] == "x\ry_x000D_"


def test_a_bomb_a_password_and_entities_are_refused_with_a_way_out(tmp_path: Path) -> None:
    bomb = rewritten(book(tmp_path / "a.xlsx", [HEADER]), lambda xml: xml + " " * (8 << 20))
    with pytest.raises(DataError, match="unpacks to more than"):
        raw(bomb)
    entities = '<!DOCTYPE x [<!ENTITY a "aaaa">]>'
    lol = rewritten(book(tmp_path / "a.xlsx", [HEADER]), lambda xml: entities + xml)
    with pytest.raises(DataError, match="declares entities"):
        raw(lol)
    for content in (b"\xd0\xcf\x11\xe0" + b"\0" * 600, b"", b"PK\x03\x04 cut off"):
        (tmp_path / "b.xlsx").write_bytes(content)
        with pytest.raises(DataError, match="without a password"):
            raw(tmp_path / "b.xlsx")
    damaged = rewritten(book(tmp_path / "a.xlsx", [HEADER, ["a", "b"]]), lambda xml: xml[: len(xml) // 2])
    with pytest.raises(DataError, match="not a whole"):
        raw(damaged)


def test_a_column_twice_and_a_wrong_header_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the column 'output' stands twice"):
        raw(book(tmp_path / "a.xlsx", [["output", "output"], ["a", "b"]]))
    with pytest.raises(
        DataError, match=r"read from the sheet 'Data'; --sheet names another one\); it looks like"
    ):
        convert(book(tmp_path / "a.xlsx", [HEADER, ["a", "b"]]), tmp_path / "out", format="dfk_text")


def test_a_strict_open_xml_file_is_named_as_such(tmp_path: Path) -> None:
    source = book(tmp_path / "a.xlsx", [HEADER, ["a", "b"]])
    schemas, strict = "http://schemas.openxmlformats.org/", "http://purl.oclc.org/ooxml/"
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(tmp_path / "b.xlsx", "w") as new:
        for name in old.namelist():
            text = old.read(name).decode()
            text = text.replace(schemas + "spreadsheetml/2006/main", strict + "spreadsheetml/main")
            text = text.replace(
                schemas + "officeDocument/2006/relationships", strict + "officeDocument/relationships"
            )
            new.writestr(name, text)
    with pytest.raises(DataError, match="not Strict Open XML"):
        raw(tmp_path / "b.xlsx")

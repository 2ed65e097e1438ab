"""The contract of every raw format: a new file in `dfkdata/formats` is tested because it exists."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from dfkdata import Record, Reject, convert, formats, load_rows, read, sources
from dfkdata.common import plugins
from dfkdata.common.config import Config
from dfkdata.conversion import reader
from tests.helpers.examples import shown_member
from tests.helpers.golden import GOLDEN, check

FORMATS = plugins.names("dfkdata.formats")
INPUTS = {".csv", ".json", ".jsonl", ".tar"}


def _inputs(name: str) -> list[Path]:
    folder = GOLDEN / "formats" / name
    files = {path for path in folder.glob("*") if path.suffix in INPUTS and path.name.count(".") == 1}
    return sorted(files | {path for path in folder.glob("*") if path.is_dir()})


def _laid(path: Path, folder: Path) -> Path:
    """Lay a golden input into a folder."""
    return Path(
        shutil.copytree(path, folder / path.name) if path.is_dir() else shutil.copy(path, folder / path.name)
    )


CASES = [(name, path) for name in FORMATS for path in _inputs(name)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with the golden pictures, beside which inputs are laid."""
    shutil.copytree(GOLDEN / "formats" / "images", tmp_path / "in" / "images")
    return tmp_path / "in"


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_has_a_golden_input_and_keeps_the_contract(name: str) -> None:
    module = plugins.load("dfkdata.formats", name)
    assert issubclass(module.Options, Config)
    assert module.Options() is not None, "every option has a default"
    assert callable(module.record)
    assert module.__doc__
    assert _inputs(name), f"tests/golden/formats/{name} holds no input"


@pytest.mark.parametrize(("name", "path"), CASES, ids=[f"{name}-{path.stem}" for name, path in CASES])
def test_a_golden_input_gives_the_golden_rows_and_rejects(
    name: str, path: Path, data: Path, tmp_path: Path
) -> None:
    source = _laid(path, data)
    summary = convert(source, tmp_path / "out", format=name, validation=0, max_rejects="100%")
    held_out = [part for part in ("validation", "test") if summary.splits.get(part)]
    for part in ("train", "quarantine", "duplicates", *held_out):
        check((tmp_path / "out" / f"{part}.jsonl").read_bytes(), path.with_suffix(f".{part}.jsonl"))
    rows = summary.rows
    assert rows["in"] == rows["out"] + rows["quarantined"] + rows["duplicates"] + rows["left_out"]
    assert rows["out"] > 0


@pytest.mark.parametrize(("name", "path"), CASES, ids=[f"{name}-{path.stem}" for name, path in CASES])
def test_read_gives_a_record_or_a_reject_with_its_place_for_every_row(
    name: str, path: Path, data: Path, tmp_path: Path
) -> None:
    source = _laid(path, data)
    for item in read(source, name, images=source if path.is_dir() else data, store=tmp_path / "store"):
        assert isinstance(item, Record | Reject)
        if not path.is_dir():
            assert item.source.startswith(f"{path.name}:")
        assert item.source.rpartition(":")[2].isdigit()


def test_the_member_in_the_docstring_reads_rows_and_reports_what_is_missing() -> None:
    member = shown_member(formats)
    row = {"frage": "Was?", "antwort": "Nichts.", "case_id": 7}
    record = member.record(row, "a.csv:2", member.Options(capitals=True))
    assert (record.fields, record.gold, record.group) == ({"question": "WAS?"}, {"answer": "Nichts."}, "7")
    with pytest.raises(formats.RowError, match="frage is missing or empty"):
        member.record({"antwort": "x"}, "a.csv:3", member.Options())


@pytest.mark.parametrize("name", FORMATS)
def test_a_second_conversion_with_the_same_options_finds_nothing_to_do(name: str, tmp_path: Path) -> None:
    how: dict[str, Any] = {"format": name, "validation": 0, "max_rejects": 99}
    (tmp_path / "in.jsonl").write_text("{}\n")
    assert convert(tmp_path / "in.jsonl", tmp_path / "out", **how).fresh
    assert not convert(tmp_path / "in.jsonl", tmp_path / "out", **how).fresh


ODD: list[Any] = [
    5,
    True,
    [],
    {},
    "",
    "x",
    [5],
    [[]],
    [{}],
    {"a": 1},
    [{"role": "user"}],
    [{"role": 5}],
    [{"from": "human"}],
    b"x",
]
KEYS = (
    "messages conversations instruction output prompt completion query response question answer image images caption "
    "gold tools data annotations annotation_id prefix suffix file_name filename input text label id meta img_path "
    "img link frame_path ringkasan analisis _label history system __key__ jpg txt json cls image_id split video audios"
).split()


@pytest.mark.parametrize("name", FORMATS)
def test_a_row_of_odd_values_is_a_record_or_a_reject(name: str, tmp_path: Path) -> None:
    full = {
        "image": "a.png",
        "question": "q",
        "answer": "a",
        "prompt": "p",
        "completion": "c",
        "query": "q",
        "response": "r",
    }
    rows = [{key: value} for key in KEYS for value in ODD]
    rows += [full | {key: value} for key in KEYS for value in ODD]
    found = list(read(rows, name, images=tmp_path, store=tmp_path / "store"))
    assert len(found) == len(rows)


def _first_row(name: str, data: Path, store: Path) -> tuple[dict[str, Any], Path]:
    """Return a raw row of a golden input that gives a record, and where its pictures start."""
    module = plugins.load("dfkdata.formats", name)
    for path in _inputs(name):
        laid = _laid(path, data)
        root = laid if laid.is_dir() else data
        for part in sources.parts(laid, store=store, files=reader.files_of(module)):
            found = reader.pairs(part, module, module.Options(), reader.media_for(part, root, store))
            for raw, item in found:
                if isinstance(item, Record) and isinstance(raw, dict):
                    return dict(raw), root
    raise AssertionError(f"no row of {name} gives a record")


FILES = {"images": "images/dua.jpg", "videos": "klip.mp4", "audios": "suara.wav"}
COLUMNS = {
    "images": ("images", "image", "img_path"),
    "videos": ("videos", "video"),
    "audios": ("audios", "audio"),
}


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("name", FORMATS)
def test_no_column_of_files_is_lost_without_a_word(
    name: str, kind: str, nested: bool, data: Path, tmp_path: Path
) -> None:
    raw, root = _first_row(name, data, tmp_path / "store")
    holder = raw["data"] if nested and isinstance(raw.get("data"), dict) else raw
    if nested and holder is raw:
        return  # its rows are flat
    for file in FILES.values():
        if not (root / file).exists():
            (root / file).parent.mkdir(exist_ok=True)
            (root / file).write_bytes(b"bytes of a film or a sound")
    for column in COLUMNS[kind]:
        if column in holder:
            continue
        added = {column: [FILES[kind]]}
        row = raw | ({"data": holder | added} if nested else added)
        out = tmp_path / column
        done = convert([row], out, format=name, images=root, validation=0, keep_empty=True)
        files = [file for one in load_rows(out / "train.jsonl") for file in one.get(kind) or ()]
        shown = [file for file in files if Path(file).name in FILES[kind]]
        told = [*done.codes, *(code for code in done.warnings if code == "MEDIA_UNREAD")]
        assert shown or told, (name, column)
        if "MEDIA_UNREAD" in done.warnings:
            reason = done.warnings["MEDIA_UNREAD"]["first"]["reason"]
            assert any(repr(one) in reason for one in COLUMNS[kind]), "that column, or the one that it hides"


@pytest.mark.parametrize("name", FORMATS)
def test_a_column_that_nothing_reads_is_told(name: str, data: Path, tmp_path: Path) -> None:
    raw, root = _first_row(name, data, tmp_path / "store")
    done = convert([raw | {"catatan": "x y"}], tmp_path / "out", format=name, images=root, validation=0)
    if done.rows["out"]:  # label_studio and roboflow read every column as an answer, and reject this one
        assert "catatan" in done.unread
        assert "catatan" in json.loads((tmp_path / "out/manifest.json").read_text())["columns_unread"]
        options: dict[str, Any] = {"group_by": "catatan", "validation": 0, "images": root}
        done = convert([raw | {"catatan": "x y"}], tmp_path / "used", format=name, **options)
        assert "catatan" not in done.unread
    else:
        assert "catatan" in str(done.codes)

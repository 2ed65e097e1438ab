"""Where rows come from: every kind of file gives the same rows, and nothing unsafe is unpacked."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dfkdata import Record, convert, read, sources
from dfkdata.common.errors import ConfigError, DataError
from dfkdata.sources import _json, _json_window
from tests.helpers.pictures import KINDS
from tests.helpers.rows import caption, rows_of, write

ROWS = [caption(n, note="001", nothing=None, deep={"a": [1, 2.5, True]}) for n in range(5)]


def raw(path: Any) -> list[Any]:
    return [row for part in sources.parts(path) for row, _ in sources.rows(part)]


def jsonl(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parquet(rows: list[Any], path: Path) -> Path:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def zstd(data: bytes) -> bytes:
    import pyarrow

    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as out:
        out.write(data)
    return bytes(sink.getvalue())


WRITERS: dict[str, Callable[[Path], Path | int]] = {
    "a.jsonl": lambda path: path.write_bytes(jsonl(ROWS)),
    "bom.jsonl": lambda path: path.write_bytes(b"\xef\xbb\xbf" + jsonl(ROWS)),
    "a.jsonl.gz": lambda path: path.write_bytes(gzip.compress(jsonl(ROWS))),
    "a.jsonl.zst": lambda path: path.write_bytes(zstd(jsonl(ROWS))),
    "list.json": lambda path: path.write_text(json.dumps(ROWS, indent=2)),
    "bom.json": lambda path: path.write_bytes(b"\xef\xbb\xbf\n " + json.dumps(ROWS).encode()),
    "wrapped.json": lambda path: path.write_text(json.dumps({"records": ROWS})),
    "lines.json": lambda path: path.write_bytes(jsonl(ROWS)),
    "list.json.gz": lambda path: path.write_bytes(gzip.compress(json.dumps(ROWS).encode())),
    "a.parquet": lambda path: parquet(ROWS, path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file_gives_the_same_rows(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name)
    assert raw(tmp_path / name) == ROWS
    assert raw(str(tmp_path)) == ROWS, "a folder"
    assert raw(tmp_path / "*") == ROWS, "a pattern"


def test_rows_in_memory_are_rows() -> None:
    assert raw(ROWS) == ROWS
    assert raw(iter(ROWS)) == ROWS


def test_a_datasets_dataset_with_pictures_is_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    from PIL import Image

    features = datasets.Features(
        {
            "question": datasets.Value("string"),
            "image_id": datasets.Image(),
            "answer": datasets.Value("string"),
        }
    )
    picture = Image.open(io.BytesIO(KINDS["png"]))
    found = datasets.Dataset.from_list(
        [{"question": "q", "image_id": picture, "answer": "a"}], features=features
    )
    summary = convert(found, tmp_path / "out", format="vqa", validation=0)
    assert summary.rows["out"] == 1
    (row,) = rows_of(tmp_path / "out", "train")
    with Image.open(tmp_path / "out" / row["images"][0]) as image:
        assert image.size == (60, 40)


def test_csv_strings_are_never_coerced(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('x,y\n001,NA\n"a\nb",\n1e5,null\n')
    rows = [{"x": "001", "y": "NA"}, {"x": "a\nb", "y": ""}, {"x": "1e5", "y": "null"}]
    assert raw(tmp_path / "a.csv") == rows


def test_csv_sources_name_the_line_on_which_a_row_begins(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('x,y\n"a\nb",1\n\nc,2\n')
    (part,) = sources.parts(tmp_path / "a.csv")
    assert [source for _, source in sources.rows(part)] == ["a.csv:2", "a.csv:5"]


def test_json_list_sources_name_the_line_on_which_a_row_begins(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[\n {"a": 1},\n\n {"b":\n 2}, {"c": 3}\n]')
    (part,) = sources.parts(tmp_path / "a.json")
    assert [source for _, source in sources.rows(part)] == ["a.json:2", "a.json:4", "a.json:5"]


def test_a_field_of_any_size_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x\n" + "a" * 300_000 + "\n")
    assert len(raw(tmp_path / "a.csv")[0]["x"]) == 300_000


def test_bytes_that_are_no_text_are_one_reject(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"x,y\ngood,1\nb\xffd,2\ngood,3\n")
    found = raw(tmp_path / "a.csv")
    assert [type(row).__name__ for row in found] == ["dict", "Reject", "dict"]
    assert found[1].code == "BAD_ENCODING"


@pytest.mark.parametrize("text", ["[{}, {", '[{"a": 1} {"b": 2}]', "[1, 2", '{"a": ', ""])
def test_a_json_document_that_breaks_off_is_an_error_with_its_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=r"a\.json"):
        raw(tmp_path / "a.json")


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.parquet", "a.zip", "a.tar"])
def test_a_broken_packed_file_is_an_error(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(
        gzip.compress(jsonl(ROWS) * 99)[:60] if name.endswith("gz") else b"PK\x03\x04 not"
    )
    with pytest.raises(DataError, match=name):
        convert(tmp_path / name, tmp_path / "out", format="captions")


def packed(name: str, members: dict[str, bytes], path: Path) -> Path:
    if name == "zip":
        with zipfile.ZipFile(path / "data.zip", "w") as archive:
            for member, data in members.items():
                archive.writestr(member, data)
        return path / "data.zip"
    with tarfile.open(path / "data.tar.gz", "w:gz") as tar:
        for member, data in members.items():
            info = tarfile.TarInfo(member)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path / "data.tar.gz"


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_of_rows_and_images_is_converted(kind: str, tmp_path: Path) -> None:
    members = {"d/rows.jsonl": jsonl([caption(1, image="d/a.png")]), "d/a.png": KINDS["png"]}
    out = tmp_path / "out"
    assert convert(packed(kind, members, tmp_path), out, format="captions", validation=0).rows["out"] == 1
    (row,) = rows_of(out, "train")
    assert (out / row["images"][0]).read_bytes() == KINDS["png"]


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("name", ["../evil.jsonl", "/etc/evil.jsonl", "a/../../evil.jsonl"])
def test_an_archive_never_writes_outside_its_folder(kind: str, name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="outside"):
        convert(packed(kind, {name: jsonl(ROWS)}, tmp_path), tmp_path / "out", format="captions")
    assert not list(tmp_path.rglob("evil.jsonl"))


WRAPPED = [
    '{"version": 2.5, "data": [{"a": 1}, {"a": "é"}, 7, {"a": 1, "a": 2}], "z": [1]}',
    '{"items": [], "records": [{"a": 1}], "meta": {"data": [{"a": 9}]}}',
    '{"data": [], "version": 1}',
    '{"x": {"a": 1}, "y": {"a": 2}}',
    '{"data": "text", "a": 1}',
    '{"a": 1}\n{"a": 2, "data": [1]}\n',
    '{"data": [{"a": 1}], "examples": [{"a": 2}]}',
    '{"data": [{"a": 1}], "data": [{"a": 2}]}',
    '{"data": [{"a": 1}]} and more',
    '{"data": [{"a": 1}, {"a"',
    '{"data": [{"a": 1}], 5: 1}',
    '{"x":{}}\n',
    '{"data": [{"a": 1}], "z": 2.5, "w": 1e-2}',
    '{"data": [{"a": NaN}, {"a": "\\ud800"}, {"a": 1}], "z": NaN}',
    '{"a": NaN, "data": [1]}\n\n{"a": 2}',
    '{"data": [{"a": NaN}], "items": [1]}',
]


@pytest.mark.parametrize("text", WRAPPED)
def test_a_large_object_is_read_piece_by_piece_as_a_small_one_is_whole(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(whole: int) -> list[Any]:
        monkeypatch.setattr(_json, "_WHOLE", whole)
        try:
            found = list(_json.document(io.BytesIO(text.encode()), "a.json"))
        except DataError as error:
            return [str(error)[:6]]
        return [(row if isinstance(row, dict) else row.code, source) for row, source in found]

    small = read(1 << 20)
    for chunk in (*range(1, 40), 1 << 20):
        monkeypatch.setattr(_json_window, "_CHUNK", chunk)
        assert read(10) == small


@pytest.mark.parametrize("first", ['{"a": "x", "data": [1]}', '{"data": [{"a": "x"}], "n": NaN}'])
@pytest.mark.parametrize("blank", ["", "\n \n"])
def test_json_lines_with_a_long_first_line_that_holds_a_list_are_lines(
    first: str, blank: str, tmp_path: Path
) -> None:
    long = first.replace("x", "x" * (5 << 19))
    (tmp_path / "a.json").write_text(long + "\n" + blank + '{"a": 2}\n{"a": 3}\n')
    one, *others = raw(tmp_path / "a.json")
    assert others == [{"a": 2}, {"a": 3}]
    assert one.code == "BAD_JSON" if "NaN" in first else one == json.loads(long)


def test_a_long_line_that_is_the_whole_document_is_no_line(tmp_path: Path) -> None:
    rows = [{"a": "x" * (5 << 19)}, {"a": 1}]
    for end in ("", "\n", "\n\n"):
        (tmp_path / "a.json").write_text(json.dumps({"data": rows}) + end)
        assert raw(tmp_path / "a.json") == rows


def test_rows_in_two_lists_are_an_error_and_none_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"data": [{"a": 1}], "examples": [{"a": 2}]}')
    (part,) = sources.parts(tmp_path / "a.json")
    with pytest.raises(DataError, match="rows under 'data' and under 'examples'; put them into one list"):
        list(sources.rows(part))


@pytest.mark.parametrize("name", ["list.json.zst", "wrapped.json.zst"])
def test_packed_json_that_cannot_be_read_twice_is_read(name: str, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    rows = [{"a": 1}, {"a": 2}]
    with pyarrow.output_stream(str(tmp_path / name), compression="zstd") as file:
        file.write(json.dumps(rows if name[0] == "l" else {"data": rows}).encode())
    (part,) = sources.parts(tmp_path / name)
    assert [row for row, _ in sources.rows(part)] == rows


def test_two_archives_of_one_name_are_unpacked_apart(tmp_path: Path) -> None:
    for folder, numbers in (("a", range(5)), ("b", range(5, 8))):
        (tmp_path / folder).mkdir()
        with zipfile.ZipFile(tmp_path / folder / "data.zip", "w") as archive:
            archive.writestr("rows.jsonl", jsonl([caption(number) for number in numbers]))
    done = convert(
        tmp_path / "a/data.zip", tmp_path / "out", format="captions", validation_file=tmp_path / "b/data.zip"
    )
    assert done.rows["in"] == 8 and done.splits == {"train": 5, "validation": 3}


def test_an_archive_that_holds_a_name_twice_is_an_error(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "data.tar", "w") as tar:
        for name, number in (("rows.jsonl", 1), ("./rows.jsonl", 2)):
            info = tarfile.TarInfo(name)
            data = jsonl([caption(number)])
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    with pytest.raises(DataError, match=r"holds './rows\.jsonl' twice"):
        convert(tmp_path / "data.tar", tmp_path / "out", format="captions")


def test_links_in_a_tar_are_not_followed(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "data.tar", "w") as tar:
        link = tarfile.TarInfo("a.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        data = jsonl([caption(1, image="a.png")])
        info = tarfile.TarInfo("rows.jsonl")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    summary = convert(tmp_path / "data.tar", tmp_path / "out", format="captions")
    assert summary.codes["IMG_MISSING"]["count"] == 1


def test_an_archive_that_unpacks_to_far_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("rows.jsonl", b"0" * (64 << 20))
    with pytest.raises(DataError, match="unpacks to more"):
        convert(tmp_path / "bomb.zip", tmp_path / "out", format="captions")


def test_an_input_that_is_not_there_is_named() -> None:
    for given in ("nowhere.jsonl", "nowhere/*.jsonl", Path("nowhere")):
        with pytest.raises(ConfigError, match="no such file"):
            sources.parts(given)


def test_read_takes_embedded_images_with_a_store(tmp_path: Path) -> None:
    rows = [{"question": "q", "image": {"bytes": KINDS["png"], "path": None}, "answer": "a"}]
    (item,) = read(rows, "vqa", store=tmp_path / "store")
    assert isinstance(item, Record)
    assert Path(item.images[0]).read_bytes() == KINDS["png"]
    (refused,) = read(rows, "vqa")
    assert refused.code == "IMG_EMBEDDED"  # type: ignore[union-attr]  # it is a reject


def test_parquet_with_embedded_images_is_converted(tmp_path: Path) -> None:
    rows = [
        {"question": f"q{n}", "image": {"bytes": KINDS["png"], "path": "x.png"}, "answer": "a"}
        for n in range(3)
    ]
    path = parquet(rows, write(tmp_path / "d" / "x", []).with_name("a.parquet"))
    (tmp_path / "d" / "x").unlink()
    summary = convert(path, tmp_path / "out", format="vqa", validation=0)
    assert summary.rows["out"] == 3
    assert len(list((tmp_path / "out" / "media").iterdir())) == 1, "one picture, one file"


def test_a_folder_is_read_without_what_conversions_left_in_it(tmp_path: Path) -> None:
    data = tmp_path / "data"
    source = write(data / "a.jsonl", [caption(1), "broken"])
    convert(source, data / "out", format="captions", validation=0)
    assert raw(data)[0] == caption(1)
    assert len(raw(data)) == 2
    assert len(raw(data / "out")) == 1, "the rows of a conversion, without its quarantine"


def test_the_scaffold_of_a_task_file_is_its_system_text_and_tools(tmp_path: Path) -> None:
    from dfkdata import schemas
    from dfkdata.formats.task_1 import scaffold
    from tests.helpers.golden import GOLDEN

    loaded = schemas.load("caption")
    assert scaffold(GOLDEN / "formats" / "task_1" / "input.jsonl") == (loaded.prompt.system, loaded.tools)
    with pytest.raises(DataError, match=r"no system turn with tools|ends without"):
        scaffold(write(tmp_path / "a.jsonl", [{"messages": [{"role": "user", "content": "x"}]}]))


def test_a_scaffold_of_a_row_that_cannot_be_read_says_what_is_wrong(tmp_path: Path) -> None:
    from dfkdata.formats.task_1 import scaffold
    from tests.helpers.golden import GOLDEN

    (tmp_path / "a.jsonl").write_text('{"messages": [\n')
    with pytest.raises(DataError, match=r"a\.jsonl:1: the line is not JSON"):
        scaffold(tmp_path / "a.jsonl")
    row = raw(GOLDEN / "formats" / "task_1" / "input.jsonl")[0]
    parts = [{"type": "text", "text": "look"}, {"type": "image", "image": "a.png"}]
    row["messages"][0] = {"role": "system", "content": parts}
    with pytest.raises(DataError, match=r"b\.jsonl:1: the system turn holds a picture"):
        scaffold(write(tmp_path / "b.jsonl", [row]))


@pytest.mark.parametrize("how", ["memory", "list.json", "lines.jsonl"])
def test_half_a_surrogate_pair_is_one_reject(how: str, tmp_path: Path) -> None:
    rows = [caption(1), caption(2) | {"caption": "half \ud800 pair"}, caption(3)]
    source: Any = rows
    if how != "memory":
        source = tmp_path / how
        text = json.dumps(rows) if how == "list.json" else "\n".join(json.dumps(row) for row in rows)
        source.write_text(text)
    summary = convert(source, tmp_path / "out", format="captions", validation=0)
    assert (summary.rows["out"], summary.rows["quarantined"]) == (2, 1)
    assert set(summary.codes) <= {"BAD_ENCODING", "BAD_JSON"}


def test_a_row_of_bytes_and_odd_values_in_memory_is_never_lost(tmp_path: Path) -> None:
    rows = [
        caption(1),
        {"caption": b"bytes"},
        {"caption": 2.5},
        {"caption": None},
        7,
        None,
        "text",
        {"x": {1, 2}},
    ]
    summary = convert(rows, tmp_path / "out", format="captions", validation=0)
    assert summary.rows["in"] == len(rows) == summary.rows["out"] + summary.rows["quarantined"]


@pytest.mark.parametrize("packed", [False, True])
def test_what_other_programs_leave_beside_the_data_is_no_data(packed: bool, tmp_path: Path) -> None:
    write(tmp_path / "in" / "rows.jsonl", ROWS)
    for name in ("__MACOSX/._rows.jsonl", "._rows.jsonl", "~$rows.xlsx", ".cache/old.csv"):
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"\0\5\x16\7")
    source = tmp_path / "in"
    if packed:
        source = tmp_path / "in.zip"
        with zipfile.ZipFile(source, "w") as archive:
            for path in sorted(one for one in (tmp_path / "in").rglob("*") if one.is_file()):
                archive.write(path, path.relative_to(tmp_path / "in").as_posix())
    assert [part.name for part in sources.parts(source, store=tmp_path / "store")] == ["rows.jsonl"]


@pytest.mark.parametrize("prefix", ["", "data/"])
def test_images_of_an_archive_may_start_in_the_one_folder_that_holds_everything(
    prefix: str, tmp_path: Path
) -> None:
    row = {"question": "q", "answer": "a", "image": f"{prefix}images/a.png"}
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        archive.writestr("data/rows.jsonl", json.dumps(row) + "\n")
        archive.writestr("data/images/a.png", KINDS["png"])
        archive.writestr("__MACOSX/data/._rows.jsonl", b"\0")
    summary = convert(tmp_path / "in.zip", tmp_path / "out", format="vqa", validation=0)
    assert summary.rows["out"] == 1, summary.codes
    (written,) = rows_of(tmp_path / "out", "train")
    assert (tmp_path / "out" / written["images"][0]).read_bytes() == KINDS["png"]

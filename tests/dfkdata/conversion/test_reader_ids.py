"""An id that no source gives tells what a row holds: the same data anywhere has the same ids, and other pictures
under the same name have others."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dfkdata import Record, convert, read
from dfkdata.common import hashing
from dfkdata.validation.overlap import RowFile, RowIndex
from tests.helpers.pictures import KINDS
from tests.helpers.rows import rows_of

POST = {"link": "https://x.id/1", "label": "fitnah", "analisis": "Karena."}
CLAIM = {"ringkasan": "R", "klaim": "K", "fakta": "F"}
ASKED = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Apa ini?"}]}
TURNS = [ASKED, {"role": "assistant", "content": "Garis."}]
TAGGED = [{"role": "user", "content": "<image>Apa ini?"}, TURNS[1]]

ROWS: dict[str, Callable[[str], dict[str, Any]]] = {
    "alpaca": lambda name: {"instruction": "Apa ini?", "output": "Garis.", "images": [name]},
    "captions": lambda name: {"caption": "Garis.", "gold": GOLD, "image": name},
    "coco_captions": lambda name: {"caption": "Garis.", "image_id": 7, "file_name": name},
    "dfk_captioning": lambda name: {"frame_path": name, "ringkasan": "R", "link": "https://x.id/1"},
    "dfk_csv": lambda name: {"title": "J", "text": "I", "img_path": name} | POST,
    "dfk_csv_v2": lambda name: {"img": name} | POST | CLAIM,
    "dfk_frames": lambda name: {"frame_path": name} | POST | CLAIM,
    "label_studio": lambda name: {"data": {"image": name}, "annotations": [{"result": [CHOICE]}]},
    "llava": lambda name: {
        "image": name,
        "conversations": [{"from": "human", "value": "<image>\nApa?"}, {"from": "gpt", "value": "Garis."}],
    },
    "messages": lambda name: {"messages": TURNS, "images": [name]},
    "prompt_completion": lambda name: {"prompt": [ASKED], "completion": TURNS[1:], "images": [name]},
    "query_response": lambda name: {"query": "<image>Apa ini?", "response": "Garis.", "images": [name]},
    "roboflow": lambda name: {"image": name, "prefix": "Apa ini?", "suffix": "Garis."},
    "sharegpt": lambda name: {
        "conversations": [{"from": "human", "value": "<image>Apa?"}, {"from": "gpt", "value": "Garis."}],
        "images": [name],
    },
    "swift": lambda name: {"messages": TAGGED, "images": [name]},
    "vqa": lambda name: {"question": "Apa ini?", "image": name, "answer": "Garis."},
}
GOLD = {"subjects": [{"name": "line", "attributes": []}], "actions": [], "setting": "indoor"}
CHOICE = {"from_name": "jenis", "to_name": "image", "type": "choices", "value": {"choices": ["fitnah"]}}

CASES = {
    "other bytes": ("x.png", "png", "x.png", "gif"),
    "a copy": ("x.png", "png", "x.png", "png"),
    "a copy under another name": ("x.png", "png", "y.png", "png"),
}


def lay(folder: Path, name: str, kind: str, row: dict[str, Any], file: str = "rows.jsonl") -> Path:
    folder.mkdir(parents=True)
    (folder / name).write_bytes(KINDS[kind])
    (folder / file).write_text(json.dumps(row) + "\n")
    return folder / file


def ids(source: Path, format: str, **how: Any) -> list[str]:
    items = list(read(source, format, **how))
    assert items and all(isinstance(item, Record) for item in items), items
    return [item.id for item in items if isinstance(item, Record)]


def check_splits(folder: Path, case: str) -> None:
    """Files of other bytes make two rows; a copy leaves training, so that no id stands on both sides."""
    train, held = ([row["id"] for row in rows_of(folder, split)] for split in ("train", "validation"))
    assert len(held) == 1 and len(train) == (case == "other bytes")
    assert not {*train} & {*held}
    with RowIndex([RowFile(str(folder / f"{split}.jsonl")) for split in ("train", "validation")]) as index:
        assert "ids" not in index.compare([1], [0]).counts


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("format", ROWS)
def test_files_of_two_folders(
    format: str, case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name, kind, other, other_kind = CASES[case]
    one = lay(Path("a"), name, kind, ROWS[format](name))
    two = lay(Path("b"), other, other_kind, ROWS[format](other))
    (first,), (second,) = ids(one, format), ids(two, format)
    assert len(first) == 16 and (first == second) == (case != "other bytes")
    convert(one, "out", format=format, validation_file=str(two))
    check_splits(Path("out"), case)
    shutil.copytree("a", "deep/er/c")
    assert ids(tmp_path / "deep/er/c/rows.jsonl", format) == [first]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("format", ["roboflow", "imagefolder"])
def test_splits_of_one_folder(format: str, case: str, tmp_path: Path) -> None:
    name, kind, other, other_kind = CASES[case]
    for split, named, of_kind in (("train", name, kind), ("valid", other, other_kind)):
        if format == "imagefolder":
            lay(tmp_path / "in" / split / "garis", named, of_kind, {}, "LICENSE")
        else:
            table = lay(tmp_path / "in" / split, named, of_kind, {}, "_classes.csv")
            table.write_text(f"filename,garis,bulat\n{named},1,0\n")
    first, second = ids(tmp_path / "in", format)
    assert (first == second) == (case != "other bytes")
    convert(tmp_path / "in", tmp_path / "out", format=format)
    check_splits(tmp_path / "out", case)


def test_a_picture_in_the_row_has_the_id_of_the_file(tmp_path: Path) -> None:
    from dfkdata.common import data_uri

    one = lay(tmp_path / "a", "x.png", "png", ROWS["vqa"]("x.png"))
    two = lay(tmp_path / "b", "x.png", "png", ROWS["vqa"](data_uri.encode(KINDS["png"], "image/png")))
    assert ids(one, "vqa") == ids(two, "vqa", store=tmp_path / "store")


@pytest.mark.parametrize("kind", ["videos", "audios"])
@pytest.mark.parametrize("format", ["messages", "vqa"])
def test_videos_and_audio_are_told_by_what_they_hold(format: str, kind: str, tmp_path: Path) -> None:
    part = {"type": kind.removesuffix("s")}
    rows = {
        "vqa": {"question": "Apa?", "answer": "Ya.", kind: ["x.bin"]},
        "messages": {"messages": [{"role": "user", "content": [part]}, TURNS[1]], kind: ["x.bin"]},
    }
    for folder, data in (("a", b"film"), ("b", b"FILM"), ("c", b"film")):
        lay(tmp_path / folder, "y.png", "png", rows[format])
        (tmp_path / folder / "x.bin").write_bytes(data)
    records = [next(iter(read(tmp_path / name / "rows.jsonl", format))) for name in "abc"]
    a, b, c = (record for record in records if isinstance(record, Record))
    assert a.id == c.id != b.id and a.group == c.group != b.group
    convert(
        tmp_path / "a/rows.jsonl",
        tmp_path / "out",
        format=format,
        validation_file=str(tmp_path / "b/rows.jsonl"),
    )
    check_splits(tmp_path / "out", "other bytes")
    convert(
        tmp_path / "a/rows.jsonl",
        tmp_path / "same",
        format=format,
        validation_file=str(tmp_path / "c/rows.jsonl"),
    )
    check_splits(tmp_path / "same", "a copy")


def test_rows_of_one_picture_with_other_answers_have_other_ids(tmp_path: Path) -> None:
    lay(tmp_path / "a", "x.png", "png", {})
    for format, row in ROWS.items():
        one = json.dumps(row("x.png"))
        two = one.replace("Garis.", "Titik.").replace("fitnah", "netral").replace('"R"', '"S"')
        assert one != two
        (tmp_path / "a/rows.jsonl").write_text(f"{one}\n{two}\n")
        assert len({*ids(tmp_path / "a/rows.jsonl", format)}) == 2, format


def test_texts_with_other_answers_have_other_ids() -> None:
    choices = [CHOICE | {"value": {"choices": [label]}} for label in ("fitnah", "netral")]
    rows = [{"data": {"text": "Banjir."}, "annotations": [{"result": [choice]}]} for choice in choices]
    names = [item.id for item in read(rows, "label_studio") if isinstance(item, Record)]
    assert len({*names}) == 2 and all(len(name) == 16 for name in names)


def test_a_large_file_is_told_by_its_size_and_by_pieces_from_start_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashing, "WHOLE_BYTES", 640)  # 64 pieces of 10 bytes
    data, path = bytes(6400), tmp_path / "film"
    digests = []
    for change in (None, 0, 6399, 20, "longer"):
        changed = bytearray(data + b"\0" * (change == "longer"))
        if isinstance(change, int):
            changed[change] = 1
        path.write_bytes(changed)
        digests.append(hashing.sampled_sha256(path))
    assert digests[3] == digests[0], "between the pieces nothing is read"
    assert len({*digests}) == 4

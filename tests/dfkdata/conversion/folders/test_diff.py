"""What `diff_folders` says about two conversions: rows by id, labels, splits, pictures and settings."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from dfkdata import convert, diff_folders
from dfkdata.common import media_roots
from dfkdata.common.errors import ConfigError, DataError
from dfkdata.conversion.folders.diff import facts
from dfkdata.rows.huggingface import write_parquet
from tests.helpers.pictures import KINDS, picture
from tests.helpers.rows import rows_of, write


def chat(number: int, answer: str = "Yes.", **more: Any) -> dict[str, Any]:
    return {"id": f"r{number}", "instruction": f"Is this post number {number}?", "output": answer, **more}


def post(number: int, label: str) -> dict[str, Any]:
    turns = [
        {"role": "user", "content": f"Post number {number}"},
        {"role": "assistant", "content": f"Label: {label}\n\nAnalisis: So it is."},
    ]
    return {"id": f"p{number}", "messages": turns}


def alpaca(folder: Path, rows: list[dict[str, Any]], **options: Any) -> Path:
    options = {"format": "alpaca", "validation": 0} | options
    convert(rows, folder, **options)
    return folder


def shows(folder: Path, data: bytes, place: str, **options: Any) -> Path:
    """A conversion of one row that shows a picture which lies at `place`."""
    path = folder / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    turns = [{"role": "user", "content": [{"type": "image"}]}, {"role": "assistant", "content": "A cat."}]
    source = write(folder / "in.jsonl", [{"id": "1", "messages": turns, "images": [place]}])
    convert(source, folder / "out", format="messages", validation=0, **options)
    return folder / "out"


def test_rows_are_told_as_added_removed_changed_and_moved(tmp_path: Path) -> None:
    rows = [chat(number) | {"split": "train"} for number in range(6)]
    first = alpaca(tmp_path / "a", rows, split_column="split")
    changed = [
        *rows[:2],
        rows[3] | {"output": "No."},
        rows[4] | {"split": "dev"},
        rows[5],
        chat(9, split="test"),
    ]
    second = alpaca(tmp_path / "b", changed, split_column="split")
    found = diff_folders(first, second)
    assert (found.added, found.removed, found.changed, found.moved, found.same) == (1, 1, 1, 1, 3)
    assert found.moves == {("train", "validation"): 1}
    assert found.aspects == {"answer": 1}
    assert found.rows == {"train": (6, 4), "validation": (0, 1), "test": (0, 1)}
    changed_row, moved = found.examples["changed"][0], found.examples["moved"][0]
    assert (changed_row.id, changed_row.first, changed_row.second) == ("r3", "train.jsonl:4", "train.jsonl:3")
    assert (changed_row.before, changed_row.after) == ("Yes.", "No.")
    assert (moved.id, moved.first, moved.second) == ("r4", "train.jsonl:5", "validation.jsonl:1")
    assert [found.examples[kind][0].id for kind in ("added", "removed")] == ["r9", "r2"]
    assert not found.is_equal
    assert json.loads(json.dumps(facts(found)))["moved"]["moves"] == [
        {"from": "train", "to": "validation", "rows": 1}
    ]


def test_a_folder_equals_itself_and_the_line_of_the_raw_file_does_not_count(tmp_path: Path) -> None:
    rows = [chat(number) for number in range(5)]
    first = alpaca(tmp_path / "a", rows)
    assert diff_folders(first, first).is_equal
    turned = alpaca(tmp_path / "b", rows[::-1])
    assert (first / "train.jsonl").read_bytes() != (turned / "train.jsonl").read_bytes()
    assert diff_folders(first, turned).is_equal


def test_labels_stand_side_by_side_and_each_change_is_counted(tmp_path: Path) -> None:
    folders = []
    for name, changed in (("a", ()), ("b", (1, 3))):
        labels = ["netral" if at in changed or not at % 2 else "fitnah" for at in range(6)]
        posts = [post(at, label) for at, label in enumerate(labels)]
        convert(posts, tmp_path / name, format="messages", schema="dfk_label", validation=0)
        folders.append(tmp_path / name)
    found = diff_folders(*folders)
    (field,) = found.labels
    assert {label: counts["train"] for label, counts in found.labels[field].items()} == {
        "fitnah": (3, 1),
        "netral": (3, 5),
    }
    assert found.label_changes == {(field, "fitnah", "netral"): 2}
    assert found.aspects["labels"] == 2
    assert found.examples["changed"][0].before == "fitnah"


def test_settings_and_rules_that_differ_are_told_though_all_rows_are_the_same(tmp_path: Path) -> None:
    rows = [chat(number) for number in range(3)]
    first = alpaca(tmp_path / "a", rows, seed=1)
    second = alpaca(tmp_path / "b", rows, seed=2, rules={"TEXT_NFC": "off"}, options={"join": "newline"})
    found = diff_folders(first, second)
    assert found.settings == (
        ("option join", "ftv", "newline"),
        ("rule TEXT_NFC", None, "off"),
        ("seed", 1, 2),
    )
    assert (found.same, found.is_equal) == (3, False)


def test_pictures_count_by_their_bytes_wherever_they_lie(tmp_path: Path) -> None:
    linked = shows(tmp_path / "a", KINDS["png"], "x/cat.png")
    copied = shows(tmp_path / "b", KINDS["png"], "other.png", materialize="copy")
    embedded = shows(tmp_path / "c", KINDS["png"], "other.png", materialize="embed")
    repainted = shows(tmp_path / "d", picture("PNG", (30, 30)), "x/cat.png")
    for other in (copied, embedded):
        assert diff_folders(linked, other).aspects == {}
    assert diff_folders(linked, repainted).aspects["media"] == 1


def test_a_picture_that_is_gone_is_a_difference(tmp_path: Path) -> None:
    folder = shows(tmp_path / "a", KINDS["png"], "cat.png")
    (tmp_path / "a" / "cat.png").unlink()
    found = diff_folders(folder, folder)
    assert (found.missing, found.is_equal) == ((1, 1), False)
    assert any("cat.png" in note for note in found.notes)


def test_a_foreign_folder_opens_no_file_outside_itself(tmp_path: Path) -> None:
    folder = shows(tmp_path / "a", KINDS["png"], "cat.png")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (tmp_path / "secret.png").write_bytes(KINDS["png"])
    for file in folder.iterdir():
        text = file.read_text().replace("../cat.png", "../secret.png")
        (foreign / file.name).write_text(text.replace('"media_folders"', '"x": 1, "media_folders"'))
    with pytest.raises(DataError, match=r"train\.jsonl:1: `images`: .*--media-root"):
        diff_folders(folder, foreign)
    known = media_roots.allowed()
    media_roots.allow([tmp_path])
    try:
        assert diff_folders(folder, foreign).aspects == {}
    finally:
        media_roots._allowed[:] = known


@pytest.mark.parametrize("layout", ["swift", "sharegpt", "openai", "prompt_completion"])
def test_every_layout_is_compared_with_itself_and_with_messages(tmp_path: Path, layout: str) -> None:
    rows = [chat(number) for number in range(4)]
    plain = alpaca(tmp_path / "m", rows)
    first = alpaca(tmp_path / "a", rows, to=layout)
    second = alpaca(tmp_path / "b", [rows[0] | {"output": "No."}, *rows[1:3], chat(7)], to=layout)
    assert diff_folders(first, first).is_equal
    found = diff_folders(first, second)
    assert (found.changed, found.added, found.removed, found.same) == (1, 1, 1, 2)
    across = diff_folders(plain, first)
    assert (across.same, [name for name, _, _ in across.settings]) == (4, ["to"])
    (first / "manifest.json").unlink()  # the rows show the layout
    assert diff_folders(first, second).changed == 1


def test_packed_files_and_parquet_are_compared_like_plain_ones(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    rows = [chat(number) for number in range(4)]
    first = alpaca(tmp_path / "a", rows)
    packed, table = tmp_path / "train.jsonl.gz", tmp_path / "train.parquet"
    packed.write_bytes(gzip.compress((first / "train.jsonl").read_bytes()))
    write_parquet(first / "train.jsonl", table)
    for file in (packed, table):
        found = diff_folders(first, file)
        assert (found.same, found.is_equal, found.rows) == (4, True, {"rows": (4, 4)})


def test_of_two_files_of_a_split_the_manifests_is_read(tmp_path: Path) -> None:
    first = alpaca(tmp_path / "a", [chat(1)])
    write(first / "train.parquet", [])
    assert diff_folders(first, first).is_equal
    (first / "manifest.json").unlink()
    with pytest.raises(ConfigError, match=r"train\.jsonl and train\.parquet are both its train"):
        diff_folders(first, first)


def test_ids_that_stand_twice_in_a_folder_are_named(tmp_path: Path) -> None:
    rows = rows_of(alpaca(tmp_path / "a", [chat(number) for number in range(3)]), "train")
    twice = write(tmp_path / "twice.jsonl", [*rows, rows[1]])
    found = diff_folders(tmp_path / "a" / "train.jsonl", twice)
    assert (found.twice, found.added, found.same) == ((0, 1), 1, 3)
    example = found.examples["twice in the second"][0]
    assert (example.id, example.second) == ("r1", "twice.jsonl:4")


def test_a_row_without_an_id_is_refused_with_its_place(tmp_path: Path) -> None:
    rows = rows_of(alpaca(tmp_path / "a", [chat(number) for number in range(3)]), "train")
    del rows[2]["id"]
    bare = write(tmp_path / "bare.jsonl", rows)
    with pytest.raises(DataError, match=r"bare\.jsonl:3: the row has no id"):
        diff_folders(tmp_path / "a", bare)


@pytest.mark.parametrize(
    "manifest",
    ["[]", "{", '{"config": 1, "outputs": []}', "[" * 100_000, '{"outputs": [{"path": 3}]}', "\x00"],
)
def test_a_manifest_of_somebody_else_is_no_manifest(tmp_path: Path, manifest: str) -> None:
    first = alpaca(tmp_path / "a", [chat(number) for number in range(3)])
    second = alpaca(tmp_path / "b", [chat(number) for number in range(3)])
    (second / "manifest.json").write_text(manifest)
    found = diff_folders(first, second)
    assert found.is_equal
    assert any("is not a manifest of dfkdata" in note for note in found.notes)
    (second / "manifest.json").unlink()
    os.mkfifo(second / "manifest.json")  # nobody writes to it
    assert diff_folders(first, second).is_equal


def test_folders_that_hold_nothing_to_compare_are_refused(tmp_path: Path) -> None:
    first = alpaca(tmp_path / "a", [chat(1)])
    stopped, empty, odd = (tmp_path / name for name in ("stopped", "empty", "odd"))
    for folder in (stopped / ".partial", empty):
        folder.mkdir(parents=True)
    write(stopped / "train.jsonl", [])
    write(odd / "train.jsonl", [{"foo": 1}])
    cases = {
        stopped: "a conversion was stopped here",
        empty: "it holds none of train.jsonl",
        odd: "of none of the layouts",
        tmp_path / "gone": "no such folder or file",
    }
    for folder, message in cases.items():
        with pytest.raises(ConfigError, match=message):
            diff_folders(first, folder)
    (first / "train.jsonl").unlink()
    write(first / "test.jsonl", [])
    with pytest.raises(DataError, match=r"lists 'train\.jsonl', which is gone"):
        diff_folders(first, first)

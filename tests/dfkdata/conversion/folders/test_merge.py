"""Merging converted folders: copies, conflicts, overlap, media, manifests, and merges of merges."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from dfkdata import MergeSummary, convert, diff_folders, load_rows, merge_folders
from dfkdata.common.errors import ConfigError, DataError
from dfkdata.common.hashing import file_sha256
from dfkdata.common.jsonl import JsonlWriter
from dfkdata.reports.dataset_card import write_card
from tests.helpers.pictures import KINDS, picture
from tests.helpers.rows import rows_of, write

TOPICS = (
    "the flood in the old harbour town and what the mayor said about it",
    "a new bridge over the river that nobody wanted to pay for at first",
    "how much rice costs on the market this month compared with last year",
    "whether the school opens again after the long holidays in the north",
    "the ferry that did not sail because of the storm on Sunday evening",
)


def row(name: str, split: str, topic: int, answer: str = "Yes.", group: str | None = None) -> dict[str, Any]:
    turns = [
        {"role": "user", "content": f"{TOPICS[topic]}?"},
        {"role": "assistant", "content": answer},
    ]
    return {"id": name, "messages": turns, "split": split, "meta": {"group": group or name}}


def folder(path: Path, rows: list[dict[str, Any]], **options: Any) -> Path:
    convert(rows, path, **({"format": "messages", "split_column": "split"} | options))
    return path


def manifest_of(path: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((path / "manifest.json").read_text())
    return manifest


def contents(path: Path) -> dict[str, Any]:
    """All files of a folder, with its manifest less what was merged."""
    files: dict[str, Any] = {
        file.name: file.read_bytes() for file in sorted(path.iterdir()) if file.is_file()
    }
    manifest = manifest_of(path)
    del manifest["parents"]
    return files | {"manifest.json": manifest}


def drawn(draw: random.Random) -> list[dict[str, Any]]:
    """Rows of few ids, questions, answers and groups, so that copies, conflicts and overlaps are many."""
    rows = [
        row(
            f"r{draw.randrange(24)}", draw.choice(["train", "train", "train", "validation", "test"]),
            draw.randrange(len(TOPICS)), draw.choice(["Yes.", "No."]), f"g{draw.randrange(9)}",
        )
        for _ in range(draw.randrange(2, 14))
    ]  # fmt: skip
    return list({one["id"]: one for one in rows}.values())


@pytest.mark.parametrize("seed", range(8))
def test_a_merge_of_merges_is_one_merge_of_all(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    draw = random.Random(seed)
    a, b, c = (folder(Path(name), drawn(draw), seed=draw.randrange(2)) for name in "abc")
    settled: dict[str, Any] = {"on_conflict": "first", "on_overlap": "drop-train"}
    whole = merge_folders([a, b, c], "whole", **settled)
    merge_folders([a, b], "ab", **settled)
    merge_folders([b, c], "deep/bc", **settled)
    merge_folders(["ab", c], "left")  # the policies are those of the merge
    merge_folders([a, "deep/bc"], "right", **settled)
    assert contents(Path("left")) == contents(Path("whole"))
    assert contents(Path("right")) == contents(Path("whole"))
    check_promises([a, b, c], Path("whole"), whole)


def check_promises(parents: list[Path], merged: Path, summary: MergeSummary) -> None:
    """Check what a merge promises, on the rows themselves."""
    splits = {split: rows_of(merged, split) for split in summary.splits}
    kept = [one for rows in splits.values() for one in rows]
    lines = merged / "left_out.jsonl"
    left_out = [json.loads(line) for line in lines.read_text().splitlines()] if lines.exists() else []
    given = [
        one for parent in parents for split in ("train", "validation", "test") if (parent / f"{split}.jsonl").exists()
        for one in rows_of(parent, split)
    ]  # fmt: skip
    assert sorted(map(json.dumps, [*kept, *(one["row"] for one in left_out)])) == sorted(
        map(json.dumps, given)
    )
    assert len({one["id"] for one in kept}) == len(kept)
    assert len({json.dumps(one["messages"]) for one in kept}) == len(kept)
    held = [one for split in ("validation", "test") for one in splits.get(split, [])]
    shared = {one["meta"]["group"] for one in held} & {one["meta"]["group"] for one in splits["train"]}
    assert shared == set()
    rows = summary.rows
    assert rows["in"] == rows["out"] + rows["quarantined"] + rows["duplicates"] + rows["left_out"]
    assert rows["out"] == len(kept)
    assert sum(summary.left_out.values()) == len(left_out)


def test_copies_are_left_out_and_counted_and_rows_keep_their_bytes(tmp_path: Path) -> None:
    first = folder(tmp_path / "a", [row("r1", "train", 0), row("r2", "train", 1)])
    second = folder(tmp_path / "b", [row("r2", "train", 1), row("r3", "train", 2)])
    summary = merge_folders([first, second], tmp_path / "out")
    assert (summary.rows["out"], summary.left_out, summary.splits["train"]) == (3, {"copy": 1}, 3)
    lines = [
        *(first / "train.jsonl").read_bytes().splitlines(),
        (second / "train.jsonl").read_bytes().splitlines()[1],
    ]
    assert (tmp_path / "out" / "train.jsonl").read_bytes().splitlines() == lines
    (left_out,) = rows_of(tmp_path / "out", "left_out")
    assert (left_out["reason"], left_out["row"]["id"]) == ("copy", "r2")
    again = merge_folders([first, second], tmp_path / "out")
    assert (again.fresh, again.rows) == (False, summary.rows)


def test_rows_of_one_id_that_differ_are_refused_or_the_first_stays(tmp_path: Path) -> None:
    first = folder(tmp_path / "a", [row("r1", "train", 0)])
    second = folder(tmp_path / "b", [row("r1", "train", 0, "No."), row("r2", "train", 1)])
    said = r"b/train\.jsonl:1: the id 'r1' is that of .*a/train\.jsonl:1.*--on-conflict first"
    with pytest.raises(DataError, match=said):
        merge_folders([first, second], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    summary = merge_folders([first, second], tmp_path / "out", on_conflict="first")
    assert summary.left_out == {"conflict": 1}
    assert [one["id"] for one in rows_of(tmp_path / "out", "train")] == ["r1", "r2"]
    assert rows_of(tmp_path / "out", "train")[0]["messages"][-1]["content"][0]["text"] == "Yes."


@pytest.mark.parametrize(
    ("held", "reason"),
    [
        (row("r1", "validation", 0), "copy"),
        (row("r9", "validation", 1, group="r1"), "groups"),
        (row("x1", "validation", 0, "No."), "prompts"),
    ],
)
def test_training_rows_that_another_folder_holds_out_are_refused_or_left_out(
    tmp_path: Path, held: dict[str, Any], reason: str
) -> None:
    first = folder(tmp_path / "a", [row("r1", "train", 0), row("r2", "train", 2)])
    second = folder(tmp_path / "b", [held, row("r5", "train", 3)])
    with pytest.raises(DataError, match="--on-overlap drop-train"):
        merge_folders([first, second], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    summary = merge_folders([first, second], tmp_path / "out", on_overlap="drop-train")
    assert summary.left_out == {reason: 1}
    assert [one["id"] for one in rows_of(tmp_path / "out", "train")] == ["r2", "r5"]
    assert [one["id"] for one in rows_of(tmp_path / "out", "validation")] == [held["id"]]
    (left_out,) = rows_of(tmp_path / "out", "left_out")
    assert left_out["like"] == ("validation" if reason == "copy" else "validation.jsonl:1")


def test_what_one_merge_left_out_does_not_come_back_by_another_policy(tmp_path: Path) -> None:
    first = folder(tmp_path / "a", [row("r1", "train", 0)])
    second = folder(tmp_path / "b", [row("r9", "validation", 1, group="r1"), row("r2", "train", 2)])
    third = folder(tmp_path / "c", [row("r7", "train", 4)])
    merge_folders([first, second], tmp_path / "ab", on_overlap="drop-train")
    with pytest.raises(ConfigError, match="was merged with --on-overlap drop-train"):
        merge_folders([tmp_path / "ab", third], tmp_path / "out", on_overlap="error")
    summary = merge_folders([tmp_path / "ab", third], tmp_path / "out")
    assert (summary.on_conflict, summary.on_overlap) == ("error", "drop-train")
    assert [one["id"] for one in rows_of(tmp_path / "out", "train")] == ["r2", "r7"]


@pytest.mark.parametrize("line", ['{"reason": "copy"}', "[]", "not JSON", '{"split": "dev"}'])
def test_rows_that_no_merge_left_out_are_refused(tmp_path: Path, line: str) -> None:
    first = folder(tmp_path / "a", [row("r1", "train", 0)])
    second = folder(tmp_path / "b", [row("r2", "train", 1)])
    if line.startswith('{"split"'):
        line = json.dumps({"reason": "", "like": "", "split": "dev", "before": 0, "row": {}})
    write(second / "left_out.jsonl", [line])
    digest = file_sha256(second / "left_out.jsonl")
    manifest = manifest_of(second)
    manifest["outputs"].append({"path": "left_out.jsonl", "sha256": digest, "rows": 1})
    (second / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=r"left_out\.jsonl:1: not a row that a merge left out"):
        merge_folders([first, second], tmp_path / "out")


def test_settings_that_say_what_a_row_is_have_to_agree(tmp_path: Path) -> None:
    first = folder(tmp_path / "a", [row("r1", "train", 0)])
    rules = folder(tmp_path / "b", [row("r2", "train", 1)], rules={"TEXT_NFC": "off"})
    seed = folder(tmp_path / "c", [row("r3", "train", 2)], seed=7)
    other = folder(tmp_path / "d", [row("r4", "train", 3)], to="swift")
    said = r"b: not converted as .*a was: rule TEXT_NFC is not given there and off here.*--accept rule"
    with pytest.raises(ConfigError, match=said):
        merge_folders([first, rules], tmp_path / "out")
    assert merge_folders([first, rules], tmp_path / "rules", accept=["rule"]).rows["out"] == 2
    assert "rules" not in manifest_of(tmp_path / "rules")["config"]
    assert merge_folders([first, seed], tmp_path / "seeds").rows["out"] == 2
    write_card(tmp_path / "seeds", tmp_path / "card.html")  # without a seed that both have
    for accept, message in ((["to"], "one folder holds one layout"), ([], "to is messages there and swift here"),
                            (["colour"], "no option of dfkdata convert")):  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            merge_folders([first, other], tmp_path / "out", accept=accept)


@pytest.mark.parametrize("layout", ["swift", "sharegpt", "openai", "prompt_completion"])
def test_every_layout_is_merged(tmp_path: Path, layout: str) -> None:
    first = folder(tmp_path / "a", [row("r1", "train", 0), row("r2", "train", 1)], to=layout)
    second = folder(tmp_path / "b", [row("r2", "train", 1), row("r3", "train", 2)], to=layout)
    summary = merge_folders([first, second], tmp_path / "out")
    assert (summary.rows["out"], summary.left_out) == (3, {"copy": 1})
    assert (tmp_path / "out" / "dataset_info.json").exists() == (layout == "sharegpt")
    assert diff_folders(first, tmp_path / "out").removed == 0


def pictured(path: Path, name: str, data: bytes, **options: Any) -> Path:
    """A conversion, in `path`/out, of one row that shows a picture beside it."""
    path.mkdir(parents=True)
    (path / f"{name}.png").write_bytes(data)
    turns = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]},
        {"role": "assistant", "content": f"A {name}."},
    ]
    source = write(path / "in.jsonl", [{"id": name, "messages": turns, "images": [f"{name}.png"]}])
    convert(source, path / "out", **({"format": "messages", "validation": 0} | options))
    return path / "out"


@pytest.mark.parametrize("layout", ["messages", "swift", "openai"])
@pytest.mark.parametrize("materialize", ["link", "copy"])
def test_every_picture_opens_from_the_new_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str, materialize: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    first = pictured(Path("x/a"), "cat", KINDS["png"], to=layout)
    second = pictured(Path("b"), "dog", picture("PNG", (20, 30)), to=layout, materialize="copy")
    merge_folders([first, second], "deep/er/out", materialize=materialize)
    named = []
    for one in rows_of(Path("deep/er/out"), "train"):
        parts = [part for turn in one["messages"] for part in turn["content"] if isinstance(part, dict)]
        named += one.get("images") or [part["image_url"]["url"] for part in parts if "image_url" in part]
    assert [(Path("deep/er/out") / name).is_file() for name in named] == [True, True]
    assert all(name.startswith("media/") for name in named) == (materialize == "copy")
    assert manifest_of(Path("deep/er/out"))["images"]["count"] == 2
    if layout == "messages":  # as training and evaluation read it
        images = [one["images"][0] for one in load_rows("deep/er/out/train.jsonl")]
        assert [Path(image).is_file() for image in images] == [True, True]
    found = diff_folders(first, "deep/er/out")
    assert (found.same, found.missing) == (1, (0, 0))


def test_pictures_are_named_alike_by_a_merge_of_merges_and_by_one_merge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    a = pictured(Path("a"), "cat", KINDS["png"])
    b = pictured(Path("b"), "dog", picture("PNG", (20, 30)), materialize="copy")
    c = pictured(Path("c"), "cow", picture("PNG", (20, 30)), materialize="embed")
    merge_folders([a, b, c], "whole")
    merge_folders([a, b], "deep/ab", paths="absolute")
    merge_folders(["deep/ab", c], "left")
    assert contents(Path("left")) == contents(Path("whole"))
    assert len({one["images"][0] for one in rows_of(Path("left"), "train")}) == 3


def test_a_picture_of_one_name_and_other_bytes_is_another_picture(tmp_path: Path) -> None:
    first = pictured(tmp_path / "a", "cat", KINDS["png"])
    second = pictured(tmp_path / "b", "cat", picture("PNG", (20, 30)))
    with pytest.raises(DataError, match="the id 'cat' is that of"):
        merge_folders([first, second], tmp_path / "out")


def test_a_picture_that_is_gone_or_of_somebody_else_is_refused_with_its_row(tmp_path: Path) -> None:
    first = pictured(tmp_path / "a", "cat", KINDS["png"])
    second = pictured(tmp_path / "b", "dog", picture("PNG", (20, 30)))
    foreign = tmp_path / "b" / "out"
    text = (foreign / "manifest.json").read_text()
    (foreign / "manifest.json").write_text(
        text.replace('"seed": 42', '"seed": 41')
    )  # not as our dfk wrote it
    with pytest.raises(DataError, match=r"train\.jsonl:1: IMG_OUTSIDE.*--media-root"):
        merge_folders([first, second], tmp_path / "out")
    (foreign / "manifest.json").write_text(text)
    (tmp_path / "b" / "dog.png").unlink()
    with pytest.raises(DataError, match=r"train\.jsonl:1: IMG_MISSING.*dog\.png"):
        merge_folders([first, second], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_counts_rejects_warnings_and_labels_are_put_together(tmp_path: Path) -> None:
    def labelled(name: str, split: str, topic: int, label: str) -> dict[str, Any]:
        return row(name, split, topic, f"Label: {label}\n\nAnalisis: So it is.", "same")

    parents = []
    for at, name in enumerate("ab"):
        rows = [
            labelled(f"{name}1", "train", 2 * at, "netral"), labelled(f"{name}2", "test", 2 * at + 1, "fitnah"),
            {"id": f"{name}3", "messages": [], "split": "train"}, row(f"{name}1", "train", 4),
        ]  # fmt: skip
        rows = [one | {"meta": {"group": f"{name}-post"}} for one in rows]
        parents.append(folder(tmp_path / name, rows, schema="dfk_label", rules={"GROUP_ACROSS": "warn"}))
    merge_folders(parents, tmp_path / "out")
    merged, alone = manifest_of(tmp_path / "out"), [manifest_of(parent) for parent in parents]
    for key in ("in", "out", "quarantined", "duplicates", "left_out"):
        assert merged["rows"][key] == sum(one["rows"][key] for one in alone)
    assert {code: facts["count"] for code, facts in merged["codes"].items()} == {
        code: sum(one["codes"][code]["count"] for one in alone) for code in alone[0]["codes"]
    }
    assert merged["labels"]["label"]["train"] == {"netral": 2}
    assert merged["labels"]["label"]["test"] == {"fitnah": 2}
    assert len(rows_of(tmp_path / "out", "quarantine")) == merged["rows"]["quarantined"] > 0
    places = [
        (one["row"], one["partner_row"])
        for one in rows_of(tmp_path / "out", "warnings")
        if one["code"] == "GROUP_ACROSS"
    ]
    assert places == [("test.jsonl:1", "train.jsonl:1"), ("test.jsonl:2", "train.jsonl:2")]
    assert [one["path"] for one in merged["parents"]] == ["../a", "../b"]


def test_folders_that_cannot_be_merged_are_refused_by_name(tmp_path: Path) -> None:
    first = folder(tmp_path / "a", [row("r1", "train", 0)])
    second = folder(tmp_path / "b", [row("r2", "train", 1)])
    bare, odd = tmp_path / "bare", tmp_path / "odd"
    bare.mkdir()
    odd.mkdir()
    (odd / "manifest.json").write_text('{"name": "extension", "outputs": [{"path": "../x", "sha256": ""}]}')
    cases: list[tuple[list[Path], str]] = [
        ([first], "two folders or more"),
        ([first, tmp_path / "b" / ".." / "a"], "is named twice"),
        ([first, bare], "no finished conversion"),
        ([first, odd], "not a manifest of dfkdata convert"),
    ]
    for folders, message in cases:
        with pytest.raises((ConfigError, DataError), match=message):
            merge_folders(folders, tmp_path / "out")
    with pytest.raises(ConfigError, match="is one of the folders"):
        merge_folders([first, second], first)
    write(tmp_path / "mine" / "train.jsonl", [])
    with pytest.raises(ConfigError, match="not written by a conversion"):
        merge_folders([first, second], tmp_path / "mine")
    manifest = manifest_of(second)
    for path in ("../a/train.jsonl", os.fspath(first / "train.jsonl")):
        hostile = manifest | {"outputs": [{"path": path, "sha256": "0"}]}
        (second / "manifest.json").write_text(json.dumps(hostile))
        with pytest.raises(DataError, match="which is no file beside it"):
            merge_folders([first, second], tmp_path / "out")
    (second / "manifest.json").write_text(json.dumps(manifest))
    (second / "warnings.jsonl").unlink()
    os.mkfifo(second / "warnings.jsonl")
    with pytest.raises(DataError, match=r"warnings\.jsonl: cannot be read"):
        merge_folders([first, second], tmp_path / "out")
    (second / "warnings.jsonl").unlink()
    (second / "warnings.jsonl").touch()
    with (second / "train.jsonl").open("a") as file:
        file.write("{}\n")
    with pytest.raises(DataError, match=r"train\.jsonl: was changed after its manifest"):
        merge_folders([first, second], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_merge_that_yields_nothing_leaves_no_folder(tmp_path: Path) -> None:
    rows = [{"id": "r", "messages": []}]
    empty = [folder(tmp_path / name, rows, split_column=None, keep_empty=True) for name in "ab"]
    summary = merge_folders(empty, tmp_path / "out")
    assert summary.rows == {"in": 2, "out": 0, "quarantined": 2, "duplicates": 0, "left_out": 0}
    assert not (tmp_path / "out").exists()


def test_a_merge_that_breaks_off_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parents = [folder(tmp_path / name, [row(f"{name}1", "train", at)]) for at, name in enumerate("abc")]
    merge_folders(parents[:2], tmp_path / "out")
    before = contents(tmp_path / "out")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space"):
        patched.setattr(JsonlWriter, "put_line", full)
        merge_folders(parents, tmp_path / "out", overwrite=True)
    assert contents(tmp_path / "out") == before
    with pytest.raises(ConfigError, match="holds another conversion or merge"):
        merge_folders(parents, tmp_path / "out")
    assert merge_folders(parents, tmp_path / "out", overwrite=True).rows["out"] == 3

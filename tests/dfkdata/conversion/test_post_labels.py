"""Every row of a post with two labels is told or taken out, whatever the order, the number and the splits of rows."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dfkdata import convert
from dfkdata.common.errors import ConfigError
from dfkdata.conversion import post_labels
from dfkdata.conversion.post_labels import PostKeys, PostLabels
from tests.helpers.pictures import KINDS
from tests.helpers.rows import rows_of

SPLITS = ("train", "validation", "test")


def claim(post: int, label: str, number: int, split: str = "train") -> dict[str, Any]:
    output = f"Label: **{label}.** penjelasan: sebab {number}"
    return {"input": f"klaim nomor {post}", "output": output, "_label": label, "split": split}


def expected(rows: list[dict[str, Any]]) -> set[str]:
    """Return the places of rows whose claim has another row with another label."""
    labels: dict[str, set[str]] = {}
    for row in rows:
        labels.setdefault(row["input"], set()).add(row["_label"])
    return {f"memory:{at}" for at, row in enumerate(rows, start=1) if len(labels[row["input"]]) > 1}


def warned(folder: Path) -> list[dict[str, Any]]:
    return [line for line in rows_of(folder, "warnings") if line["code"] == "TWO_LABELS"]


def written(folder: Path) -> set[str]:
    files = [split for split in SPLITS if (folder / f"{split}.jsonl").exists()]
    return {row["meta"]["source"] for split in files for row in rows_of(folder, split)}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("divided", [False, True])
@pytest.mark.parametrize(
    "counts", [(1, 1), (1, 12), (12, 1), (3, 2, 1)], ids=lambda counts: "+".join(map(str, counts))
)
def test_every_row_is_told_or_taken_out(
    counts: tuple[int, ...], divided: bool, seed: int, tmp_path: Path
) -> None:
    pick = random.Random(seed)
    names = ("Fitnah", "Netral", "Ujaran Kebencian")
    labels = [name for name, count in zip(names, counts, strict=False) for _ in range(count)]
    rows = [claim(1, label, n) for n, label in enumerate(labels)]
    rows += [claim(post, "Fitnah", n) for post in (2, 3) for n in range(2)]
    pick.shuffle(rows)
    if divided:
        rows = [row | {"split": pick.choice(SPLITS)} for row in rows]
    how: dict[str, Any] = {"format": "dfk_text", "split_column": "split" if divided else None}
    told = convert(rows, tmp_path / "warn", validation=0, **how)
    lines, places = warned(tmp_path / "warn"), expected(rows)
    assert {line["source"] for line in lines} == places
    assert told.warnings["TWO_LABELS"]["count"] == len(lines) == len(labels)
    for line in lines:
        row, partner = (rows[int(line[key].partition(":")[2]) - 1] for key in ("source", "partner"))
        assert row["input"] == partner["input"] and row["_label"] != partner["_label"]
    taken = convert(rows, tmp_path / "out", validation=0, rules={"TWO_LABELS": "quarantine"}, **how)
    assert taken.codes["TWO_LABELS"]["count"] == len(labels) and "TWO_LABELS" not in taken.warnings
    assert {row["source"] for row in rows_of(tmp_path / "out", "quarantine")} == places
    assert written(tmp_path / "out") == {f"memory:{n}" for n in range(1, len(rows) + 1)} - places


def test_rows_of_one_picture_or_one_link_are_of_one_post(tmp_path: Path) -> None:
    for n, kind in enumerate(("png", "gif", "jpeg")):
        (tmp_path / f"{n}.png").write_bytes(KINDS[kind])
    facts = [("0", "a", "fitnah"), ("0", "b", "netral"), ("1", "c", "fitnah"), ("2", "c", "netral")]
    facts += [
        ("1", "", "fitnah"),
        ("2", "", "netral"),
    ]  # the pictures of the rows before, of posts of their own
    rows = [
        {"frame_path": f"{name}.png", "link": link, "label": label, "analisis": f"{n}."}
        for n, (name, link, label) in enumerate(facts)
    ]
    how: dict[str, Any] = {"format": "dfk_frames", "images": tmp_path, "validation": 0}
    convert(rows, tmp_path / "out", **how)
    reasons = [
        line["reason"].removeprefix("another row ").split(" and")[0] for line in warned(tmp_path / "out")
    ]
    assert reasons == ["asks the same", "asks the same", "is of the same post", "is of the same post"]


def test_rows_that_leave_their_file_contradict_nothing(tmp_path: Path) -> None:
    same = claim(1, "Fitnah", 0)
    rows = [same, claim(1, "Netral", 1), same | {"split": "test"}]
    convert(rows, tmp_path / "out", format="dfk_text", split_column="split")
    assert [line["source"] for line in warned(tmp_path / "out")] == ["memory:2", "memory:3"]
    rows = [claim(n // 2, ("Fitnah", "Netral")[n % 2], n) for n in range(40)]
    convert(rows, tmp_path / "sita", format="dfk_text", split="sita", subsample=0.25)
    left = written(tmp_path / "sita")
    places = expected(
        [row if f"memory:{n}" in left else claim(-n, "Fitnah", n) for n, row in enumerate(rows, 1)]
    )
    assert len(left) < 40 and {line["source"] for line in warned(tmp_path / "sita")} == places


def test_only_rows_that_take_part_and_can_be_used_count(tmp_path: Path) -> None:
    rows = [claim(1, "Fitnah", 0), claim(1, "Netral", 1), claim(2, "Fitnah", 2), claim(2, "Netral", 3)]
    rows[3]["output"] = "Label: **Netral.** penjelasan: <|im_end|>"
    how: dict[str, Any] = {"format": "dfk_text", "validation": 0, "rules": {"TWO_LABELS": "quarantine"}}
    done = convert(rows, tmp_path / "a", where=["_label!=Netral"], **how)
    assert done.rows["out"] == 2 and not done.codes
    done = convert(rows, tmp_path / "b", **how)
    assert written(tmp_path / "b") == {"memory:3"} and done.codes["TWO_LABELS"]["count"] == 2
    done = convert(rows, tmp_path / "c", limit=1, **how)
    assert written(tmp_path / "c") == {"memory:1"}


def test_rows_that_can_be_read_only_once_are_refused(tmp_path: Path) -> None:
    rows: Iterator[dict[str, Any]] = iter([claim(1, "Fitnah", 0)])
    with pytest.raises(ConfigError, match="TWO_LABELS=quarantine reads the rows twice"):
        convert(rows, tmp_path / "out", format="dfk_text", rules={"TWO_LABELS": "quarantine"})


@pytest.mark.parametrize("few", [0, 10**9])
def test_it_finds_what_a_dict_finds(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(post_labels, "_FEW", few)
    pick = random.Random(few)
    for _ in range(60):
        keys = [
            PostKeys(pick.randrange(1, 9), pick.choice((0, 100, 101, 102)), pick.randrange(2))
            for _ in range(pick.randrange(7))
        ]
        posts = PostLabels()
        for number, key in enumerate(keys):
            posts.add(number, f"in.csv:{number}", key)
        both = {
            f"in.csv:{n}"
            for n, one in enumerate(keys)
            for other in keys
            if one.labels != other.labels and (one.asks == other.asks or one.post == other.post != 0)
        }
        found = dict(posts.contradicted("label"))
        assert set(found) == both
        for place, error in found.items():
            one, other = (keys[int(name.partition(":")[2])] for name in (place, error.partner))
            assert one.labels != other.labels


def test_a_row_takes_40_bytes() -> None:
    posts = PostLabels()
    for number in range(1000):
        posts.add(number, f"in.csv:{number}", PostKeys(number, 7, 1))
    arrays = (posts._asks, posts._posts, posts._labels, posts._rows, posts._places._codes)
    assert sum(len(values) * values.itemsize for values in arrays) == 40_000

"""Sets of pictures as other programs leave them: folders, metadata, tars, COCO, Label Studio, Roboflow, LLaVA."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from dfkdata import Record, convert, load_rows, read
from dfkdata.common.errors import ConfigError, DataError
from dfkdata.conversion import detection
from tests.helpers.pictures import picture
from tests.helpers.rows import rows_of, write

SPLITS = ("train", "validation", "test")


def folder(top: Path, *names: str) -> Path:
    """Pictures under these names, no two alike."""
    for at, name in enumerate(names):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(picture("PNG", (20 + at, 30)))
    return top


def packed(path: Path, source: Path) -> Path:
    files = sorted(one for one in source.rglob("*") if one.is_file())
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for one in files:
                archive.write(one, one.relative_to(source).as_posix())
    else:
        with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as tar:
            for one in files:
                tar.add(one, one.relative_to(source).as_posix())
    return path


def tarred(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def answers(out: Path, split: str = "train") -> list[str]:
    return [row["messages"][-1]["content"][0]["text"] for row in load_rows(out / f"{split}.jsonl")]


def opened(out: Path) -> int:
    """How many pictures of the written rows open; every one must."""
    paths = [
        path
        for split in SPLITS
        if (out / f"{split}.jsonl").exists()
        for row in load_rows(out / f"{split}.jsonl")
        for path in row["images"]
    ]
    assert all(Path(path).read_bytes() for path in paths)
    return len(paths)


# Folders of pictures


@pytest.mark.parametrize("kind", ["folder", "in.zip", "in.tgz"])
@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("kucing/a.png", "anjing/b.png"), {"train": 2}),
        (("train/kucing/a.png", "valid/kucing/b.png", "test/anjing/c.png"), {"train": 1, "validation": 1, "test": 1}),
        (("Train/kucing/a.png", "dev/kucing/b.png"), {"train": 1, "validation": 1}),
        (("train/kucing/a.png", "val/kucing/b.png", "val/anjing/deep/c.png"), {"train": 1, "validation": 2}),
        (("test-tube/a.png", "beaker/b.png"), {"train": 2}),
        (("set/train/x/a.png", "set/test/y/b.png"), {"train": 1, "test": 1}),
        (("a/b/train/x/a.png", "a/b/val/y/b.png"), {"train": 1, "validation": 1}),
        (("kucing/a.png", "kucing/b.png"), {"train": 2}),
        (("training-1/x/a.png", "testing-1/y/b.png"), {"train": 1, "test": 1}),
    ],
    ids=str,
)  # fmt: skip
def test_the_folder_is_the_label_and_the_top_the_split(
    names: tuple[str, ...], expected: dict[str, int], kind: str, tmp_path: Path
) -> None:
    source = folder(tmp_path / "in", *names)
    given = source if kind == "folder" else packed(tmp_path / kind, source)
    summary = convert(given, tmp_path / "out", format="auto", validation=0, question="Hewan apa?")
    assert summary.detected.startswith("imagefolder: ")
    assert {split: rows for split, rows in summary.splits.items() if rows} == expected
    found = Counter(answer for split in expected for answer in answers(tmp_path / "out", split))
    assert found == Counter(name.split("/")[-2] for name in names)
    assert opened(tmp_path / "out") == len(names)
    (text, image) = next(iter(load_rows(tmp_path / "out" / f"{next(iter(expected))}.jsonl")))["messages"][0][
        "content"
    ]
    assert (text["text"], image["type"]) == ("Hewan apa?", "image")


def test_two_folders_for_one_split_are_refused_by_name(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", "train/a/1.png", "dev/a/2.png", "valid/a/3.png")
    with pytest.raises(ConfigError, match="the splits 'dev' and 'valid' both mean validation"):
        convert(source, tmp_path / "out", format="imagefolder")


def test_folders_and_labels_are_those_that_the_datasets_library_gives(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    names = [
        f"{split}/{label}/{n}.png" for split in ("train", "valid", "test") for label in "xyz" for n in (1, 2)
    ]
    source = folder(tmp_path / "in", *names)
    theirs = datasets.load_dataset("imagefolder", data_dir=str(source), cache_dir=str(tmp_path / "cache"))
    convert(source, tmp_path / "out", format="imagefolder")
    for split in SPLITS:
        classes = theirs[split].features["label"].names
        expected = Counter(classes[label] for label in theirs[split]["label"])
        assert Counter(answers(tmp_path / "out", split)) == expected


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_metadata_names_labels_questions_and_several_pictures(kind: str, tmp_path: Path) -> None:
    source = folder(tmp_path / "in", "train/a.png", "train/deep/b.png", "val/c.png", "train/left_out.png")
    rows = [
        {"file_name": "a.png", "label": "satu", "question": "Yang mana?"},
        {"file_name": "deep/b.png", "label": "dua", "question": ""},
    ]
    for split, some in (("train", rows), ("val", [{"file_name": "c.png", "label": "tiga", "question": ""}])):
        if kind == "jsonl":
            write(source / split / "metadata.jsonl", some)
        else:
            lines = ["file_name,label,question", *(",".join(row.values()) for row in some)]
            (source / split / "metadata.csv").write_text("\n".join(lines) + "\n")
    summary = convert(source, tmp_path / "out", format="auto", question="Apa?")
    assert summary.detected.startswith("imagefolder: metadata")
    assert (answers(tmp_path / "out"), answers(tmp_path / "out", "validation")) == (["satu", "dua"], ["tiga"])
    asked = [row["messages"][0]["content"][0]["text"] for row in rows_of(tmp_path / "out", "train")]
    assert asked == ["Yang mana?", "Apa?"]
    assert opened(tmp_path / "out") == 3
    assert '"pictures_without_a_row": 1' in (tmp_path / "out" / "manifest.json").read_text()
    assert not convert(source, tmp_path / "out", format="auto", question="Apa?").fresh


def test_columns_of_file_names_become_pictures_in_order(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", "a.png", "b.png")
    write(source / "metadata.jsonl", [{"file_names": ["b.png", "a.png"], "text": "Two."}])
    convert(source / "metadata.jsonl", tmp_path / "out", format="imagefolder", validation=0)
    (row,) = load_rows(tmp_path / "out" / "train.jsonl")
    assert [Path(path).name for path in row["images"]] == ["b.png", "a.png"]


def test_a_folder_without_pictures_is_refused_and_a_label_of_a_schema_is_checked(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(ConfigError, match="no picture in this folder"):
        convert(tmp_path / "none", tmp_path / "out", format="imagefolder")


# WebDataset


def samples(start: int, number: int) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for n in range(start, start + number):
        found |= {f"{n:06}.png": picture("PNG", (20 + n, 30)), f"{n:06}.txt": f"Text {n}.".encode()}
    return found


def test_shards_keep_their_order_and_their_splits(tmp_path: Path) -> None:
    for name, start in (("train-000", 0), ("train-001", 3), ("val-000", 6)):
        tarred(tmp_path / "in" / f"{name}.tar", samples(start, 3))
    summary = convert(tmp_path / "in", tmp_path / "out", format="auto", question="Apa?")
    assert summary.detected.startswith("webdataset: ") and summary.splits == {"train": 6, "validation": 3}
    assert answers(tmp_path / "out") == [f"Text {n}." for n in range(6)]
    assert opened(tmp_path / "out") == 9
    pattern = convert(
        str(tmp_path / "in" / "train-*.tar"), tmp_path / "two", format="webdataset", validation=0
    )
    assert pattern.splits == {"train": 6, "validation": 0}


@pytest.mark.parametrize("materialize", ["link", "copy", "embed"])
@pytest.mark.parametrize("to", ["messages", "swift", "sharegpt", "openai"])
def test_every_path_of_a_tar_opens_from_a_relative_folder(
    to: str, materialize: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tarred(Path("in.tar"), samples(0, 2))
    summary = convert("in.tar", "data/out", format="webdataset", to=to, materialize=materialize, validation=0)  # type: ignore[arg-type]
    assert summary.rows["out"] == 2
    for row in rows_of(Path("data/out"), "train"):
        for name in [part for part in json.dumps(row).split('"') if part.endswith(".png")]:
            assert (Path("data/out") / name).is_file(), name


def test_samples_are_those_that_the_datasets_library_gives(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    tarred(tmp_path / "in.tar", samples(0, 4) | {"a/b.png": picture("PNG"), "a/b.txt": b"deep"})
    theirs = datasets.load_dataset(
        "webdataset", data_files=str(tmp_path / "in.tar"), split="train", cache_dir=str(tmp_path / "cache")
    )
    convert(tmp_path / "in.tar", tmp_path / "out", format="webdataset", validation=0)
    rows = [*load_rows(tmp_path / "out" / "train.jsonl")]
    assert [row["meta"]["key"] for row in rows] == theirs["__key__"][:]
    assert [row["messages"][-1]["content"][0]["text"] for row in rows] == theirs["txt"][:]


def test_fields_can_be_chosen_and_class_indexes_go_through_the_map(tmp_path: Path) -> None:
    members = {"1.png": picture("PNG"), "1.cls": b"0", "1.json": b'{"reason": "Karena.", "q": "Yang mana?"}'}
    tarred(tmp_path / "in.tar", members)
    convert(
        *(tmp_path / "in.tar", tmp_path / "a"),
        format="webdataset",
        validation=0,
        options={"answer": "json.reason", "question": "json.q"},
    )
    (row,) = rows_of(tmp_path / "a", "train")
    assert row["messages"][0]["content"][0]["text"] == "Yang mana?"
    assert row["messages"][-1]["content"][0]["text"] == "Karena."


def test_a_tar_that_is_cut_off_a_bomb_or_unsafe_is_harmless(tmp_path: Path) -> None:
    whole = tarred(tmp_path / "in.tar", samples(0, 2)).read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[: len(whole) // 4])
    with pytest.raises(DataError, match="not a whole archive"):
        convert(tmp_path / "cut.tar", tmp_path / "out", format="webdataset")
    with tarfile.open(tmp_path / "bomb.tar.gz", "w:gz") as tar:
        info = tarfile.TarInfo("1.png")
        info.size = 64 << 20
        tar.addfile(info, io.BytesIO(b"\0" * info.size))
    with pytest.raises(DataError, match="unpacks to more than"):
        convert(tmp_path / "bomb.tar.gz", tmp_path / "out", format="webdataset")
    with tarfile.open(tmp_path / "link.tar", "w") as tar:
        link = tarfile.TarInfo("1.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        text = tarfile.TarInfo("../1.txt")
        text.size = 1
        tar.addfile(text, io.BytesIO(b"x"))
    summary = convert(
        tmp_path / "link.tar", tmp_path / "out", format="webdataset", max_rejects=9, keep_empty=True
    )
    assert summary.rows["in"] == 0
    assert '"other_members": 2' in (tmp_path / "out" / "manifest.json").read_text()


def test_a_quarantined_sample_is_repaired_and_read_again(tmp_path: Path) -> None:
    tarred(tmp_path / "in.tar", {"1.png": picture("PNG"), "1.json": b"{}"})
    convert(tmp_path / "in.tar", tmp_path / "one", format="webdataset", validation=0, max_rejects=1)
    (reject,) = rows_of(tmp_path / "one", "quarantine")
    reject["raw"]["json"] = {"caption": "Repaired."}
    write(tmp_path / "again.jsonl", [reject])
    convert(tmp_path / "again.jsonl", tmp_path / "two", format="webdataset", validation=0)
    assert (answers(tmp_path / "two"), opened(tmp_path / "two")) == (["Repaired."], 1)


# COCO, Roboflow, LLaVA


def test_coco_files_of_two_splits_and_the_captions_of_one_picture(tmp_path: Path) -> None:
    folder(tmp_path / "in", "1.png", "2.png", "3.png")
    for name, ids in (("captions_train2017", (1, 2)), ("captions_val2017", (3,))):
        document = {
            "images": [{"id": n, "file_name": f"{n}.png"} for n in ids],
            "annotations": [
                {"id": 10 * n + at, "image_id": n, "caption": f"Caption {n} {at}."}
                for n in ids
                for at in (1, 2)
            ],
        }
        (tmp_path / "in" / f"{name}.json").write_text(json.dumps(document))
    summary = convert(tmp_path / "in", tmp_path / "out", format="auto", question="Describe it.")
    assert summary.detected.startswith("coco_captions: ") and summary.splits == {"train": 4, "validation": 2}
    groups = [row["meta"]["group"] for row in rows_of(tmp_path / "out", "train")]
    assert groups == ["1", "1", "2", "2"]


def test_coco_as_it_is_laid_out_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder(Path("coco"), "train2017/1.png", "val2017/2.png")
    Path("coco/annotations").mkdir()
    for name, n in (("captions_train2017", 1), ("captions_val2017", 2)):
        document = {
            "images": [{"id": n, "file_name": f"{n}.png"}],
            "annotations": [{"id": n, "image_id": n, "caption": "A."}],
        }
        Path(f"coco/annotations/{name}.json").write_text(json.dumps(document))
    how: dict[str, Any] = {"images": "coco", "options": {"folder": "{name}"}}
    summary = convert("coco/annotations/captions_*.json", "out", format="coco_captions", **how)
    assert summary.splits == {"train": 1, "validation": 1} and opened(Path("out")) == 2


SCHEMA = """
from typing import Annotated, Literal
from dfkdata.schemas import BaseAnswer, Images, Label, LabelSet, Prompt, Text, TextForm, Variant

KINDS = LabelSet(("kucing", "anjing"))

class Answer(BaseAnswer):
    kind: Annotated[Literal["kucing", "anjing"], Label(KINDS)]

VARIANTS = {"text": Variant(Prompt((Text("Hewan apa?"), Images())), TextForm((("Hewan: ", "kind"),)))}
"""


@pytest.mark.parametrize("name", ["imagefolder", "webdataset", "label_studio", "roboflow"])
def test_labels_of_every_set_go_through_the_map_to_a_schema_of_ones_own(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder(tmp_path, "a.png")
    (tmp_path / "own_animals").mkdir()
    (tmp_path / "own_animals" / "kinds.py").write_text(SCHEMA)
    monkeypatch.syspath_prepend(tmp_path)
    given: dict[str, dict[str, Any]] = {
        "imagefolder": {"file_name": "a.png", "label": 1},
        "label_studio": task("Anjing-", image="a.png") | {"id": 2},
        "roboflow": {"filename": "a.png", "Anjing": "1", "kucing": "0"},
        "webdataset": {"__key__": "1", "png": "a.png", "cls": "1"},
    }
    convert(
        *([given[name]], tmp_path / "out"),
        format=name,
        schema="own_animals.kinds",
        images=tmp_path,
        validation=0,
        options={"field": "kind"},
        labels={1: "anjing"},
    )
    (row,) = rows_of(tmp_path / "out", "train")
    assert row["meta"]["gold"] == {"kind": "anjing"}
    assert row["messages"][-1]["content"][0]["text"] == "Hewan: anjing"


def test_roboflow_exports_keep_their_splits(tmp_path: Path) -> None:
    row = {"prefix": "Apa?", "suffix": "Garis."}
    one = folder(tmp_path / "one", "a.png", "b.png", "c.png")
    for split, name in (("train", "a"), ("valid", "b"), ("test", "c")):
        write(one / f"_annotations.{split}.jsonl", [row | {"image": f"{name}.png"}])
    two = folder(tmp_path / "two", "train/a.png", "valid/b.png")
    for split, name in (("train", "a"), ("valid", "b")):
        write(two / split / "annotations.jsonl", [row | {"image": f"{name}.png"}])
    three = folder(tmp_path / "three", "train/a.png", "test/b.png")
    for split, name in (("train", "a"), ("test", "b")):
        (three / split / "_classes.csv").write_text(f"filename, kucing, anjing\n{name}.png, 0, 1\n")
    four = folder(tmp_path / "four", "train/kucing/a.png", "valid/anjing/b.png")
    (four / "README.dataset.txt").write_text("Roboflow")
    found = {}
    for source in (one, two, three, four, packed(tmp_path / "five.zip", three)):
        summary = convert(source, tmp_path / f"o_{source.stem}", format="roboflow", question="Hewan apa?")
        assert summary.rows["quarantined"] == 0, summary.codes
        found[source.stem] = {split: rows for split, rows in summary.splits.items() if rows}
        assert opened(summary.folder) == summary.rows["out"]
    assert found == {
        "one": {"train": 1, "validation": 1, "test": 1},
        "two": {"train": 1, "validation": 1},
        "three": {"train": 1, "test": 1},
        "four": {"train": 1, "validation": 1},
        "five": {"train": 1, "test": 1},
    }
    assert answers(tmp_path / "o_three") == ["anjing"] and answers(tmp_path / "o_four") == ["kucing"]
    assert detection.detected(one, "auto")[1].name == detection.detected(three, "auto")[1].name == "roboflow"


# Label Studio


def task(*labels: Any, **data: Any) -> dict[str, Any]:
    """A task; each label is one annotator's: a choice, or a dict from control to choice or text."""
    annotations = []
    for at, label in enumerate(labels):
        controls = label if isinstance(label, dict) else {"jenis": label}
        results = [
            {"from_name": name, "to_name": "x", "type": "choices", "value": {"choices": [value]}}
            if name == "jenis"
            else {"from_name": name, "to_name": "x", "type": "textarea", "value": {"text": [value]}}
            for name, value in controls.items()
        ]
        annotations.append({"id": at, "completed_by": at, "was_cancelled": False, "result": results})
    return {"id": 1, "data": data, "annotations": annotations}


def labelled(given: list[Any], tmp_path: Path, **options: Any) -> list[Any]:
    return list(read(given, "label_studio", images=tmp_path, options=options))


@pytest.mark.parametrize(
    ("address", "upload", "path"),
    [
        ("/data/upload/1/ab-a.png", "path", "upload/1/ab-a.png"),
        ("/data/upload/1/ab-a.png", "name", "ab-a.png"),
        ("/label-studio/data/upload/1/a%20b.png?x=1", "path", "upload/1/a b.png"),
        ("/data/local-files/?d=set/a%20b.png", "path", "set/a b.png"),
        ("/data/local-files/?d=set/a.png&x=1", "path", "set/a.png"),
        ("set/a.png", "path", "set/a.png"),
    ],
)
def test_addresses_of_the_server_are_paths_below_the_images(
    address: str, upload: str, path: str, tmp_path: Path
) -> None:
    folder(tmp_path, path)
    (item,) = labelled([task("netral", image=address)], tmp_path, upload=upload)
    assert isinstance(item, Record), item
    assert item.images == (str(tmp_path / path),)


def test_annotators_that_disagree_go_by_the_rule_and_the_majority_counts(tmp_path: Path) -> None:
    folder(tmp_path, "a.png")
    given = [task("fitnah", "netral", "netral", image="a.png")]
    how: dict[str, Any] = {"format": "label_studio", "images": tmp_path, "validation": 0, "max_rejects": 1}
    strict = convert(given, tmp_path / "strict", **how)
    assert "'fitnah' by 1, 'netral' by 2" in strict.codes["LABEL_CONFLICT"]["first"]["reason"]
    convert(given, tmp_path / "warn", rules={"LABEL_CONFLICT": "warn"}, **how)
    assert answers(tmp_path / "warn") == ["netral"]
    given[0]["annotations"][0]["ground_truth"] = True
    convert(given, tmp_path / "truth", **how)
    assert answers(tmp_path / "truth") == ["fitnah"]
    given[0]["annotations"][0] |= {"ground_truth": False, "was_cancelled": True}
    convert(given, tmp_path / "cancelled", **how)
    assert answers(tmp_path / "cancelled") == ["netral"]


REGION = {"x": 1, "y": 2, "width": 3, "height": 4}
UNREAD: dict[str, dict[str, Any]] = {
    "rectanglelabels": {**REGION, "rectanglelabels": ["Kucing"]},
    "brushlabels": {"format": "rle", "rle": [1], "brushlabels": ["a"]},
    "polygonlabels": {"points": [[1, 2]], "polygonlabels": ["a"]},
    "labels": {"start": 1, "end": 2, "text": "si", "labels": ["ORG"]},
    "pairwise": {"selected": "left"},
    "ranker": {"ranker": {"a": ["1"]}},
    "timelinelabels": {"ranges": [{"start": 1, "end": 2}], "timelinelabels": ["a"]},
    "choices": {**REGION, "choices": ["a"]},
}


@pytest.mark.parametrize("kind", UNREAD)
def test_annotations_that_answer_nothing_are_named_by_their_kind(kind: str, tmp_path: Path) -> None:
    row = task("x", text="isi")
    row["annotations"][0]["result"] = [
        {"from_name": "a", "to_name": "b", "type": kind, "value": UNREAD[kind]}
    ]
    (reject,) = labelled([row], tmp_path)
    assert reject.code == "FIELD_EMPTY" and f"its annotations hold {kind}" in reject.reason
    assert "choices, taxonomy, textarea" in reject.hint


def test_data_of_other_kinds_is_shown_or_named(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"film")
    shown, other = labelled([task("x", video="a.mp4"), task("x", html="<b>isi</b>")], tmp_path)
    assert [Path(file).name for file in shown.videos] == ["a.mp4"]
    assert other.code == "EMPTY_USER" and "the data has html" in other.hint
    (chosen,) = labelled([task("x", html="<b>isi</b>")], tmp_path, text="html")
    assert chosen.fields["text"] == "<b>isi</b>"


def test_controls_fill_the_fields_of_a_schema(tmp_path: Path) -> None:
    folder(tmp_path, "a.png")
    given = [task({"jenis": "Ujaran-Kebencian", "alasan": "Menghina."}, image="a.png", text="Teks.")]
    convert(
        *(given, tmp_path / "out"),
        format="label_studio",
        schema="dfk_label",
        images=tmp_path,
        validation=0,
        options={"gold": "label:jenis,analisis:alasan"},
    )
    (row,) = rows_of(tmp_path / "out", "train")
    assert row["meta"]["gold"] == {"label": "ujaran kebencian", "analisis": "Menghina."}
    with pytest.raises(ConfigError, match="FIELD:CONTROL pairs"):
        labelled(given, tmp_path, gold="label")


def test_the_json_min_of_two_annotators_gives_two_rows_of_one_group(tmp_path: Path) -> None:
    folder(tmp_path, "a.png")
    rows = [
        {
            "id": 1,
            "image": "a.png",
            "jenis": label,
            "annotator": at,
            "annotation_id": 7 + at,
            "lead_time": 1.0,
        }
        for at, label in enumerate(("netral", "fitnah"))
    ]
    found = labelled(rows, tmp_path)
    assert [item.gold for item in found] == [{"answer": "netral"}, {"answer": "fitnah"}]
    assert found[0].group == found[1].group and found[0].id != found[1].id


# One question for all rows


@pytest.mark.parametrize(
    "name", ["vqa", "imagefolder", "label_studio", "roboflow", "coco_captions", "webdataset"]
)
def test_sets_without_questions_take_one(name: str, tmp_path: Path) -> None:
    folder(tmp_path, "a.png")
    given: dict[str, dict[str, Any]] = {
        "vqa": {"image": "a.png", "answer": "x"},
        "imagefolder": {"file_name": "a.png", "label": "x"},
        "label_studio": task("x", image="a.png"),
        "roboflow": {"image": "a.png", "prefix": "", "suffix": "x"},
        "coco_captions": {"id": 1, "image_id": 1, "caption": "x", "file_name": "a.png"},
        "webdataset": {"__key__": "1", "png": "a.png", "txt": "x"},
    }
    convert([given[name]], tmp_path / "out", format=name, images=tmp_path, validation=0, question="Apa ini?")
    (row,) = rows_of(tmp_path / "out", "train")
    assert row["messages"][0]["content"] == [{"type": "text", "text": "Apa ini?"}, {"type": "image"}]
    assert '"question": "Apa ini?"' in (tmp_path / "out" / "manifest.json").read_text()


@pytest.mark.parametrize("column", ["caption", "text", "answer"])
def test_pictures_with_a_text_need_a_question_and_a_label_beside_it_is_no_guess(
    column: str, tmp_path: Path
) -> None:
    folder(tmp_path, "a.png")
    rows = [{"image": "a.png", column: "A line."}]
    how: dict[str, Any] = {"images": tmp_path, "validation": 0, "max_rejects": 1}
    without = convert(rows, tmp_path / "without", format="vqa", **how)
    assert "--question" in without.codes["FIELD_EMPTY"]["first"]["hint"]
    convert(rows, tmp_path / "out", format="vqa", question="Apa?", **how)
    assert answers(tmp_path / "out") == ["A line."]
    if column != "answer":
        told = convert([rows[0] | {"label": "x"}], tmp_path / "two", format="vqa", question="Apa?", **how)
        assert told.codes["FIELD_EMPTY"]["first"]["path"] == "answer"


def test_a_rows_own_question_goes_before_and_a_format_with_questions_refuses(tmp_path: Path) -> None:
    folder(tmp_path, "a.png")
    rows = [{"image": "a.png", "question": "Sendiri?", "answer": "x"}]
    convert(rows, tmp_path / "out", format="vqa", images=tmp_path, validation=0, question="Bersama?")
    assert rows_of(tmp_path / "out", "train")[0]["messages"][0]["content"][0]["text"] == "Sendiri?"
    with pytest.raises(ConfigError, match="ask their own questions"):
        convert(rows, tmp_path / "no", format="messages", question="Bersama?")

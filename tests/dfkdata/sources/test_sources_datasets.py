"""Real objects of the `datasets` library: splits, classes, pictures and nested features go in as they are."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dfkdata import convert, read, sources
from dfkdata.common.errors import ConfigError, DataError
from tests.helpers.rows import rows_of

datasets = pytest.importorskip("datasets")
pytestmark = pytest.mark.filterwarnings("ignore")


def jpeg(colour: int) -> bytes:
    picture, buffer = Image.new("RGB", (40, 30), (colour, 90, 20)), io.BytesIO()
    picture.paste((255, 255, 255), (0, 0, 1 + colour % 30, 30))
    picture.save(buffer, "JPEG")
    return buffer.getvalue()


def asked(names: list[str], kind: int = 0) -> Any:
    """Questions about pictures of their own whose answers are classes."""
    features = datasets.Features(
        {
            "question": datasets.Value("string"),
            "image": datasets.Image(),
            "answer": datasets.ClassLabel(names=["kucing", "anjing"]),
        }
    )
    rows = [
        {"question": name, "image": {"bytes": jpeg(60 * kind + 7 * at), "path": None}, "answer": at % 2}
        for at, name in enumerate(names)
    ]
    return datasets.Dataset.from_list(rows, features=features)


@pytest.fixture
def three() -> Any:
    return datasets.DatasetDict(
        {"Train": asked(["a", "b", "c"]), " dev": asked(["d"], 1), "TEST": asked(["e", "f"], 2)}
    )


def in_memory(given: Any, folder: Path) -> Any:
    return given


def saved(given: Any, folder: Path) -> Any:
    given.save_to_disk(folder / "saved")
    return folder / "saved"


@pytest.mark.parametrize("how", [in_memory, saved])
def test_a_dataset_dict_keeps_its_splits_classes_and_picture_files(
    how: Callable[[Any, Path], Any], three: Any, tmp_path: Path
) -> None:
    summary = convert(how(three, tmp_path), tmp_path / "out", format="vqa", seed=5)
    assert summary.splits == {"train": 3, "validation": 1, "test": 2}
    found = {
        split: [row["messages"][0]["content"][0]["text"] for row in rows_of(tmp_path / "out", split)]
        for split in summary.splits
    }
    assert found == {"train": ["a", "b", "c"], "validation": ["d"], "test": ["e", "f"]}
    first = rows_of(tmp_path / "out", "train")[:2]
    assert [row["meta"]["gold"] for row in first] == [{"answer": "kucing"}, {"answer": "anjing"}]
    assert (tmp_path / "out" / first[0]["images"][0]).read_bytes() == jpeg(0), "not decoded and written anew"
    assert not {"SPLIT_EMPTY", "CSV_GUESSED"} & summary.warnings.keys()
    assert not convert(how_again(how, three, tmp_path), tmp_path / "out", format="auto", seed=5).fresh


def how_again(how: Callable[[Any, Path], Any], three: Any, folder: Path) -> Any:
    return folder / "saved" if how is saved else three


def test_the_command_keeps_the_splits_of_a_saved_folder(three: Any, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from dfkdata.cli.app import app

    three.save_to_disk(tmp_path / "saved")
    command = [
        "convert",
        str(tmp_path / "saved"),
        "--from",
        "auto",
        "--to",
        "messages",
        "--out",
        str(tmp_path / "o"),
    ]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "read as vqa" in done.output
    assert [len(rows_of(tmp_path / "o", split)) for split in ("train", "validation", "test")] == [3, 1, 2]


@pytest.mark.parametrize("how", [in_memory, saved])
@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("dev", "valid"), "the splits 'dev' and 'valid' both mean validation"),
        (("train", "Training"), "the splits 'train' and 'Training' both mean train"),
        (("train", "extra"), "the split 'extra' is none of"),
    ],
)
def test_splits_of_one_meaning_or_none_are_refused_by_name(
    names: tuple[str, str], message: str, how: Callable[[Any, Path], Any], tmp_path: Path
) -> None:
    given = datasets.DatasetDict({name: asked([name]) for name in names})
    with pytest.raises(ConfigError, match=message):
        convert(how(given, tmp_path), tmp_path / "out", format="vqa")
    assert not (tmp_path / "out").exists()


def test_a_training_split_alone_is_divided_as_rows_without_splits_are(tmp_path: Path) -> None:
    rows = [{"instruction": f"q{n}", "output": "a"} for n in range(200)]
    one = convert(rows, tmp_path / "one", format="alpaca", test=0.2)
    other = convert({"train": rows}, tmp_path / "other", format="alpaca", test=0.2)
    assert one.splits == other.splits and other.splits["test"] > 10


@pytest.mark.parametrize(
    ("option", "value"),
    [("split_column", "x"), ("split", "sita"), ("stratify", "x"), ("validation_file", [{"a": 1}])],
)
def test_two_ways_to_split_are_refused(option: str, value: Any, tmp_path: Path) -> None:
    rows = {"train": [{"instruction": "q", "output": "a"}], "test": [{"instruction": "r", "output": "a"}]}
    with pytest.raises(ConfigError, match="has splits of its own"):
        convert(rows, tmp_path / "out", format="alpaca", **{option: value})


def test_splits_given_as_iterators_are_looked_at_without_a_loss(tmp_path: Path) -> None:
    def some(split: str) -> Any:
        return ({"instruction": f"{split}{n}", "output": "a"} for n in range(50))

    rows = {"train": some("train"), "test": some("test")}
    assert convert(rows, tmp_path / "out", format="auto").splits == {"train": 50, "validation": 0, "test": 50}


def test_read_names_the_split_of_each_record() -> None:
    rows = {"train": [{"instruction": "q", "output": "a"}], "Val": [{"instruction": "r", "output": "a"}]}
    assert [item.split for item in read(rows, "alpaca")] == ["train", "validation"]  # type: ignore[union-attr]


NESTED = {
    "id": ["r1"],
    "boxes": [[{"kind": 1, "crop": {"bytes": jpeg(3), "path": None}}, {"kind": 0, "crop": None}]],
    "tags": [[0, 1, -1]],
    "deep": [{"kind": 1, "names": [0]}],
    "text": ["2"],
}


def nested() -> Any:
    kind = datasets.ClassLabel(names=["x", "y"])
    return datasets.Dataset.from_dict(
        NESTED,
        features=datasets.Features(
            {
                "id": datasets.Value("string"),
                "boxes": datasets.List({"kind": kind, "crop": datasets.Image()}),
                "tags": datasets.List(kind),
                "deep": {"kind": kind, "names": datasets.List(kind)},
                "text": datasets.Value("string"),
            }
        ),
    )


def rows_in(given: Any) -> list[Any]:
    return [row for part in sources.parts(given) for row, _ in sources.rows(part)]


def test_nested_features_are_read_alike_from_memory_disk_and_parquet(tmp_path: Path) -> None:
    given = nested()
    given.to_parquet(tmp_path / "x.parquet")
    given.save_to_disk(tmp_path / "saved")
    (row,) = rows_in(given)
    assert row["tags"] == ["x", "y", None]
    assert row["deep"] == {"kind": "y", "names": ["x"]}
    assert [box["kind"] for box in row["boxes"]] == ["y", "x"]
    assert row["boxes"][0]["crop"]["bytes"] == jpeg(3)
    assert row["text"] == "2"
    assert rows_in(tmp_path / "x.parquet") == rows_in(tmp_path / "saved") == [row]


def test_pictures_named_by_a_path_are_read_from_it(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg(9))
    given = datasets.Dataset.from_dict(
        {
            "question": ["q"] * 2,
            "image": [str(tmp_path / "a.jpg"), str(tmp_path / "gone.jpg")],
            "answer": ["a"] * 2,
        }
    ).cast_column("image", datasets.Image())
    summary = convert(given, tmp_path / "out", format="vqa", validation=0, max_rejects=1)
    (row,) = rows_of(tmp_path / "out", "train")
    assert (tmp_path / "out" / row["images"][0]).read_bytes() == jpeg(9)
    assert {*summary.codes} <= {"IMG_OUTSIDE", "IMG_MISSING"} and summary.rows["quarantined"] == 1


def test_a_transform_a_selection_and_an_iterable_count(tmp_path: Path) -> None:
    given = asked(["a", "b", "c"])
    assert [row["question"] for row in rows_in(given.select([2, 0]))] == ["c", "a"]
    changed = given.with_transform(
        lambda batch: {**batch, "question": [text + "!" for text in batch["question"]]}
    )
    assert [row["question"] for row in rows_in(changed)] == ["a!", "b!", "c!"]
    narrow = given.with_format(None, columns=["question"])
    assert [{*row} for row in rows_in(narrow)] == [{"question"}] * 3
    streamed = rows_in(given.to_iterable_dataset())
    assert [row["answer"] for row in streamed] == ["kucing", "anjing", "kucing"]


def test_class_names_are_labels_and_indexes_go_through_the_map(tmp_path: Path) -> None:
    named = datasets.Dataset.from_dict(
        {"img_path": ["a.jpg"] * 2, "label": [0, 1], "analisis": ["Satu.", "Dua."], "title": ["s", "d"]},
        features=datasets.Features(
            {
                "img_path": datasets.Value("string"),
                "label": datasets.ClassLabel(names=["Ujaran-Kebencian", "fakta"]),
                "analisis": datasets.Value("string"),
                "title": datasets.Value("string"),
            }
        ),
    )
    (tmp_path / "a.jpg").write_bytes(jpeg(1))
    how: dict[str, Any] = {"format": "dfk_csv", "images": tmp_path, "validation": 0}
    convert(named, tmp_path / "names", **how)
    indexes = named.cast_column("label", datasets.Value("int64"))
    convert(indexes, tmp_path / "indexes", labels={0: "ujaran kebencian", 1: "netral"}, **how)
    for folder in ("names", "indexes"):
        labels = [row["meta"]["gold"]["label"] for row in rows_of(tmp_path / folder, "train")]
        assert labels == ["ujaran kebencian", "netral"]


def test_a_folder_above_saved_data_reads_rows_and_not_their_description(three: Any, tmp_path: Path) -> None:
    three["Train"].save_to_disk(tmp_path / "top" / "one")
    assert [part.name for part in sources.parts(tmp_path / "top")] == ["one/data-00000-of-00001.arrow"]


def test_a_broken_saved_folder_is_named(three: Any, tmp_path: Path) -> None:
    three.save_to_disk(tmp_path / "saved")
    (tmp_path / "saved" / "TEST" / "data-00000-of-00001.arrow").write_bytes(b"no arrow")
    with pytest.raises(DataError, match="not a whole Arrow file"):
        convert(tmp_path / "saved", tmp_path / "out", format="vqa")
    (tmp_path / "saved" / "TEST" / "data-00000-of-00001.arrow").unlink()
    with pytest.raises(DataError, match="is not there"):
        convert(tmp_path / "saved", tmp_path / "out", format="vqa")
    (tmp_path / "saved" / "dataset_dict.json").write_text(json.dumps({"splits": ["../.."]}))
    with pytest.raises(DataError, match="is not there"):
        convert(tmp_path / "saved", tmp_path / "out", format="vqa")


def test_a_mapping_takes_paths_of_every_kind_beside_rows(tmp_path: Path) -> None:
    rows = [{"instruction": f"q{n}", "output": "a"} for n in range(3)]
    (tmp_path / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[1:2]))
    given: dict[Any, Any] = {"train": rows[:1], "dev": str(tmp_path / "dev.jsonl"), "test": rows[2:]}
    summary = convert(given, tmp_path / "out", format="auto")
    assert summary.splits == {"train": 1, "validation": 1, "test": 1}
    (row,) = rows_of(tmp_path / "out", "validation")
    assert row["meta"]["source"] == "dev/dev.jsonl:1"
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert [(entry["split"], "sha256" in entry) for entry in manifest["inputs"]] == [
        ("train", False),
        ("dev", True),
        ("test", False),
    ]


@pytest.mark.parametrize("given", [None, 5, b"x", {"train": 5}, {"train": None}, {}, {1: []}], ids=repr)
@pytest.mark.parametrize("format", ["auto", "alpaca"])
def test_what_is_neither_a_path_nor_rows_is_refused_by_name(given: Any, format: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"neither a path nor rows|no splits|is none of"):
        convert(given, tmp_path / "out", format=format)

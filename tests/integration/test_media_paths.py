"""Every path that a conversion writes opens from the folder of the file in which it stands."""

from __future__ import annotations

import base64
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dfkdata import convert, load_rows
from dfkdata.common.errors import DataError
from dfkdata.conversion.output_folder import Folder
from tests.helpers.pictures import picture
from tests.helpers.rows import rows_of, write

PICTURES = [picture("PNG", (40, 30)), picture("JPEG", (30, 40))]
LAYOUTS = ["messages", "prompt_completion", "swift", "sharegpt", "openai"]


def posts(images: list[Any]) -> list[dict[str, Any]]:
    return [
        {"question": f"What is it, {n}?", "answer": "Noise.", "image": image}
        for n, image in enumerate(images)
    ]


def on_disk(folder: Path) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in zip(("a.png", "b.jpg"), PICTURES, strict=True):
        (folder / name).write_bytes(data)
    return ["a.png", "b.jpg"]


def uris() -> list[str]:
    return ["data:image/png;base64," + base64.b64encode(data).decode() for data in PICTURES]


def named(folder: Path) -> Any:
    on_disk(folder)
    return write(folder / "in.jsonl", posts(["a.png", "b.jpg"]))


def absolute(folder: Path) -> Any:
    paths = [str((folder / "far" / name).absolute()) for name in on_disk(folder / "far")]
    return write(folder / "in.jsonl", posts(paths))


def table(folder: Path) -> Any:
    on_disk(folder)
    path = folder / "in.csv"
    path.write_text("question,answer,image\nWhat?,Noise.,a.png\nWhat now?,Noise.,b.jpg\n")
    return path


def embedded(folder: Path) -> Any:
    path = folder / "in.json"
    path.write_text(json.dumps(posts(uris())))
    return path


def parquet(folder: Path) -> Any:
    arrow = pytest.importorskip("pyarrow")
    rows = posts([{"bytes": data, "path": "x.png"} for data in PICTURES])
    pytest.importorskip("pyarrow.parquet").write_table(arrow.Table.from_pylist(rows), folder / "in.parquet")
    return folder / "in.parquet"


def hugging_face(folder: Path) -> Any:
    datasets = pytest.importorskip("datasets")
    rows = posts([{"bytes": data, "path": None} for data in PICTURES])
    return datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())


def memory(folder: Path) -> Any:
    names = [str(folder / name) for name in on_disk(folder)]
    return posts([Image.open(names[0]), Path(names[1]).read_bytes()])


def archive(folder: Path) -> Any:
    named(folder / "packed")
    with tarfile.open(folder / "in.tar", "w") as tar:
        for name in ("a.png", "b.jpg", "in.jsonl"):
            tar.add(folder / "packed" / name, name)
    return folder / "in.tar"


INPUTS: list[Callable[[Path], Any]] = [
    named, absolute, table, embedded, parquet, hugging_face, memory, archive,
]  # fmt: skip
OUTPUTS = {
    "relative": "data",
    "nested": "runs/one/data",
    "dotted": "./runs/../data",
    "above": "../other/data",
    "linked": "link/data",
    "absolute": "{here}/data",
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current folder with a link to another one."""
    folder, elsewhere = tmp_path / "here", tmp_path / "deep" / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir(parents=True)
    (folder / "link").symlink_to(elsewhere, target_is_directory=True)
    (folder / "runs").mkdir()
    monkeypatch.chdir(folder)
    yield folder


def addresses(value: Any) -> Iterator[str]:
    """Yield every media address of a row in any layout."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "images":
                yield from inner
            elif key == "image_url":
                yield inner["url"]
            elif key != "meta":
                yield from addresses(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from addresses(inner)


def content(address: str, folder: Path) -> bytes:
    """What another program reads that runs in the folder of the file."""
    if address.startswith("data:"):
        return base64.b64decode(address.partition(",")[2])
    return Path(os.path.join(folder, address)).read_bytes()  # noqa: PTH118  # joined as text, as others do


@pytest.mark.parametrize("out", OUTPUTS)
@pytest.mark.parametrize("materialize", ["link", "copy", "embed"])
@pytest.mark.parametrize("make", INPUTS)
def test_every_media_path_opens_from_the_folder_of_its_file(
    make: Callable[[Path], Any], materialize: str, out: str, here: Path
) -> None:
    """All layouts, each in its own folder, from a relative and an absolute input."""
    for number, layout in enumerate(LAYOUTS):
        start = Path("raw") if number % 2 else here / "raw"
        start.mkdir(exist_ok=True)
        folder = Path(OUTPUTS[out].format(here=here)) / layout
        how: dict[str, Any] = {"format": "vqa", "to": layout, "validation": 0, "materialize": materialize}
        summary = convert(make(start), folder, **how)
        assert summary.rows["out"] == 2, summary.codes
        found = [list(addresses(row)) for row in rows_of(folder, "train")]
        assert [len(one) for one in found] == [1, 1], layout
        sizes = [Image.open(io.BytesIO(content(one, folder))).size for (one,) in found]
        assert sizes == [(40, 30), (30, 40)]
        assert not any(".partial" in one for (one,) in found)
        if materialize == "embed":
            assert all(one.startswith("data:image/") for (one,) in found)
        if layout == "messages":
            assert all(
                one.startswith("data:") or Path(one).exists()
                for row in load_rows(folder / "train.jsonl")
                for one in row["images"]
            )


@pytest.mark.parametrize("materialize", ["link", "copy"])
def test_absolute_paths_open_from_any_folder(
    materialize: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(
        embedded(here),
        "data",
        format="vqa",
        to="swift",
        validation=0,
        materialize=materialize,
        paths="absolute",
    )
    convert(named(here), "linked", format="vqa", to="swift", validation=0, paths="absolute")
    monkeypatch.chdir("/")
    for name in ("data", "linked"):
        for row in rows_of(here / name, "train"):
            (path,) = row["images"]
            assert Path(path).is_absolute() and Path(path).is_file()


def test_a_second_run_over_the_same_relative_folder_finds_nothing_to_do(here: Path) -> None:
    source = embedded(here)
    first = convert(source, "data", format="vqa", validation=0)
    before = (here / "data/train.jsonl").read_bytes()
    again = convert(source, here / "data", format="vqa", validation=0)
    assert first.fresh and not again.fresh
    assert (here / "data/train.jsonl").read_bytes() == before


def test_a_folder_of_media_that_vanishes_meanwhile_ends_the_conversion_without_a_manifest(
    tmp_path: Path,
) -> None:
    folder = Folder(tmp_path / "out")
    (tmp_path / "images").mkdir()
    folder.start()
    assert folder.naming()(str(tmp_path / "images/a.png")) == "../images/a.png"
    (tmp_path / "images").rmdir()
    with pytest.raises(DataError, match="keep the files in place"):
        folder.finish({"outputs": []})
    assert not folder.manifest_exists()

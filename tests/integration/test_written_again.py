"""What a conversion wrote converts again and previews as it lies there, without naming the image folder."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dfkdata import convert, load_rows
from dfkdata.reports.preview import preview
from tests.helpers.pictures import picture
from tests.helpers.rows import rows_of, write
from tests.integration.test_media_paths import LAYOUTS, addresses, content

FORMAT = {"messages": "messages", "prompt_completion": "messages", "swift": "swift", "sharegpt": "sharegpt"}
FORMAT["openai"] = "openai"
READ_BACK = [layout for layout in LAYOUTS if layout != "prompt_completion"]


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pictures in several folders around the current one, and rows that name them."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    names = ["raw/a.png", "raw/deep/a.png", "pictures/a.png", "a.png"]
    for at, name in enumerate(names):
        (tmp_path / "work" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "work" / name).write_bytes(picture("PNG", (20 + at, 30)))
    rows = [{"question": f"What, {n}?", "answer": "It.", "image": name} for n, name in enumerate(names)]
    return write(Path("in.jsonl"), rows)


def sizes(folder: Path) -> list[Any]:
    found = [content(one, folder) for row in rows_of(folder, "train") for one in addresses(row)]
    return sorted(Image.open(io.BytesIO(one)).size for one in found)


@pytest.mark.parametrize("second", LAYOUTS)
@pytest.mark.parametrize("first", READ_BACK)
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"materialize": "copy"},
        {"materialize": "embed"},
        {"paths": "absolute"},
        {"materialize": "copy", "paths": "absolute"},
    ],
    ids=str,
)
def test_every_layout_converts_again_and_previews(
    first: str, second: str, how: dict[str, Any], raw: Path
) -> None:
    summary = convert(raw, "data/one", format="vqa", to=first, validation=0, **how)
    assert summary.rows["out"] == 4
    shown = "\n".join(preview("data/one/train.jsonl", FORMAT[first]))
    assert shown.count("[image ") == 4 and "IMG_" not in shown
    again = convert("data/one/train.jsonl", "again/two", format=FORMAT[first], to=second, validation=0)
    assert again.rows["out"] == 4, again.codes
    assert sizes(Path("again/two")) == sizes(Path("data/one")) == [(20, 30), (21, 30), (22, 30), (23, 30)]


@pytest.mark.parametrize("given", ["data/one", "data/*/train.jsonl", "data/one/*.jsonl"])
def test_a_folder_and_a_pattern_work_like_the_file(given: str, raw: Path) -> None:
    convert(raw, "data/one", format="vqa", validation=0)
    for name in ("quarantine", "duplicates"):
        (Path("data/one") / f"{name}.jsonl").unlink()
    summary = convert(given, "again", format="messages", to="swift", validation=0)
    assert summary.rows["out"] == 4, summary.codes
    assert sizes(Path("again")) == sizes(Path("data/one"))


def test_nothing_else_becomes_readable(raw: Path, tmp_path: Path) -> None:
    """A row that somebody adds by hand may name only folders in which the conversion found pictures."""
    convert(raw, "data", format="vqa", validation=0, where=["question=What, 0?"])
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/a.png").write_bytes(picture("PNG"))
    (row,) = rows_of(Path("data"), "train")
    for name in ("../../secret/a.png", str(tmp_path / "secret/a.png"), "../pictures/a.png"):
        write(Path("data/train.jsonl"), [row | {"images": [name], "id": name}])
        summary = convert("data/train.jsonl", "again", format="messages", validation=0, overwrite=True)
        assert [*summary.codes] == ["IMG_OUTSIDE"], name


def test_a_manifest_in_an_archive_opens_no_folder(raw: Path, tmp_path: Path) -> None:
    import tarfile

    convert(raw, "data", format="vqa", validation=0)
    with tarfile.open("data.tar", "w") as tar:
        for name in ("manifest.json", "train.jsonl"):
            tar.add(Path("data") / name, name)
    summary = convert("data.tar", "again", format="messages", validation=0)
    assert [*summary.codes] == ["IMG_OUTSIDE"]


def test_the_folder_may_move_together_with_its_pictures(raw: Path, tmp_path: Path) -> None:
    convert(raw, "data", format="vqa", validation=0)
    os.chdir(tmp_path)
    Path("work").rename("moved")
    summary = convert("moved/data/train.jsonl", "again", format="messages", to="swift", validation=0)
    assert summary.rows["out"] == 4
    assert len([*load_rows("moved/data/train.jsonl")]) == 4

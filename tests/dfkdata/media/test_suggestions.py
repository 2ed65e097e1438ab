"""A media path that leads nowhere gets the path or the folder that was meant."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from dfkdata import convert
from dfkdata.media.resolver import MediaResolver
from dfkdata.rows.record import RowError
from tests.helpers.pictures import KINDS


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("data/images/Sub dir/0.jpg", "data/images/é.png", "data/raw/frames/7.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(KINDS["png"])
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("start", "name", "hint"),
    [
        ("data", "images/sub dir/0.JPG", "did you mean 'images/Sub dir/0.jpg'?"),
        ("data", "images\\Sub dir\\0.jpg", "did you mean 'images/Sub dir/0.jpg'?"),
        ("data", "images/Sub%20dir/0.jpg", "did you mean 'images/Sub dir/0.jpg'?"),
        ("data", "images/Sub\xa0dir/0.jpg", "did you mean 'images/Sub dir/0.jpg'?"),
        ("data", "images/e\u0301.png", "did you mean 'images/é.png'?"),
        ("data", "C:\\Users\\a\\images\\é.png", "did you mean 'images/é.png'?"),
        ("data", "é.png", "it lies in 'images' below the image root"),
        ("data", "Sub dir\\0.JPG", "it lies in 'images' below the image root"),
        ("data", "7.jpg", "it lies in 'raw/frames' below the image root"),
        ("data/images", "images/é.png", "paths start one folder above the image root"),
        ("data/images", "data/images/é.png", "paths start two folders above the image root"),
        ("data/images", "foto/é.png", "did you mean 'é.png'?"),
        ("data", "images/ée.png", "did you mean 'images/é.png'?"),
        ("data", "images/nothing-like-it.webp", "paths start at the image root (--images)"),
        ("data", "/home/a/images/é.png", "did you mean 'images/é.png'?"),
        ("data", "/home/a/b.png", "copy the file under the image root"),
        ("data", "../raw/zz.jpg", "copy the file under the image root"),
    ],
)
@pytest.mark.parametrize("absolute", [False, True])
def test_the_hint_says_what_was_meant(root: Path, start: str, name: str, hint: str, absolute: bool) -> None:
    resolver = MediaResolver((root / start if absolute else Path(start),))
    with pytest.raises(RowError) as caught:
        resolver.locate(name)
    assert hint in caught.value.hint


NAMES = (
    "images/sub dir/0.JPG", "é.png", "7.jpg", "images/é.png", "data/images/é.png", "foto/é.png", "images/ée.png",
    "nothing.webp", "/home/a/b.png", "../raw/zz.jpg", "C:\\a\\é.png",
)  # fmt: skip


@pytest.mark.parametrize("start", ["data", "data/images"])
def test_rejects_do_not_say_where_the_data_lies(
    root: Path, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"id": name, "caption": name, "image": name, "gold": {}} for name in NAMES]
    (root / start / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    other = root / "another place" / "deeper"
    shutil.copytree(root / "data", other / "data")
    written = []
    for place in (root, other):
        monkeypatch.chdir(place)
        convert(f"{start}/rows.jsonl", "out", format="captions", max_rejects="100%")
        written.append((place / "out" / "quarantine.jsonl").read_bytes())
    assert written[0] == written[1]
    assert written[0].count(b"\n") == len(NAMES) - 1  # one of them is right
    assert str(root).encode() not in written[0]

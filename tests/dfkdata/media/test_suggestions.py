"""A media path that leads nowhere gets the path or the folder that was meant."""

from __future__ import annotations

from pathlib import Path

import pytest

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
        ("data", "é.png", "give --images {root}/data/images"),
        ("data", "Sub dir\\0.JPG", "give --images {root}/data/images"),
        ("data", "7.jpg", "give --images {root}/data/raw/frames"),
        ("data/images", "images/é.png", "give --images {root}/data"),
        ("data/images", "data/images/é.png", "give --images {root}"),
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
    assert hint.format(root=root.resolve()) in caught.value.hint

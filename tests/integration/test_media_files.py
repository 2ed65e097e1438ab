"""What a row names as a picture reaches a model, a server, a page or a data set only if it is one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dfkdata.common import files
from dfkdata.common.errors import DataError
from dfkdata.common.files import open_regular
from dfkdata.media.images import image_size, image_traits, open_image, png_bytes, thumbnail
from dfkdata.pages import picture
from dfkdata.rows.huggingface import to_dataset
from dfkeval.backends._openai.protocol import body
from dfkeval.types import Request, Sampling
from tests.helpers.rows import write

SECRET = "root:x:0:0:root:/root:/bin/bash"


def _text(path: Path) -> None:
    path.write_text(SECRET)


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _folder(path: Path) -> None:
    path.mkdir()


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _large(path: Path) -> None:
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        file.truncate((1 << 29) + 1)


KINDS = (_text, _pipe, _folder, _device, _large)


def _served(path: str) -> object:
    part = {"type": "image"}
    request = Request(id="1", messages=[{"role": "user", "content": [part]}], images=(path,), tools=None)
    return body(request, Sampling(), "model")


DOORS: dict[str, Callable[[str], object]] = {
    "pixels": open_image,
    "size": image_size,
    "traits": image_traits,
    "png": png_bytes,
    "thumbnail": lambda path: thumbnail(path, (64, 64), quality=80),
    "server": _served,
}


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("door", DOORS)
def test_a_file_that_is_no_picture_is_refused_by_name_at_every_door(
    door: str, make: Callable[[Path], None], tmp_path: Path
) -> None:
    make(path := tmp_path / "x.png")
    with pytest.raises(DataError, match=r"x\.png") as caught:
        DOORS[door](str(path))
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("make", KINDS)
def test_a_page_says_that_there_is_no_picture(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(path := tmp_path / "x.png")
    shown = picture(str(path))
    assert "<img" not in shown and SECRET not in shown


@pytest.mark.parametrize("make", KINDS)
def test_a_data_set_does_not_carry_other_files_along(make: Callable[[Path], None], tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    make(tmp_path / "x.png")
    turn = {"role": "user", "content": [{"type": "image"}]}
    row: dict[str, Any] = {"id": "1", "messages": [turn], "images": ["x.png"]}
    write(tmp_path / "rows.jsonl", [row])
    with pytest.raises(DataError, match=r"x\.png"):
        to_dataset(tmp_path / "rows.jsonl", embed=True)


def test_a_regular_file_is_opened_up_to_its_limit(tmp_path: Path) -> None:
    (path := tmp_path / "a").write_bytes(b"abc")
    with open_regular(path, limit=3) as file:
        assert file.read() == b"abc"
    with pytest.raises(OSError, match="3 bytes, and the limit is 2"):
        open_regular(path, limit=2)


def test_a_pipe_that_comes_into_the_place_of_a_checked_file_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"x")
    about = os.stat(path)  # noqa: PTH116 (what is replaced below)
    path.unlink()
    os.mkfifo(path)
    monkeypatch.setattr(files.os, "stat", lambda _: about)
    with pytest.raises(OSError, match="no regular file"):
        files.open_regular(path)

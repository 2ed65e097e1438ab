"""A row holds its pictures as paths, data URIs, bytes or Pillow images; anything else is an error with its row."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dfkdata.common.errors import DataError
from dfkdata.rows.huggingface import to_dataset
from dfktrain import Collator
from tests.helpers.models import build_processor, image_row, released_template


@pytest.fixture(scope="module")
def collate() -> Collator:
    return Collator(build_processor(released_template("qwen3_5_nothink")))


def data(turned: bool) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6 if turned else 1
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((96, 48)).convert("RGB").save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


def as_path(content: bytes, folder: Path) -> Any:
    (folder / "a.jpg").write_bytes(content)
    return folder / "a.jpg"


def as_uri(content: bytes, folder: Path) -> Any:
    return "data:image/jpeg;base64," + base64.b64encode(content).decode()


KINDS: list[Callable[[bytes, Path], Any]] = [
    as_path,
    lambda content, folder: str(as_path(content, folder)),
    as_uri,
    lambda content, folder: content,
    lambda content, folder: Image.open(io.BytesIO(content)),
    lambda content, folder: Image.open(as_path(content, folder)),
]
BAD = [
    7,
    1.5,
    None,
    {"bytes": b"x"},
    ["a.png"],
    np.zeros((3, 3, 3)),
    b"",
    b"no picture",
    "none.png",
    "data:,x",
]


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_same_batch(
    kind: Callable[[bytes, Path], Any], turned: bool, collate: Collator, tmp_path: Path
) -> None:
    right = collate([image_row("a", [str(as_path(data(turned), tmp_path))], "x", "y")])
    found = collate([image_row("a", [kind(data(turned), tmp_path)], "x", "y")])
    assert found.keys() == right.keys() and "pixel_values" in found
    for name in right:
        assert torch.equal(found[name], right[name]), name
    height, width = (int(side) for side in found["image_grid_thw"][0][1:])
    assert (height > width) == turned


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_goes_into_a_dataset(kind: Callable[[bytes, Path], Any], tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    row = image_row("a", [kind(data(False), tmp_path)], "x", "y")
    for embed in (False, True):
        assert to_dataset([row], embed=embed)[0]["images"][0].size == (96, 48)


@pytest.mark.parametrize("image", BAD, ids=[type(one).__name__ + str(at) for at, one in enumerate(BAD)])
def test_anything_else_is_an_error_that_names_the_row(image: Any, collate: Collator) -> None:
    with pytest.raises(DataError, match=r"^row post-7: "):
        collate([image_row("post-7", [image], "x", "y")])


@pytest.mark.parametrize("images", ["a.png", b"x", 7, {"a": 1}, Image.new("RGB", (9, 9))])
def test_images_that_are_no_list_are_an_error_that_names_the_row(images: Any, collate: Collator) -> None:
    with pytest.raises(DataError, match=r"^row post-7: images is not a list but"):
        collate([image_row("post-7", [], "x", "y") | {"images": images}])


def test_a_picture_that_breaks_while_it_is_decoded_names_its_row(collate: Collator) -> None:
    cut = data(False)[:-200]
    sample = collate.encode(image_row("post-7", [data(False)], "x", "y"))
    with pytest.raises(DataError, match=r"^row post-7: image .* cannot be read"):
        collate._pixels([(sample.id, cut[:700])])


@pytest.mark.parametrize("change", [{}, {"id": None}, {"id": ""}, {"id": ["a"]}, {"id": True}])
def test_a_row_without_an_id_is_named_by_its_text(change: dict[str, Any], collate: Collator) -> None:
    row = image_row("a", [], "Is the bridge closed?", "y")
    del row["id"]
    with pytest.raises(DataError, match=r"Is the bridge closed\?.*`id`"):
        collate([row | change])


@pytest.mark.parametrize(
    "row", [7, None, [], "row", {"id": "a"}, {"id": "a", "messages": "x"}, {"messages": 5}]
)
def test_what_is_no_row_is_an_error_that_shows_it(row: Any, collate: Collator) -> None:
    with pytest.raises(DataError, match=r"^row "):
        collate([row])
    with pytest.raises(DataError, match=r"^row "):
        collate.encode({"messages": [7, None]})

"""A picture is a small JPEG inside the page, and one that cannot be read is named."""

from __future__ import annotations

from html import escape
from pathlib import Path

from PIL import Image

from dfkdata.pages.pictures import picture
from tests.helpers.html import parsed


def test_a_picture_is_small_named_and_inside_the_page(tmp_path: Path) -> None:
    path = tmp_path / '"onload=alert(4) <b>.png'
    Image.new("RGBA", (900, 300), (255, 0, 0, 255)).save(path)
    ((_, _), (tag, attributes)) = parsed(picture(str(path), side=90)).tags
    assert tag == "img" and attributes["alt"] == path.name
    assert (attributes["width"], attributes["height"]) == ("90", "30")
    assert str(attributes["src"]).startswith("data:image/jpeg;base64,")


def test_a_picture_that_cannot_be_read_is_named_as_text(tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(3)>.png"
    (tmp_path / evil).write_bytes(b"not a picture")
    assert f"picture not readable: {escape(evil)}" in picture(str(tmp_path / evil))

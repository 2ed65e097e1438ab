"""Pictures: one module opens and measures them, whatever they come as."""

from __future__ import annotations

import base64
import io
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dfkdata.common.errors import DataError
from dfkdata.media.images import UnreadableImageError, image_size, open_image, opened, png_bytes, thumbnail
from tests.helpers.places import ROOT

SIZE = (60, 40)


def png(mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise(SIZE, 60).convert(mode).save(buffer, "PNG")
    return buffer.getvalue()


def as_path(data: bytes, folder: Path) -> Any:
    (folder / "a.png").write_bytes(data)
    return folder / "a.png"


def as_text(data: bytes, folder: Path) -> Any:
    return str(as_path(data, folder))


def as_uri(data: bytes, folder: Path) -> Any:
    return "data:image/png;base64," + base64.b64encode(data).decode()


def as_bytes(data: bytes, folder: Path) -> Any:
    return data


def as_pillow(data: bytes, folder: Path) -> Any:
    return Image.open(io.BytesIO(data))


SOURCES = [as_path, as_text, as_uri, as_bytes, as_pillow]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P"])
def test_every_source_gives_the_same_size_and_the_same_rgb_pixels(
    source: Any, mode: str, tmp_path: Path
) -> None:
    data = png(mode)
    image = open_image(source(data, tmp_path))
    assert image_size(source(data, tmp_path)) == image.size == SIZE
    assert image.mode == "RGB"
    assert image.tobytes() == Image.open(io.BytesIO(data)).convert("RGB").tobytes()


@pytest.mark.parametrize("source", [as_path, as_uri, as_bytes])
def test_a_broken_picture_is_one_error_with_its_problem(source: Any, tmp_path: Path) -> None:
    cut = png()[:200]
    with pytest.raises(UnreadableImageError, match=r"^image .*: cannot be read \(") as error:
        open_image(source(cut, tmp_path))
    assert error.value.problem
    assert not error.value.too_large
    assert image_size(source(cut, tmp_path)) == SIZE  # the header is whole


@pytest.mark.parametrize("image", ["none.png", "data:image/png;base64,!!", b"no picture", b""])
def test_what_is_no_picture_is_a_data_error(image: Any, tmp_path: Path) -> None:
    for read in (open_image, image_size):
        with pytest.raises(DataError, match="cannot be read"):
            read(image)


def shut() -> Any:
    image = Image.open(io.BytesIO(png()))
    image.close()
    return image


def noted(mode: str, clear: Any) -> Any:
    image = Image.new(mode, SIZE)
    image.info["transparency"] = clear
    return image


DEGENERATE: dict[str, Any] = {
    "0 x 0": Image.new("RGB", (0, 0)),
    "0 x 5": Image.new("L", (0, 5)),
    "5 x 0": Image.new("RGBA", (5, 0)),
    "closed": shut(),
    "cut": Image.open(io.BytesIO(png()[:-30])),
    "no transparency": noted("RGB", "x"),
    "long transparency": noted("P", bytes(300)),
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_a_degenerate_pillow_image_is_a_data_error_at_every_door(name: str) -> None:
    image = DEGENERATE[name]
    uses = [open_image, lambda one: open_image(one, max_side=4), png_bytes]
    uses += [lambda one: thumbnail(one, (9, 9), quality=70)] + ([image_size] if " x " in name else [])
    for use in uses:
        with pytest.raises(UnreadableImageError, match=r"image of type .*: cannot be read"):
            use(image)


@pytest.mark.parametrize(
    "mode", ["1", "P", "LA", "PA", "La", "RGBa", "RGBX", "CMYK", "LAB", "HSV", "YCbCr", "I;16B"]
)
@pytest.mark.parametrize("size", [(1, 1), (1, 150), (150, 1)])
def test_a_small_picture_of_any_mode_is_seen(mode: str, size: tuple[int, int]) -> None:
    assert open_image(Image.new(mode, size)).size == image_size(Image.new(mode, size)) == size


def test_a_message_holds_no_more_than_the_start_of_an_embedded_picture() -> None:
    with pytest.raises(UnreadableImageError) as error:
        open_image("data:image/png;base64," + "A" * 5000)
    assert len(str(error.value)) < 500


def test_a_header_that_claims_too_many_pixels_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(UnreadableImageError) as error:
        image_size(png())
    assert error.value.too_large


def test_the_error_crosses_a_process(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImageError) as error:
        open_image(tmp_path / "none.png")
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)


def test_a_decoding_error_inside_the_block_is_the_same_error() -> None:
    with pytest.raises(UnreadableImageError), opened(png()[:200]) as image:
        image.load()


@pytest.mark.parametrize("source", SOURCES)
def test_a_thumbnail_is_a_small_jpeg(source: Any, tmp_path: Path) -> None:
    small = thumbnail(source(png(), tmp_path), (30, 30), quality=70)
    assert (small.width, small.height) == (30, 20)
    assert image_size(small.uri) == (30, 20)


def test_no_other_module_opens_pictures() -> None:
    header_only = ROOT / "dfkdata/rows/huggingface.py"  # refuses files that are none; this room lies above it
    files = [path for name in ("dfkdata", "dfkeval", "dfktrain") for path in (ROOT / name).rglob("*.py")]
    openers = [
        path for path in sorted(files) if re.search(r"(Image|Pillow)\.open\(", path.read_text("utf-8"))
    ]
    assert openers == [ROOT / "dfkdata/media/images.py", header_only]

"""A picture is seen in one way: upright, on white, with 8 bits, whatever its file or mode."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from dfkdata.media import probe
from dfkdata.media.images import (
    AnimatedImageError,
    UnreadableImageError,
    image_size,
    image_traits,
    open_image,
    thumbnail,
)
from dfkdata.media.perceptual_hash import decode
from dfkdata.media.probe import inspect

SIZE = (48, 30)


def drawn(mode: str) -> Image.Image:
    """A picture without symmetry, in a mode; a third of it is transparent where the mode can be."""
    image = Image.linear_gradient("L").resize(SIZE).convert("RGB")
    pen = ImageDraw.Draw(image)
    pen.rectangle((2, 2, 20, 8), fill=(200, 30, 40))
    pen.line((0, 29, 47, 10), fill=(10, 90, 200), width=3)
    if mode in ("RGBA", "LA", "PA", "P with transparency"):
        alpha = Image.new("L", SIZE, 255)
        ImageDraw.Draw(alpha).rectangle((0, 15, 47, 25), fill=0)
        ImageDraw.Draw(alpha).rectangle((0, 26, 47, 29), fill=120)
        image.putalpha(alpha)
        return image.convert("P" if mode.startswith("P with") else mode)
    if mode == "I;16":
        return Image.fromarray(np.linspace(0, 65535, 48)[None].repeat(30, 0).astype("uint16"))
    return image.convert(mode)


def encoded(kind: str, mode: str, orientation: int, **more: Any) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    drawn(mode).save(buffer, kind, exif=exif, **more)
    return buffer.getvalue()


FILES = {
    "JPEG": ["RGB", "L", "CMYK"],
    "PNG": ["RGB", "L", "1", "P", "RGBA", "LA", "P with transparency", "I;16"],
    "WEBP": ["RGB", "RGBA"],
    "TIFF": ["RGB", "L", "P", "RGBA", "LA", "CMYK", "I;16"],
}
CASES = [(kind, mode, turn) for kind, modes in FILES.items() for mode in modes for turn in range(1, 9)]


def expected(data: bytes) -> Image.Image:
    """What `exif_transpose` and a white ground make of a file."""
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert upright is not None
    if upright.mode.startswith("I"):
        return Image.fromarray((np.asarray(upright) >> 8).astype("uint8")).convert("RGB")
    if not upright.has_transparency_data:
        return upright.convert("RGB")
    ground = Image.new("RGBA", upright.size, (255, 255, 255, 255))
    ground.alpha_composite(upright.convert("RGBA"))
    return ground.convert("RGB")


@pytest.mark.parametrize(("kind", "mode", "turn"), CASES)
def test_pixels_and_sizes_are_those_of_exif_transpose_on_white(
    kind: str, mode: str, turn: int, tmp_path: Path
) -> None:
    data = encoded(kind, mode, turn)
    (tmp_path / "a").write_bytes(data)
    right = expected(data)
    for source in (data, tmp_path / "a", Image.open(io.BytesIO(data))):
        found = open_image(source)
        assert (found.mode, found.size) == ("RGB", right.size)
        assert found.tobytes() == right.tobytes()
    assert image_size(data) == image_size(tmp_path / "a") == right.size
    assert image_size(Image.open(io.BytesIO(data))) == right.size
    header = inspect(data)
    assert (header.width, header.height) == right.size
    assert ("turned" in header.changes) == (turn > 1)


@pytest.mark.parametrize("order", ["<", ">"])
def test_no_orientation_is_missed_by_looking_at_the_notes_of_a_jpeg_alone(
    order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exif with the tag in every type and place, twice, and beside XMP: what Pillow reads is what counts."""
    chooser = random.Random(order)
    plain = io.BytesIO()
    drawn("RGB").save(plain, "JPEG")
    opened: list[bytes] = []
    monkeypatch.setattr(probe, "image_traits", lambda data: opened.append(data) or image_traits(data))
    for _ in range(400):
        entries = [
            (0x0112, chooser.choice([1, 3, 3, 4]), 1, chooser.choice([1, 1, 6, 8, 0, 300]))
        ] * chooser.randint(0, 2)
        entries += [
            (chooser.choice([0x010F, 0x0132, 0x8769, 0x0111]), 3, 1, chooser.choice([1, 0x1201, 0x0112]))
        ]
        chooser.shuffle(entries)
        head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(entries))
        value = {1: "B3x", 3: "H2x", 4: "I"}
        fields = [
            struct.pack(order + "HHI" + value[kind], tag, kind, n, number % (256 if kind == 1 else 65536))
            for tag, kind, n, number in entries
        ]
        notes = b"Exif\0\0" + head + b"".join(fields) + b"\0\0\0\0"
        segments = [notes] * chooser.choice([1, 1, 2])
        if not chooser.randrange(4):
            segments.append(b"http://ns.adobe.com/xap/1.0/\0" + b'<x:xmpmeta tiff:Orientation="6"/>')
        data = plain.getvalue()
        added = b"".join(b"\xff\xe1" + struct.pack(">H", len(part) + 2) + part for part in segments)
        data = data[:2] + added + data[2:]
        header = inspect(data)
        traits = image_traits(data)
        assert (header.width, header.height, header.changes) == (traits.width, traits.height, traits.changes)
    assert len(opened) < 385, "an upright picture needs no second look"


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_opaque_pictures_are_those_of_transformers(kind: str, turn: int, tmp_path: Path) -> None:
    load_image = pytest.importorskip("transformers.image_utils").load_image
    path = tmp_path / f"a.{kind.lower()}"
    path.write_bytes(encoded(kind, "RGB", turn))
    assert open_image(path).tobytes() == load_image(str(path)).tobytes()
    assert open_image(Image.open(path)).tobytes() == load_image(Image.open(path)).tobytes()


def png_with(chunk: bytes, name: bytes, *, late: bool) -> bytes:
    """A PNG with one more chunk, before or behind its pixels."""
    buffer = io.BytesIO()
    drawn("RGB").save(buffer, "PNG")
    data = buffer.getvalue()
    at = data.rindex(b"IEND") - 4 if late else data.index(b"IDAT") - 4
    note = struct.pack(">I", len(chunk)) + name + chunk + struct.pack(">I", zlib.crc32(name + chunk))
    return data[:at] + note + data[at:]


EXIF = Image.Exif()
EXIF[0x0112] = 6
XMP = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
NOTES = {
    "exif": (EXIF.tobytes().removeprefix(b"Exif\0\0"), b"eXIf"),
    "xmp": (b"XML:com.adobe.xmp\0\0\0\0\0" + XMP.encode(), b"iTXt"),
    "raw profile": (
        b"Raw profile type exif\0\nexif\n" + b"%8d\n" % len(EXIF.tobytes()) + EXIF.tobytes().hex().encode(),
        b"tEXt",
    ),
}


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("note", NOTES)
def test_a_png_is_turned_by_every_note_that_pillow_reads_wherever_it_stands(
    note: str, late: bool, tmp_path: Path
) -> None:
    data = png_with(*NOTES[note], late=late)
    (tmp_path / "a.png").write_bytes(data)
    right = expected(data)
    assert right.size == (30, 48)
    assert open_image(data).tobytes() == right.tobytes()
    assert image_size(data) == image_size(tmp_path / "a.png") == right.size
    assert (inspect(data).width, inspect(data).height) == right.size


def test_a_jpeg_is_turned_by_its_xmp() -> None:
    buffer = io.BytesIO()
    drawn("RGB").save(buffer, "JPEG", xmp=XMP.encode())
    data = buffer.getvalue()
    assert open_image(data).size == image_size(data) == (30, 48)
    assert inspect(data)[1:3] == (30, 48)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_broken_exif_notes_leave_the_picture_readable(cut: int) -> None:
    """Viewers show such a picture as it is stored."""
    raw = EXIF.tobytes()
    for notes in (raw[:-cut], raw[:8] + bytes([255] * cut), b"Exif\0\0" + b"MM\0*" + b"\xff" * cut):
        buffer = io.BytesIO()
        drawn("RGB").save(buffer, "JPEG", exif=notes)
        data = buffer.getvalue()
        assert open_image(data).size == image_size(data) == inspect(data)[1:3]
        assert open_image(data).size in (SIZE, SIZE[::-1])


def ramp(kind: str, low: float, high: float, orientation: int = 1) -> Any:
    values = np.linspace(low, high, 256)[None].repeat(4, 0).astype(kind)
    return Image.fromarray(values)


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [
        ("uint16", 0, 65535), ("int32", 0, 65535), ("int32", 0, 255), ("int32", -4000, 90000),
        ("int32", 0, 2**31 - 1), ("float32", 0, 1), ("float32", 0, 255), ("float32", 0, 1.5), ("float32", -1, 1),
        ("float32", 0, 65535), ("float32", -1000, 3000),
    ],
)  # fmt: skip
@pytest.mark.parametrize("how", ["file", "memory"])
def test_a_ramp_keeps_its_grey_levels_and_their_order(kind: str, low: float, high: float, how: str) -> None:
    image: Any = ramp(kind, low, high)
    if how == "file":
        buffer = io.BytesIO()
        image.save(buffer, "TIFF")
        image = buffer.getvalue()
        assert inspect(image).changes == ("scaled",)
    row = np.asarray(open_image(image))[0]
    assert (row[:, 0] == row[:, 1]).all() and (row[:, 0] == row[:, 2]).all()
    levels = row[:, 0].astype(int)
    assert (np.diff(levels) >= 0).all()
    assert len(set(levels)) >= 250 and levels[0] <= 1 and levels[-1] >= 254


def test_values_that_are_no_numbers_do_not_hide_the_picture() -> None:
    values = np.linspace(0, 1, 256)[None].repeat(4, 0).astype("float32")
    for odd in (np.nan, np.inf, -np.inf):
        values[0, 0] = odd
        assert len(np.unique(np.asarray(open_image(Image.fromarray(values)))[1:])) >= 250


def frames(kind: str, count: int) -> bytes:
    buffer = io.BytesIO()
    images = [Image.new("RGB", SIZE, (40 * n, 90, 200 - 40 * n)) for n in range(count)]
    images[0].save(buffer, kind, save_all=True, append_images=images[1:])
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_several_frames_are_refused_unless_the_first_is_asked_for(kind: str) -> None:
    data = frames(kind, 3)
    for read in (open_image, image_size, lambda one: thumbnail(one, (9, 9), quality=70)):
        for source in (data, Image.open(io.BytesIO(data))):
            with pytest.raises(AnimatedImageError, match="IMG_ANIMATED=fix"):
                read(source)
    assert open_image(data, first_frame=True).getpixel((5, 5))[1] in range(85, 95)
    assert "first_frame" in image_traits(data).changes and "first_frame" in inspect(data).changes
    assert not decode_problem(data)
    one = frames(kind, 1)
    assert open_image(one).size == SIZE
    assert "first_frame" not in inspect(one).changes


def decode_problem(data: bytes) -> str:
    return decode(data).problem  # type: ignore[arg-type]


def test_a_camera_file_with_a_preview_is_one_picture() -> None:
    data = frames("MPO", 2)
    assert Image.open(io.BytesIO(data)).format == "MPO"
    assert open_image(data).size == image_size(data) == SIZE
    assert inspect(data).changes == ()


def files() -> Iterator[bytes]:
    for kind, mode, turn in CASES:
        yield encoded(kind, mode, turn)
    for kind in ("GIF", "PNG", "WEBP", "TIFF"):
        for count in (1, 2):
            yield frames(kind, count)
    for mode in ("P", "RGBA", "LA", "L"):
        buffer = io.BytesIO()
        drawn(mode).save(buffer, "GIF")
        yield buffer.getvalue()
    for lossless in (True, False):
        for mode in ("RGB", "RGBA"):
            buffer = io.BytesIO()
            drawn(mode).save(buffer, "WEBP", lossless=lossless)
            yield buffer.getvalue()
    for note in NOTES.values():
        for late in (True, False):
            yield png_with(*note, late=late)


def test_the_fast_header_says_what_pillow_says() -> None:
    """The probe asks Pillow only for headers that are odd; it may not miss one."""
    for data in files():
        found, right = inspect(data), image_traits(data)
        assert (found.width, found.height, found.changes) == right


def test_an_upright_copy_and_a_turned_file_look_the_same() -> None:
    for turn in range(1, 9):
        data = encoded("JPEG", "RGB", turn, quality=95)
        upright = io.BytesIO()
        expected(data).save(upright, "PNG")
        one, other = decode(data), decode(upright.getvalue())  # type: ignore[arg-type]
        assert (one.dhash ^ other.dhash).bit_count() <= 3


@pytest.mark.parametrize("image", [7, 1.5, None, {"bytes": b"x"}, ["a.png"], object(), np.zeros((3, 3, 3))])
def test_what_is_neither_path_nor_bytes_nor_picture_is_refused_by_its_kind(image: Any) -> None:
    for read in (open_image, image_size):
        with pytest.raises(UnreadableImageError, match=type(image).__name__):
            read(image)

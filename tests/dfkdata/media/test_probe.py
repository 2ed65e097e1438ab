"""One picture file is inspected, or an error says why it is none."""

from __future__ import annotations

import io
import os
from pathlib import Path
from random import Random
from typing import Any
from zlib import crc32

import pytest
from PIL import Image

from dfkdata.media.images import image_traits
from dfkdata.media.probe import MAX_PIXELS, audit, inspect
from dfkdata.rows.record import RowError
from tests.helpers.pictures import KINDS, picture


def code(fault: pytest.ExceptionInfo[RowError]) -> str:
    return fault.value.code


def test_a_header_that_claims_too_many_pixels_is_refused_unread() -> None:
    data = bytearray(KINDS["png"])
    data[16:24] = (40_000).to_bytes(4) + (40_000).to_bytes(4)
    data[29:33] = crc32(data[12:29]).to_bytes(4)
    assert MAX_PIXELS < 40_000**2
    with pytest.raises(RowError) as fault:
        inspect(bytes(data))
    assert code(fault) == "IMG_BOMB"


@pytest.mark.parametrize(
    "data", [b"", b"<html>404</html>", b"\xff\xd8\xff", b"GIF89a", b"RIFF\x04\0\0\0WEBP"]
)
def test_what_is_no_picture_is_unreadable(data: bytes) -> None:
    with pytest.raises(RowError) as fault:
        inspect(data)
    assert code(fault) == "IMG_UNREADABLE"


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(RowError) as fault:
        audit(str(tmp_path / "pipe.png"))
    assert code(fault) == "IMG_UNREADABLE"


def test_a_picture_without_pixels_is_unreadable() -> None:
    header = b"IHDR" + bytes(8) + b"\x08\x02\x00\x00\x00"
    header += crc32(header).to_bytes(4)
    data = b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4) + header + b"\x00\x00\x00\x00IEND\xaeB`\x82"
    with pytest.raises(RowError, match="0 x 0 pixels") as caught:
        inspect(data)
    assert caught.value.code == "IMG_UNREADABLE"


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_picture_is_read_with_its_size(kind: str) -> None:
    found = inspect(KINDS[kind])
    assert (found.width, found.height, found.size) == (60, 40, len(KINDS[kind]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.5, 0.8, 0.99])
def test_a_picture_that_is_cut_off_is_found(kind: str, share: float) -> None:
    data = KINDS[kind]
    with pytest.raises(RowError) as fault:
        inspect(data[: int(len(data) * share)])
    assert code(fault) in ("IMG_TRUNCATED", "IMG_UNREADABLE")


def test_a_jpeg_cut_behind_its_thumbnail_is_found() -> None:
    thumbnail = KINDS["jpeg"]
    exif = b"Exif\0\0" + thumbnail
    main = KINDS["progressive"]
    data = main[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2) + exif + main[2:]
    assert inspect(data).width == 60
    for end in (2 + 4 + len(exif), len(data) - 2, len(data) * 8 // 10):
        with pytest.raises(RowError) as fault:
            inspect(data[:end])
        assert code(fault) in ("IMG_TRUNCATED", "IMG_UNREADABLE")


@pytest.mark.parametrize("kind", ["jpeg", "progressive", "png"])
def test_bytes_behind_the_end_marker_do_no_harm(kind: str) -> None:
    assert inspect(KINDS[kind] + b"trailing notes of a camera").height == 40


@pytest.mark.parametrize("at", [0.1, 0.35, 0.5, 0.77, 0.95])
@pytest.mark.parametrize("kind", ["jpeg", "progressive"])
def test_a_jpeg_with_foreign_bytes_in_the_middle_is_found(kind: str, at: float) -> None:
    data = bytearray(picture("JPEG", (640, 480), progressive=kind == "progressive"))
    start, size = int(len(data) * at), len(data) // 25
    data[start : start + size] = Random(7).randbytes(size)
    with pytest.raises(RowError, match="foreign bytes in its coded data") as fault:
        inspect(bytes(data))
    assert code(fault) == "IMG_UNREADABLE"


def test_a_jpeg_without_a_scan_is_damaged() -> None:
    data = KINDS["jpeg"]
    scan = data.index(b"\xff\xda")
    for rest in (b"\0" * 400, data[scan + 2 :], b""):
        with pytest.raises(RowError) as fault:
            inspect(data[:scan] + rest + b"\xff\xd9")
        assert code(fault) in ("IMG_UNREADABLE", "IMG_TRUNCATED")


@pytest.mark.parametrize("stray", [b"\0" * 7, b"\n", b"\xff\0", b"\xff\xd3", b"\xff" * 3, b"\xff\0\xff\xd0x"])
@pytest.mark.parametrize("before", [b"\xff\xdb", b"\xff\xc0", b"\xff\xc4", b"\xff\xda"])
def test_a_jpeg_may_hold_stray_bytes_between_its_segments(before: bytes, stray: bytes) -> None:
    data = KINDS["jpeg"]
    at = data.index(before)
    strayed = data[:at] + stray + data[at:]
    Image.open(io.BytesIO(strayed)).load()
    assert (inspect(strayed).width, inspect(strayed).height) == (60, 40)
    for end in (at + len(stray), len(strayed) * 8 // 10):
        with pytest.raises(RowError) as fault:
            inspect(strayed[:end])
        assert code(fault) in ("IMG_UNREADABLE", "IMG_TRUNCATED")


def test_a_marker_without_a_length_is_skipped_between_segments() -> None:
    data = KINDS["jpeg"].replace(b"\xff\xdb", b"\xff\x01\xff\xdb", 1)
    assert inspect(data).width == 60


def test_a_jpeg_may_set_arithmetic_coding_between_its_scans() -> None:
    data = KINDS["progressive"]
    at = data.index(b"\xff\xc4", data.index(b"\xff\xda"))
    data = data[:at] + b"\xff\xcc\0\4\0\x10" + data[at:]
    Image.open(io.BytesIO(data)).load()
    assert inspect(data).width == inspect(data + b"trailing").width == 60


@pytest.mark.parametrize(
    "how",
    [
        {"optimize": True, "quality": 95},
        {"restart_marker_blocks": 1},
        {"progressive": True, "restart_marker_rows": 1, "quality": 100, "subsampling": 0},
        {"comment": b"\xff\x01\xff\xd8 a comment", "icc_profile": b"\xff\xd9\xff\x55" * 400},
        {"smooth": 5, "quality": 1},
    ],
)
@pytest.mark.parametrize("size", [(8, 8), (333, 257), (1400, 900)])
def test_a_whole_jpeg_is_never_called_damaged(how: dict[str, Any], size: tuple[int, int]) -> None:
    for image in (
        Image.effect_noise(size, 90).convert("RGB"),
        Image.effect_noise(size, 200),
        Image.new("L", size, 255),
    ):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", **how)
        for data in (buffer.getvalue(), buffer.getvalue() + b"\xff\x01 trailing \xff\xd9"):
            assert (inspect(data).width, inspect(data).height) == size


def test_a_png_whose_bytes_changed_is_damaged_wherever_they_are() -> None:
    data = KINDS["png"]
    for at in range(16, len(data), 97):
        changed = bytes((*data[:at], data[at] ^ 0x10, *data[at + 1 :]))
        with pytest.raises(RowError) as fault:
            inspect(changed)
        assert code(fault) in ("IMG_UNREADABLE", "IMG_TRUNCATED", "IMG_BOMB")


def test_a_png_may_hold_many_chunks() -> None:
    large = picture("PNG", (700, 500))
    assert large.count(b"IDAT") > 1 and inspect(large).height == 500


@pytest.mark.parametrize("name", [b"tEXt", b"teXt", b"gAMA", b"prVt"])
def test_a_png_note_with_a_wrong_check_sum_is_damage_where_decoders_look_at_it(name: bytes) -> None:
    data = KINDS["png"]
    note = (4).to_bytes(4) + name + b"note" + b"\0\0\0\0"
    before, behind = data[:33] + note + data[33:], data[:-12] + note + data[-12:]
    with pytest.raises(OSError, match="cannot identify"):
        Image.open(io.BytesIO(before))
    with pytest.raises(RowError, match="check sum of its chunk at byte 33 is wrong") as fault:
        inspect(before)
    assert code(fault) == "IMG_UNREADABLE"
    Image.open(io.BytesIO(behind)).load()
    right = before[:45] + crc32(name + b"note").to_bytes(4) + data[33:]
    assert inspect(behind).width == inspect(right).width == 60


def animation() -> bytes:
    """A GIF of four frames and a comment, each frame with its own colours."""
    frames = [Image.effect_noise((60, 40), 60).convert("RGB") for _ in range(4)]
    buffer = io.BytesIO()
    more: dict[str, Any] = {"append_images": frames[1:], "comment": b"one; two; " * 60}
    frames[0].save(buffer, "GIF", save_all=True, **more)
    return buffer.getvalue()


@pytest.mark.parametrize("data", [KINDS["gif"], animation()], ids=["one", "many"])
def test_a_gif_ends_at_its_trailer_and_nowhere_else(data: bytes) -> None:
    for whole in (data, data + b"trailing notes", data + bytes(9), data[:-1] + b"\0\0\7;"):
        assert (inspect(whole).width, inspect(whole).height) == (60, 40)
    for end in range(14, len(data)):  # some lie just behind a ";" of the data
        with pytest.raises(RowError) as fault:
            inspect(data[:end])
        assert code(fault) == "IMG_TRUNCATED"


@pytest.mark.parametrize("pixels", [b"", b"\0\0\0\0IDAT\x35\xaf\x06\x1e"])
def test_a_png_without_pixels_is_damaged(pixels: bytes) -> None:
    with pytest.raises(RowError, match="holds no pixels") as fault:
        inspect(KINDS["png"][:33] + pixels + KINDS["png"][-12:])
    assert code(fault) == "IMG_UNREADABLE"


def exif_entries(order: Any, entries: list[tuple[int, int, int, bytes]], more: bytes = b"") -> bytes:
    """Return Exif with one directory of (tag, type, number of values, four bytes), and what follows it."""
    mark = b"II" if order == "little" else b"MM"
    head = b"Exif\0\0" + mark + (42).to_bytes(2, order) + (8).to_bytes(4, order)
    body = b"".join(
        tag.to_bytes(2, order) + kind.to_bytes(2, order) + count.to_bytes(4, order) + value
        for tag, kind, count, value in entries
    )
    return head + len(entries).to_bytes(2, order) + body + bytes(4) + more


def with_exif(exif: bytes, size: tuple[int, int] = (12, 7)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (200, 90, 10)).save(buffer, "JPEG")
    data = buffer.getvalue()
    return data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2) + exif + data[2:]


@pytest.mark.filterwarnings("ignore")  # Pillow's, about Exif that points nowhere
@pytest.mark.parametrize("order", ["little", "big"])
def test_every_orientation_is_what_the_opener_sees(order: Any) -> None:
    """The header's own reader and Pillow agree on all Exif, in order or not."""
    chance = Random(order)
    files: list[bytes] = []
    for turn in range(10):
        value = turn.to_bytes(2, order) + bytes(2)
        inside, outside = (at.to_bytes(4, order) for at in (60, 60_000))
        for before in (
            [],
            [(0x010F, 2, 9, inside)],
            [(0x010F, 2, 9, outside)],
            [(0x0100, 99, 2**31, outside)],
        ):
            for kind, count in ((3, 1), (3, 2), (4, 1), (3, 0)):
                entries = [*before, (0x0112, kind, count, value), (0x0128, 3, 1, value)]
                files.append(exif_entries(order, entries, b"maker of it\0" * 4))
        thumbnail = exif_entries(order, [(0x0112, 3, 1, value)])[6:]
        files.append(exif_entries(order, [(0x0128, 3, 1, value)], thumbnail))
        files.append(exif_entries(order, [(0x0112, 3, 1, value), (0x0112, 3, 1, bytes(4))]))
    for exif in [*files]:
        changed = bytearray(exif)
        for _ in range(chance.randint(1, 3)):
            changed[chance.randrange(6, len(exif))] = chance.choice((0, 1, 6, 255, chance.randrange(256)))
        files += [bytes(changed), exif[: chance.randrange(6, len(exif))]]
    turned = 0
    for exif in files:
        data = with_exif(exif)
        picture, opened = inspect(data), image_traits(data)
        assert (picture.width, picture.height, picture.changes) == opened, exif
        turned += "turned" in opened.changes
    assert turned > 50

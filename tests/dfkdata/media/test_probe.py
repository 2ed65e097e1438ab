"""One picture file is inspected, or an error says why it is none."""

from __future__ import annotations

import os
from pathlib import Path
from zlib import crc32

import pytest

from dfkdata.media.image_formats import MAX_PIXELS
from dfkdata.media.probe import audit, inspect
from dfkdata.rows.record import RowError
from tests.helpers.pictures import KINDS


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

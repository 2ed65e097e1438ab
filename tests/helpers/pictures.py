"""Small picture files of every kind, and broken ones."""

from __future__ import annotations

import io
import zlib

from PIL import Image


def picture(kind: str, size: tuple[int, int] = (60, 40), **how: object) -> bytes:
    image = Image.effect_noise(size, 60).convert("RGB")
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)
    return buffer.getvalue()


def undecodable(png: bytes) -> bytes:
    """The picture with other coded data and the check sum of that, so that only decoding finds it."""
    broken, data = bytearray(png), png.index(b"IDAT")
    end = data + 4 + int.from_bytes(png[data - 4 : data])
    broken[60:900] = bytes(840)
    broken[end : end + 4] = zlib.crc32(broken[data:end]).to_bytes(4)
    return bytes(broken)


KINDS = {
    "jpeg": picture("JPEG"),
    "progressive": picture("JPEG", progressive=True),
    "png": picture("PNG"),
    "gif": picture("GIF"),
    "webp": picture("WEBP"),
    "lossless": picture("WEBP", lossless=True),
    "bmp": picture("BMP"),
    "tiff": picture("TIFF"),
}

"""Inspect one picture file: kind, size, content hash, and whether it is whole.

Guarantees:
- The file is read once.
- A header that claims more than `MAX_PIXELS` is refused before anything is decoded."""

from __future__ import annotations

import os
import stat
from hashlib import sha256
from typing import NamedTuple

from dfkdata.media.image_formats import MAX_PIXELS, DamagedImageError, picture_kind, read_header
from dfkdata.media.images import ImageTraits, UnreadableImageError, image_traits
from dfkdata.rows.record import RowError

MAX_BYTES = 1 << 29
MAX_ASPECT = 200
"""Largest ratio of an image's sides that the image processors of Qwen models take."""


class Picture(NamedTuple):
    """What one picture file is.

    Attributes:
        kind: "jpeg", "png", "gif", "webp" or "other".
        width: Of the upright picture, in pixels.
        height: Of the upright picture, in pixels.
        size: Of the file, in bytes.
        digest: The SHA-256 of the file.
        changes: What opening it does to its pixels, names of `dfkdata.media.images.CHANGES`.
    """

    kind: str
    width: int
    height: int
    size: int
    digest: bytes
    changes: tuple[str, ...] = ()

    @property
    def is_long(self) -> bool:
        """Whether one side is more than `MAX_ASPECT` times the other."""
        return max(self.width, self.height) > MAX_ASPECT * min(self.width, self.height)


def _without_waiting(path: str, flags: int) -> int:
    """Open without blocking: a pipe would otherwise wait for somebody to write to it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def audit(path: str) -> Picture:
    """Read and inspect one file.

    Raises:
        RowError: With IMG_UNREADABLE, IMG_TRUNCATED or IMG_BOMB.
    """
    try:
        with open(path, "rb", buffering=0, opener=_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise RowError("IMG_UNREADABLE", "not a regular file", path="images", value=path)
            if status.st_size > MAX_BYTES:
                raise RowError("IMG_BOMB", f"{status.st_size} bytes", path="images", value=path)
            data = file.read()
    except OSError as error:
        raise RowError(
            "IMG_UNREADABLE", f"cannot be read ({error.strerror})", path="images", value=path
        ) from error
    return inspect(data, path)


def inspect(data: bytes, name: str = "") -> Picture:
    """Inspect the bytes of a picture file.

    Args:
        data: The bytes.
        name: What errors call the picture.

    Raises:
        RowError: As `audit`.
    """
    kind = picture_kind(data)
    try:
        width, height, whole, plain = read_header(data, kind)
    except (IndexError, ValueError) as error:
        reason = "empty file" if not data else f"no readable picture header ({kind or 'unknown kind'})"
        reason = str(error) if isinstance(error, DamagedImageError) else reason
        hint = "replace the file or leave the row out"
        raise RowError("IMG_UNREADABLE", reason, path="images", value=name, hint=hint) from error
    if not whole:
        reason = f"the {kind} ends before its end marker: the file is cut off"
        raise RowError("IMG_TRUNCATED", reason, path="images", value=name, hint="fetch the file again")
    if not width * height:
        reason = f"the header says {width} x {height} pixels"
        raise RowError("IMG_UNREADABLE", reason, path="images", value=name, hint="replace the file")
    if width * height > MAX_PIXELS:
        reason = f"{width} x {height} pixels, the limit is {MAX_PIXELS}"
        raise RowError("IMG_BOMB", reason, path="images", value=name, hint="scale the picture down")
    changes: tuple[str, ...] = ()
    if not plain:
        width, height, changes = _traits(data, name)
    return Picture(kind or "other", width, height, len(data), sha256(data).digest(), changes)


def _traits(data: bytes, name: str) -> ImageTraits:
    try:
        return image_traits(data)
    except UnreadableImageError as error:
        hint = "replace the file or leave the row out"
        raise RowError("IMG_UNREADABLE", error.problem, path="images", value=name, hint=hint) from error

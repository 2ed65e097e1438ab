"""Inspect one picture file: kind, size, content hash, and whether it is whole.

How it works. Pixels are not decoded: a header names the size in a few microseconds, and a cut file lacks its
end, which decoders' own `verify` does not notice for JPEG. A PNG's chunks carry check sums, so damage in what
decoders read of it is found; a JPEG's coded data carries none, so samples of it are searched for markers that
cannot stand there: a long stretch of foreign bytes is found, a few changed bits are not. Formats without a
parser here go to Pillow. A header also says whether the picture is seen just as it is stored, or turned as the
Exif of a JPEG says; only if there may be more to it (transparent, 16-bit, CMYK, several frames, notes that are no
plain Exif) `dfkdata.media.images` is asked.

Guarantees:
- The file is read once.
- A header that claims more than `MAX_PIXELS` is refused before anything is decoded."""

from __future__ import annotations

import os
import re
import stat
from hashlib import sha256
from typing import Literal, NamedTuple
from zlib import crc32

from dfkdata.common.files import MAX_BYTES
from dfkdata.media.images import ImageTraits, UnreadableImageError, image_traits, opened
from dfkdata.rows.record import RowError

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
    kind = _kind(data)
    try:
        width, height, whole, plain, orientation = _read_header(data, kind)
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
    elif orientation > 1:
        width, height = (height, width) if orientation >= 5 else (width, height)
        changes = ("turned",)
    return Picture(kind or "other", width, height, len(data), sha256(data).digest(), changes)


def _traits(data: bytes, name: str) -> ImageTraits:
    try:
        return image_traits(data)
    except UnreadableImageError as error:
        hint = "replace the file or leave the row out"
        raise RowError("IMG_UNREADABLE", error.problem, path="images", value=name, hint=hint) from error


MAX_PIXELS = 178_956_970  # twice Pillow's default warning limit, where Pillow itself raises


def _kind(data: bytes) -> str:
    """Return "jpeg", "png", "gif" or "webp" by the first bytes of a file; empty for another kind."""
    for magic, kind in _MAGIC:
        if data.startswith(magic):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return ""


def _read_header(data: bytes, kind: str) -> _Header:
    """Return what the header of a picture says, and whether the file reaches its end.

    Args:
        data: The bytes of the file.
        kind: What `_kind` says.

    Raises:
        DamagedImageError: If a picture with a good header cannot be whole inside.
        ValueError, IndexError: If there is no readable header.
    """
    return _PARSERS[kind](data) if kind in _PARSERS else _pillow(data)


class _Header(NamedTuple):
    """What a parser finds.

    Attributes:
        width: As stored, in pixels.
        height: As stored, in pixels.
        whole: Whether the file reaches its end marker.
        plain: Whether the picture is certainly seen as it is stored, but for its orientation: opaque, 8-bit, one
            frame.
        orientation: From 1 (upright) to 8, as in Exif.
    """

    width: int
    height: int
    whole: bool
    plain: bool = True
    orientation: int = 1


class DamagedImageError(ValueError):
    """Why a picture with a good header cannot be whole inside."""


_MAGIC = ((b"\xff\xd8\xff", "jpeg"), (b"\x89PNG\r\n\x1a\n", "png"), (b"GIF87a", "gif"), (b"GIF89a", "gif"))


_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0..SOF15 without DHT, JPG, DAC
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # in coded data, FF 00 and FF D0..D7 are no markers


_ALONE = frozenset((0x00, 0x01, *range(0xD0, 0xD8), 0xFF))  # FF and one of these begins no segment
_SEGMENT = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")


def _jpeg(data: bytes) -> _Header:
    """Walk the segments to the first scan, past stray bytes between them as decoders do.

    The end is the EOI marker that closes the picture, not that of a thumbnail."""
    at, size, code, plain, turn = 2, (0, 0), 0, True, 1
    while at + 1 < len(data):
        code = data[at + 1]
        if data[at] != 0xFF or code in _ALONE:
            segment = _SEGMENT.search(data, at)
            at = segment.start() if segment else len(data)
            continue
        if code in (0xDA, 0xD9):
            break
        if code in _FRAME:
            size = (int.from_bytes(data[at + 7 : at + 9]), int.from_bytes(data[at + 5 : at + 7]))
            plain = plain and data[at + 9] != 4  # components: CMYK
        elif code == 0xE1:
            turned = _orientation(data, at)
            plain, turn = plain and turned > 0, max(turn, turned)
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    else:
        code = 0
    width, height, whole = _scans(data, at, size, code)
    return _Header(width, height, whole, plain, turn)


_ORIENTATION = {
    b"II": (b"\x12\x01", b"\x03\0\x01\0\0\0\x01\0"),
    b"MM": (b"\x01\x12", b"\0\x03\0\0\0\x01\0\x01"),
}
"""Byte order of Exif -> its tag of the orientation, and what follows the tag of an upright picture."""


def _orientation(data: bytes, at: int) -> int:
    """Return the orientation that the APP1 segment at offset `at` certainly gives; 0 if Pillow has to read it.

    No orientation is missed, because its tag, or its name in XMP, has to stand somewhere in the segment."""
    notes = data[at + 4 : at + 2 + int.from_bytes(data[at + 2 : at + 4])]
    if not notes.startswith(b"Exif\0\0"):
        return 0 if b"rientation" in notes or b"Exif" in notes else 1
    tag, upright = _ORIENTATION.get(notes[6:8], (b"", b""))
    if not tag or b"rientation" in notes or b"Exif\0\0" in data[:at]:  # Pillow joins several segments of Exif
        return 0
    if all(part.startswith(upright) for part in notes.split(tag)[1:]):
        return 1
    return _in_first_directory(notes[6:], "little" if notes[6:7] == b"I" else "big")


_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}
"""Type of an entry in Exif -> bytes of one value."""


def _in_first_directory(exif: bytes, order: Literal["little", "big"]) -> int:
    """Return the orientation in the first directory of Exif, which Pillow reads to its end or to the first entry
    that points out of it; 0 if it is spelled in an unusual way."""

    def number(start: int, size: int) -> int:
        return int.from_bytes(exif[start : start + size], order)

    first = number(4, 4)
    end, room = first + 2 + 12 * number(first, 2), len(exif)
    if number(2, 2) != 42 or end > room:
        return 0
    for entry in range(first + 2, end, 12):
        kind, values = number(entry + 2, 2), number(entry + 4, 4)
        if number(entry, 2) == 0x0112:
            value = number(entry + 8, 2)
            return value if (kind, values) == (3, 1) and 1 <= value <= 8 else 0
        size = values * _SIZES.get(kind, 0)
        if size > 4:
            room -= size
            if room < 0 or number(entry + 8, 4) + size > len(exif):
                return 0
    return 1


def _scans(data: bytes, at: int, size: tuple[int, int], code: int) -> tuple[int, int, bool]:
    """Return the size, and whether the scans are whole.

    `code` is that of the segment at offset `at` that ended the walk (SOS or EOI), or 0 if the file ended."""
    if not code and size != (0, 0):
        return *size, False
    if not all(size):
        raise ValueError("no frame header before the first scan")
    if code != 0xDA:
        raise DamagedImageError(f"the jpeg is damaged: it ends at byte {at}, and no scan came before")
    ended = data.endswith(b"\xff\xd9") and not _doubtful(data, at)
    return *size, ended or _jpeg_ends(data, at)


_SAMPLES, _SAMPLE = 26, 1024
_FOREIGN = re.compile(rb"\xff[\x01-\xc3\xc5-\xcb\xcd-\xcf\xd8\xf0-\xfd]")  # markers that stand in no scan
_BETWEEN = frozenset((0xC4, 0xCC, 0xDA, 0xDB, 0xDC, 0xDD, 0xFE, *range(0xE0, 0xF0)))  # between scans


def _doubtful(data: bytes, at: int) -> bool:
    """Return whether some sample of the scans from offset `at` on looks foreign."""
    step = max(_SAMPLE, (len(data) - at) // _SAMPLES)
    return any(_FOREIGN.search(data, start, start + _SAMPLE) for start in range(at, len(data), step))


def _jpeg_ends(data: bytes, at: int) -> bool:
    """Return whether an EOI marker follows the scans from offset `at`; trailing bytes after it are allowed.

    A marker that no scan holds raises `DamagedImageError`."""
    while marker := _MARKER.search(data, at + 2 + int.from_bytes(data[at + 2 : at + 4])):
        at = marker.start()
        if data[at + 1] == 0xD9:
            return True
        if data[at + 1] not in _BETWEEN:
            raise DamagedImageError(
                f"the jpeg is damaged: foreign bytes in its coded data, first at byte {at}"
            )
    return False


def _png(data: bytes) -> _Header:
    """Walk the chunks to IEND; trailing bytes after it are allowed.

    A wrong check sum, or no chunk with pixels, raises `DamagedImageError`. Decoders ignore the check sums of
    notes behind the pixels, and so does this."""
    if data[12:16] != b"IHDR":
        raise ValueError("no IHDR")
    width, height = int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    view, at, pixels, name = memoryview(data), 8, 0, b""
    plain = data[24] <= 8 and data[25] in (0, 2, 3)  # bit depth, and colours without transparency
    while name != b"IEND":
        size, name = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        end = at + 8 + size
        if end + 4 > len(data):
            return _Header(width, height, False, plain)
        checked = not pixels or not name[0] & 0x20
        if checked and crc32(view[at + 4 : end]) != int.from_bytes(data[end : end + 4]):
            raise DamagedImageError(f"the png is damaged: the check sum of its chunk at byte {at} is wrong")
        pixels += size if name == b"IDAT" else 0
        plain = plain and name not in _PNG_NOTES
        at = end + 4
    if width * height and not pixels:
        raise DamagedImageError("the png holds no pixels: it has no IDAT chunk, or an empty one")
    return _Header(width, height, True, plain)


_PNG_NOTES = frozenset((b"tRNS", b"eXIf", b"acTL", b"iTXt", b"zTXt", b"tEXt"))
"""Chunks after which a PNG may be transparent, turned or animated."""


def _gif(data: bytes) -> _Header:
    """Walk the blocks to the trailer; trailing bytes after it are allowed."""
    if len(data) < 13:
        raise ValueError("no screen descriptor")
    width, height = int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little")
    at, end, frames, plain = 13 + _colours(data[10]), len(data), 0, True
    while at < end and data[at] != 0x3B:
        frames += data[at] == 0x2C
        plain = plain and data[at : at + 2] not in (b"!\xf9", b"!\xff")  # transparency, XMP
        at = _behind_block(data, at)
    return _Header(width, height, at < end, plain and frames == 1)


def _colours(flags: int) -> int:
    """Return how many bytes the colour table has that these flags announce."""
    return 6 << (flags & 7) if flags & 0x80 else 0


def _behind_block(data: bytes, at: int) -> int:
    """Return where the GIF block at `at` ends, which is beyond the file if it is cut.

    Decoders skip a byte that begins no block."""
    end = len(data)
    if data[at] == 0x2C:  # a picture: descriptor, colour table, code size
        at += 11 + _colours(data[at + 9]) if at + 9 < end else end
    elif data[at] == 0x21:  # an extension and its label
        at += 2
    else:
        return at + 1
    while at < end and data[at]:
        at += 1 + data[at]
    return at + 1


def _webp(data: bytes) -> _Header:
    whole = len(data) >= 8 + int.from_bytes(data[4:8], "little")
    chunk, body = data[12:16], data[20:30]
    if len(body) < 10:
        raise ValueError("no picture chunk")
    if chunk == b"VP8X":
        width, height = 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
        return _Header(width, height, whole, not body[0] & 0x1E)  # transparency, Exif, XMP, animation
    if chunk == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return _Header(1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF), whole, not bits >> 28 & 1)
    if chunk == b"VP8 ":
        width, height = int.from_bytes(body[6:8], "little"), int.from_bytes(body[8:10], "little")
        return _Header(width & 0x3FFF, height & 0x3FFF, whole)
    raise ValueError("unknown WebP chunk")


_PARSERS = {"jpeg": _jpeg, "png": _png, "gif": _gif, "webp": _webp}


def _pillow(data: bytes) -> _Header:
    """Let Pillow decode kinds without a parser here (BMP, TIFF, ...), since only that shows the end."""
    if not data:
        raise ValueError("empty")
    try:
        with opened(data, first_frame=True) as image:
            if image.width * image.height <= MAX_PIXELS:
                image.load()
            return _Header(image.width, image.height, True, plain=False)
    except UnreadableImageError as error:
        if error.too_large:
            raise RowError("IMG_BOMB", error.problem, path="images", hint="scale the picture down") from error
        raise ValueError(error.problem) from error

"""Images on disk: find them by their exact path inside declared roots, and tell a whole picture from a broken
one.

Strategy: the file is read once; its bytes give the hash, the header (format and size) and the end marker.
Pixels are not decoded: a header names the size in a few microseconds, and a cut file lacks its end, which
decoders' own `verify` does not notice for JPEG. A PNG's chunks carry check sums, so damage in what decoders
read of it is found; a JPEG's coded data carries none, so samples of it are searched for markers that cannot
stand there: a long stretch of foreign bytes is found, a few changed bits are not. Formats without a parser
here go to Pillow.
Promises: no fuzzy match (a near name is only suggested); nothing outside the roots, symlinks included; a
header that claims more than `MAX_PIXELS` is refused before anything is decoded. Remote images are never
fetched."""

# Paths stay strings here: building a Path costs more than the check it is for.
# ruff: noqa: PTH100, PTH114, PTH113, PTH118, PTH119, PTH120, PTH202

from __future__ import annotations

import base64
import binascii
import difflib
import os
import re
import stat
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote
from zlib import crc32

from dfkdata.media.images import UnreadableImage, opened
from dfkdata.rows.record import Fault

MAX_PIXELS = 178_956_970  # twice Pillow's default warning limit, where Pillow itself raises
MAX_BYTES = 1 << 29


class Picture(NamedTuple):
    """kind: "jpeg", "png", ... width, height: pixels. size: bytes. digest: SHA-256 of the file."""

    kind: str
    width: int
    height: int
    size: int
    digest: bytes


class Media:
    """Resolves and audits the images of one conversion.

    roots: folders in which images may lie; the first is where relative names start, then the others in order.
    store: folder that receives embedded images, named by content; None refuses embedded images."""

    def __init__(self, roots: tuple[Path, ...], store: Path | None = None) -> None:
        self.roots = tuple(os.path.abspath(root) for root in roots)
        self.real_roots = tuple(os.path.realpath(root) for root in roots)
        self._prefixes = tuple(root.rstrip(os.sep) + os.sep for root in {*self.roots, *self.real_roots})
        self.store = store
        self._real_folder = lru_cache(maxsize=1024)(os.path.realpath)
        self._audited = lru_cache(maxsize=4096)(audit)

    def locate(self, name: str) -> str:
        """The absolute path of `name`. Raises `Fault` when it is missing, ambiguous, remote or outside the
        roots."""
        if name.startswith("data:"):
            return self._keep(name)
        if name.startswith("file://"):
            name = unquote(name.removeprefix("file://"))
        elif "://" in name[:12]:
            hint = "download it and name the file; nothing is fetched while converting"
            raise Fault("IMG_REMOTE", "remote images are not fetched", path="images", value=name, hint=hint)
        if not name or "\0" in name:
            raise Fault("IMG_MISSING", "not a file name", path="images", value=name)
        paths = [os.path.join(root, name) for root in self.roots]
        inside = [path for path in paths if self._below(os.path.normpath(path))]
        if not inside:
            raise _outside(name)
        found = [path for path in inside if os.path.lexists(path)]
        if not found:
            hint = self._suggestion(name)
            reason = "no such file under the image root"
            raise Fault("IMG_MISSING", reason, path="images", value=name, hint=hint)
        if len(found) > 1 and len({os.path.realpath(path) for path in found}) > 1:
            hint = f"it lies under {len(found)} roots; give one of them"
            reason = "more than one file of that name"
            raise Fault("IMG_AMBIGUOUS", reason, path="images", value=name, hint=hint)
        return self._really_inside(found[0], name)

    def other(self, name: str, kind: str) -> str:
        """The absolute path of a video or an audio file. Raises `Fault` when it is missing, empty or
        outside."""
        try:
            path = self.locate(name)
        except Fault as fault:
            code = "MEDIA_MISSING" if fault.code == "IMG_MISSING" else fault.code
            raise Fault(code, fault.reason, path=f"{kind}s", value=name, hint=fault.hint) from fault
        if not os.path.isfile(path) or not os.path.getsize(path):
            raise Fault(
                "MEDIA_MISSING", f"the {kind} is no file, or an empty one", path=f"{kind}s", value=name
            )
        return path

    def picture(self, path: str) -> Picture:
        """What the file at `path` holds. Raises `Fault` for anything that is not one whole picture."""
        try:
            return self._audited(path)
        except Fault as fault:
            fault.value = os.path.relpath(path, self.roots[0])
            raise

    def _really_inside(self, path: str, name: str) -> str:
        """`path`, unless symlinks lead out of the roots. Raises `Fault`."""
        folder, file = os.path.split(path)
        plain = file not in (".", "..") and not os.path.islink(path)
        real = os.path.join(self._real_folder(folder), file) if plain else os.path.realpath(path)
        if not self._below(real):
            raise _outside(name)
        return real if ".." in name else path

    def _below(self, path: str) -> bool:
        return path.startswith(self._prefixes)

    def _suggestion(self, name: str) -> str:
        """The nearest existing name in the same folder; only a hint, never used."""
        for root in self.real_roots:
            folder = os.path.realpath(os.path.join(root, os.path.dirname(name)))
            if folder == root or folder.startswith(root + os.sep):
                near = difflib.get_close_matches(os.path.basename(name), _listing(folder), n=1)
                if near:
                    return f"did you mean {os.path.join(os.path.dirname(name), near[0])!r}?"
        return "paths start at the image root (--images), by default the input's folder"

    def _keep(self, uri: str) -> str:
        """Write the picture of a data URI into the store, named by its content."""
        if self.store is None:
            hint = "give a folder that embedded images are written to (convert does)"
            raise Fault(
                "IMG_EMBEDDED", "the image is embedded in the row", path="images", value=uri[:64], hint=hint
            )
        head, _, payload = uri.partition(",")
        try:
            data = base64.b64decode(payload, validate=True)
        except binascii.Error as error:
            raise Fault("IMG_UNREADABLE", f"broken base64: {error}", path="images", value=head) from error
        return str(keep(data, self.store))


def _outside(name: str) -> Fault:
    hint = "copy the file under the image root, or name its folder with --images"
    return Fault("IMG_OUTSIDE", "the file lies outside the image roots", path="images", value=name, hint=hint)


def keep(data: bytes, store: Path) -> Path:
    """Write the picture `data` into `store` under its hash and real kind; the path. Raises `Fault` for no
    picture."""
    picture = inspect(data)
    path = store / f"{picture.digest.hex()[:32]}.{'jpg' if picture.kind == 'jpeg' else picture.kind}"
    if not path.exists():
        store.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return path


@lru_cache(maxsize=64)
def _listing(folder: str) -> tuple[str, ...]:
    """At most 20,000 names of `folder`: enough for a suggestion."""
    try:
        with os.scandir(folder) as entries:
            return tuple(entry.name for _, entry in zip(range(20_000), entries, strict=False))
    except OSError:
        return ()


def _without_waiting(path: str, flags: int) -> int:
    """Opening a pipe would otherwise wait for somebody to write to it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def audit(path: str) -> Picture:
    """Read and inspect one file. Raises `Fault`: IMG_UNREADABLE, IMG_TRUNCATED or IMG_BOMB."""
    try:
        with open(path, "rb", buffering=0, opener=_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise Fault("IMG_UNREADABLE", "not a regular file", path="images", value=path)
            if status.st_size > MAX_BYTES:
                raise Fault("IMG_BOMB", f"{status.st_size} bytes", path="images", value=path)
            data = file.read()
    except OSError as error:
        raise Fault(
            "IMG_UNREADABLE", f"cannot be read ({error.strerror})", path="images", value=path
        ) from error
    return inspect(data, path)


def inspect(data: bytes, name: str = "") -> Picture:
    """What picture `data` is. Raises `Fault` as `audit` does."""
    kind = _kind(data)
    try:
        width, height, whole = _PARSERS[kind](data) if kind in _PARSERS else _pillow(data)
    except (IndexError, ValueError) as error:
        reason = "empty file" if not data else f"no readable picture header ({kind or 'unknown kind'})"
        reason = str(error) if isinstance(error, _Damaged) else reason
        hint = "replace the file or leave the row out"
        raise Fault("IMG_UNREADABLE", reason, path="images", value=name, hint=hint) from error
    if not whole:
        reason = f"the {kind} ends before its end marker: the file is cut off"
        raise Fault("IMG_TRUNCATED", reason, path="images", value=name, hint="fetch the file again")
    if not width * height:
        reason = f"the header says {width} x {height} pixels"
        raise Fault("IMG_UNREADABLE", reason, path="images", value=name, hint="replace the file")
    if width * height > MAX_PIXELS:
        reason = f"{width} x {height} pixels, the limit is {MAX_PIXELS}"
        raise Fault("IMG_BOMB", reason, path="images", value=name, hint="scale the picture down")
    return Picture(kind or "other", width, height, len(data), sha256(data).digest())


class _Damaged(ValueError):
    """Why a picture with a good header cannot be whole inside."""


_MAGIC = ((b"\xff\xd8\xff", "jpeg"), (b"\x89PNG\r\n\x1a\n", "png"), (b"GIF87a", "gif"), (b"GIF89a", "gif"))


def _kind(data: bytes) -> str:
    for magic, kind in _MAGIC:
        if data.startswith(magic):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return ""


Size = tuple[int, int, bool]
"""Width and height in pixels, and whether the file reaches its end marker."""

_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0..SOF15 without DHT, JPG, DAC
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # in coded data, FF 00 and FF D0..D7 are no markers


_ALONE = frozenset((0x00, 0x01, *range(0xD0, 0xD8), 0xFF))  # FF and one of these begins no segment
_SEGMENT = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")


def _jpeg(data: bytes) -> Size:
    """Walk the segments to the first scan, past stray bytes between them as decoders do; the end is the EOI
    that closes the picture, not one of a thumbnail."""
    at, size, code = 2, (0, 0), 0
    while at + 1 < len(data):
        code = data[at + 1]
        if data[at] != 0xFF or code in _ALONE:
            found = _SEGMENT.search(data, at)
            at = found.start() if found else len(data)
            continue
        if code in (0xDA, 0xD9):
            break
        if code in _FRAME:
            size = (int.from_bytes(data[at + 7 : at + 9]), int.from_bytes(data[at + 5 : at + 7]))
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    else:
        code = 0
    return _scans(data, at, size, code)


def _scans(data: bytes, at: int, size: tuple[int, int], code: int) -> Size:
    """What the segments said, and whether the scans are whole. code: of the segment at offset `at` that ended
    the walk, SOS or EOI; 0 where the file ended first."""
    if not code and size != (0, 0):
        return *size, False
    if not all(size):
        raise ValueError("no frame header before the first scan")
    if code != 0xDA:
        raise _Damaged(f"the jpeg is damaged: it ends at byte {at}, and no scan came before")
    ended = data.endswith(b"\xff\xd9") and not _doubtful(data, at)
    return *size, ended or _jpeg_ends(data, at)


_SAMPLES, _SAMPLE = 26, 1024
_FOREIGN = re.compile(rb"\xff[\x01-\xc3\xc5-\xcb\xcd-\xcf\xd8\xf0-\xfd]")  # markers that stand in no scan
_BETWEEN = frozenset((0xC4, 0xCC, 0xDA, 0xDB, 0xDC, 0xDD, 0xFE, *range(0xE0, 0xF0)))  # between scans


def _doubtful(data: bytes, at: int) -> bool:
    """Whether some sample of the scans from offset `at` looks foreign, be it a segment between two scans."""
    step = max(_SAMPLE, (len(data) - at) // _SAMPLES)
    return any(_FOREIGN.search(data, start, start + _SAMPLE) for start in range(at, len(data), step))


def _jpeg_ends(data: bytes, at: int) -> bool:
    """Whether an EOI marker follows the scans from offset `at`; trailing bytes after it are allowed. Raises
    `_Damaged` for a marker that no scan holds."""
    while found := _MARKER.search(data, at + 2 + int.from_bytes(data[at + 2 : at + 4])):
        at = found.start()
        if data[at + 1] == 0xD9:
            return True
        if data[at + 1] not in _BETWEEN:
            raise _Damaged(f"the jpeg is damaged: foreign bytes in its coded data, first at byte {at}")
    return False


def _png(data: bytes) -> Size:
    """Walk the chunks to IEND; trailing bytes after it are allowed. Raises `_Damaged` where a check
    sum is wrong, or no chunk holds pixels. Decoders read notes behind the pixels without looking at their
    check sums, so they are not looked at here either."""
    if data[12:16] != b"IHDR":
        raise ValueError("no IHDR")
    width, height = int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    view, at, pixels, name = memoryview(data), 8, 0, b""
    while name != b"IEND":
        size, name = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        end = at + 8 + size
        if end + 4 > len(data):
            return width, height, False
        checked = not pixels or not name[0] & 0x20
        if checked and crc32(view[at + 4 : end]) != int.from_bytes(data[end : end + 4]):
            raise _Damaged(f"the png is damaged: the check sum of its chunk at byte {at} is wrong")
        pixels += size if name == b"IDAT" else 0
        at = end + 4
    if width * height and not pixels:
        raise _Damaged("the png holds no pixels: it has no IDAT chunk, or an empty one")
    return width, height, True


def _gif(data: bytes) -> Size:
    """Walk the blocks to the trailer; trailing bytes after it are allowed."""
    if len(data) < 13:
        raise ValueError("no screen descriptor")
    width, height = int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little")
    at, end = 13 + _colours(data[10]), len(data)
    while at < end and data[at] != 0x3B:
        at = _behind_block(data, at)
    return width, height, at < end


def _colours(flags: int) -> int:
    """Bytes of the colour table that these flags announce."""
    return 6 << (flags & 7) if flags & 0x80 else 0


def _behind_block(data: bytes, at: int) -> int:
    """Where the GIF block at `at` ends; beyond the file where it is cut. Decoders skip a byte that begins no
    block."""
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


def _webp(data: bytes) -> Size:
    whole = len(data) >= 8 + int.from_bytes(data[4:8], "little")
    chunk, body = data[12:16], data[20:30]
    if len(body) < 10:
        raise ValueError("no picture chunk")
    if chunk == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little"), whole
    if chunk == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF), whole
    if chunk == b"VP8 ":
        width, height = int.from_bytes(body[6:8], "little"), int.from_bytes(body[8:10], "little")
        return width & 0x3FFF, height & 0x3FFF, whole
    raise ValueError("unknown WebP chunk")


_PARSERS = {"jpeg": _jpeg, "png": _png, "gif": _gif, "webp": _webp}


def _pillow(data: bytes) -> Size:
    """Kinds without a parser here (BMP, TIFF, ...): Pillow reads the header, then decodes, since only that
    shows the end."""
    if not data:
        raise ValueError("empty")
    try:
        with opened(data) as image:
            if image.width * image.height <= MAX_PIXELS:
                image.load()
            return image.width, image.height, True
    except UnreadableImage as error:
        if error.too_large:
            raise Fault("IMG_BOMB", error.problem, path="images", hint="scale the picture down") from error
        raise ValueError(error.problem) from error

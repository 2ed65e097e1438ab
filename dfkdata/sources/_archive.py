"""Unpack zip and tar archives into a folder.

Guarantees:
- Nothing is written outside the folder, no links or devices are made, and no member overwrites another.
- An archive that unpacks to far more than its own size is refused."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from dfkdata.common.errors import DataError

if TYPE_CHECKING:
    import tarfile

MAX_BYTES = 64 << 30
MAX_RATIO = 200


def names(path: Path, most: int) -> list[str]:
    """Return the first names of an archive's files. Raises `DataError` if it is broken."""
    import tarfile
    import zipfile

    try:
        return [name for name, file in islice(_members(path), most) if file.close() is None]
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, RuntimeError, OSError) as error:
        raise DataError(f"{path}: not a whole archive ({error}); fetch it again") from error


def limit(path: Path) -> int:
    """Return how many bytes an archive may unpack to."""
    return min(MAX_BYTES, max(1 << 20, path.stat().st_size * MAX_RATIO))


def too_large(path: Path, limit: int) -> DataError:
    """Return the error about an archive that unpacks to more than `limit` bytes."""
    return DataError(f"{path}: unpacks to more than {limit} bytes; unpack it yourself if it is meant")


def extract(path: Path, target: Path, only: tuple[str, ...] = ("",)) -> None:
    """Unpack the regular files of the archive `path` into the folder `target`.

    Args:
        path: The archive.
        target: The folder.
        only: Ends of the names to unpack; all by default.

    Raises:
        DataError: If the archive is broken, holds unsafe names, or unpacks to too much.
    """
    import tarfile
    import zipfile

    target.mkdir(parents=True, exist_ok=True)
    most, written, places = limit(path), 0, set[Path]()
    try:
        for name, file in _members(path):
            if not name.lower().endswith(only):
                continue
            place = _inside(name, target, path)
            if place in places:
                raise DataError(f"{path}: holds {name!r} twice; unpack it yourself to choose one of them")
            places.add(place)
            place.parent.mkdir(parents=True, exist_ok=True)
            with file, place.open("wb") as out:
                while chunk := file.read(1 << 20):
                    written += len(chunk)
                    if written > most:
                        raise too_large(path, most)
                    out.write(chunk)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError) as error:
        raise DataError(f"{path}: not a whole archive ({error}); fetch it again") from error
    except (RuntimeError, OSError) as error:  # a password, an unknown method, a name that is no file's here
        raise DataError(f"{path}: cannot be unpacked ({error}); unpack it yourself") from error


def check_end(tar: tarfile.TarFile) -> None:
    """Raise `EOFError` if a tar that was read to its end lacks its end mark: then it may have been cut off."""
    from tarfile import BLOCKSIZE

    if tar.fileobj is not None:
        tar.fileobj.seek(tar.offset)
        if len(tar.fileobj.read(BLOCKSIZE)) < BLOCKSIZE:
            raise EOFError("the end mark is missing")


def _members(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    import tarfile
    import zipfile

    if path.suffix.lower() == ".zip":
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                # 0xA: a symbolic link
                if info.filename and not info.is_dir() and info.external_attr >> 28 != 0xA:
                    yield info.filename, archive.open(info)
        return
    with tarfile.open(path) as tar:
        for member in tar:
            if member.isfile() and (file := tar.extractfile(member)) is not None:
                yield member.name, file
        check_end(tar)


def _inside(name: str, target: Path, path: Path) -> Path:
    parts = PurePosixPath(name.replace("\\", "/"))
    if not parts.parts or parts.is_absolute() or ".." in parts.parts or ":" in parts.parts[0]:
        raise DataError(f"{path}: the member {name!r} would be written outside the folder")
    return target / parts

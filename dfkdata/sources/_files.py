"""Open files that may be packed, and turn the values of Parquet files and rows in memory into plain ones."""

from __future__ import annotations

import gzip
import io
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from dfkdata.common import limits
from dfkdata.common.errors import DataError, missing_package
from dfkdata.sources import _features
from dfkdata.sources._rejects import SourcedRow


def open_unpacked(path: Path) -> IO[bytes]:
    """Open a file whose bytes come out unpacked, by the end of its name (.gz, .zst).

    Raises:
        DataError: If the file cannot be read.
        ConfigError: If no package for zstd is installed.
    """
    try:
        if path.suffix.lower() == ".gz":
            return _limited(gzip.open(path, "rb"), path)
        if path.suffix.lower() == ".zst":
            return _limited(_zstd(path), path)
        return path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


class _Section(io.RawIOBase):
    """Some bytes of a file."""

    def __init__(self, path: Path, start: int, stop: int) -> None:
        self._file, self._left = path.open("rb", buffering=0), stop - start
        self._file.seek(start)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto(memoryview(buffer)[: self._left]) or 0
        self._left -= count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def open_section(path: Path, start: int, stop: int) -> IO[bytes]:
    """Open the bytes of a plain file from `start` to `stop`.

    Raises:
        DataError: If the file cannot be read.
    """
    try:
        return io.BufferedReader(_Section(path, start, stop), 1 << 17)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


class _Limited(io.RawIOBase):
    """A stream of unpacked bytes that breaks off when it has unpacked to more than it may."""

    def __init__(self, file: Any, name: str, most: int) -> None:
        self._file, self._name, self._most, self._read = file, name, most, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._file.seekable())

    def readinto(self, buffer: Any) -> int:
        count: int = self._file.readinto(buffer)
        self._read += count
        limits.check_unpacked(self._read, self._most, self._name)
        return count

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._read = self._file.seek(offset, whence)
        return self._read

    def tell(self) -> int:
        return self._read

    def close(self) -> None:
        self._file.close()
        super().close()


def _limited(file: Any, path: Path) -> IO[bytes]:
    most = limits.most_unpacked(path.stat().st_size)
    return io.BufferedReader(_Limited(file, str(path), most), 1 << 17)


def _zstd(path: Path) -> IO[bytes]:
    """Return a readable stream of the unpacked bytes, through whichever package is installed."""
    try:
        import zstandard
    except ImportError:
        try:
            import pyarrow
        except ImportError as error:
            raise missing_package(f"{path.name}", "zstandard or pyarrow", "parquet") from error
        stream = pyarrow.input_stream(str(path), compression="zstd")
        return io.BufferedReader(stream)
    return io.BufferedReader(zstandard.open(path, "rb"))


def seekable(file: IO[bytes]) -> IO[bytes]:
    """Return `file`, or a copy of it on disk if it cannot be read twice."""
    if file.seekable():
        return file
    copy = tempfile.TemporaryFile()  # noqa: SIM115  # the caller closes it
    shutil.copyfileobj(file, copy)
    copy.seek(0)
    return copy


def parquet_rows(path: Path, name: str) -> Iterator[SourcedRow]:
    """Yield the rows of a Parquet file, read 256 at a time since each may hold embedded images.

    Sources name the row, from 1."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise missing_package("reading Parquet", "pyarrow", "parquet") from error
    try:
        file = pyarrow.parquet.ParquetFile(path)
        read = _features.reader(_features.of_schema(file.schema_arrow.metadata))
        number, size, most = 0, 0, limits.most_unpacked(path.stat().st_size)
        groups = range(file.metadata.num_row_groups)
        largest = max((file.metadata.row_group(group).total_byte_size for group in groups), default=0)
        limits.check_unpacked(largest, most, str(path))
        for batch in file.iter_batches(batch_size=256):
            size += batch.nbytes
            limits.check_unpacked(size, most, str(path))
            for row in batch.to_pylist():
                number += 1
                yield plain(read(row) if read is not None else row), f"{name}:{number}"
    except (pyarrow.ArrowInvalid, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a whole Parquet file ({error}); fetch it again") from error


def plain(value: Any) -> Any:
    """Return `value` with Pillow images as {"bytes": PNG}, and with mappings and lists as plain ones.

    What JSON cannot express becomes text: dates in ISO form, numbers of other kinds, keys that are not
    text."""
    if value is None or isinstance(value, str | int | float | bytes):
        return value
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if hasattr(value, "save") and hasattr(value, "getpixel"):
        buffer = io.BytesIO()
        value.save(buffer, "PNG")
        return {"bytes": buffer.getvalue()}
    return value.isoformat() if hasattr(value, "isoformat") else str(value)

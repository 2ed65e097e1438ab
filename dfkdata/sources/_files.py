"""Open files that may be packed, and turn the values of Parquet files and rows in memory into plain ones."""

from __future__ import annotations

import gzip
import io
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

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
            return gzip.open(path, "rb")  # type: ignore[return-value]  # a GzipFile is a binary file
        if path.suffix.lower() == ".zst":
            return _zstd(path)
        return path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


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
        number = 0
        for batch in file.iter_batches(batch_size=256):
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

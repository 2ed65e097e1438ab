"""JSONL files that are written line by line and survive a kill.

Guarantees:
    - A half-written last line, which a kill leaves, is not read. A broken line anywhere else is an error.
    - Rewriting keeps the bytes of the lines that stay, and happens whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec

from dfkdata.common.errors import DataError
from dfkdata.common.faults import naming

T = TypeVar("T")
_BUFFER_BYTES = 1 << 18  # hashed and written while it is still in the processor's cache


class JsonlWriter:
    """Write many rows to a new file and hash them on the way; rows are encoded straight into the buffer.

    Attributes:
        path: The file.
        rows: Number of lines so far.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = 0
        self._hash = sha256()
        self._file = path.open("wb", buffering=0)
        self._buffer = bytearray()
        encoder = msgspec.json.Encoder()
        self._encode_into, self._encode_lines = encoder.encode_into, encoder.encode_lines

    def put(self, row: Any) -> None:
        """Add one row. Raises `UnicodeEncodeError` and adds nothing if a text has lone surrogates."""
        buffer = self._buffer
        size = len(buffer)
        try:
            self._encode_into(row, buffer, -1)
        except UnicodeEncodeError:
            del buffer[size:]
            raise
        buffer += b"\n"
        self.rows += 1
        if size > _BUFFER_BYTES:
            self._flush()

    def put_all(self, rows: list[Any]) -> None:
        """Add several rows. Raises `UnicodeEncodeError` and adds nothing if a text has lone surrogates."""
        self._buffer += self._encode_lines(rows)
        self.rows += len(rows)
        if len(self._buffer) > _BUFFER_BYTES:
            self._flush()

    def put_line(self, line: bytes) -> None:
        """Add one encoded line with its line break."""
        self._buffer += line
        self.rows += 1
        if len(self._buffer) > _BUFFER_BYTES:
            self._flush()

    def put_lines(self, lines: Sequence[bytes]) -> None:
        """Add encoded lines with their line breaks."""
        self._buffer += b"".join(lines)
        self.rows += len(lines)
        if len(self._buffer) > _BUFFER_BYTES:
            self._flush()

    def close(self) -> None:
        """Write the rest of the buffer and make the file durable."""
        self._flush()
        os.fsync(self._file.fileno())
        self._file.close()

    @property
    def facts(self) -> dict[str, Any]:
        """Return the file's entry in a manifest: its name, rows and SHA-256."""
        return {"path": self.path.name, "rows": self.rows, "sha256": self._hash.hexdigest()}

    def _flush(self) -> None:
        self._hash.update(self._buffer)
        rest = memoryview(self._buffer)
        while rest:
            with naming(self.path):
                written = self._file.write(rest)
            shorter = rest[written:]
            rest.release()
            rest = shorter
        rest.release()
        self._buffer = bytearray()


class JsonlAppender:
    """Append values to a file, one flushed line each; a half-written last line is cut off first."""

    def __init__(self, path: Path) -> None:
        self._encoder = msgspec.json.Encoder()
        self._path = path
        self._file = path.open("ab")
        self._file.truncate(_finished_bytes(path))

    def put(self, value: Any) -> None:
        """Append one line. Lone surrogates, which no file can hold, become question marks."""
        with naming(self._path):
            self._file.write(_line(self._encoder, value))
            self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.fsync(self._file.fileno())
        self._file.close()


def write_lines(path: Path, values: Iterable[Any]) -> None:
    """Replace `path` by one line a value, whole or not at all; lone surrogates become question marks."""
    encoder = msgspec.json.Encoder()
    part = path.with_name(path.name + ".part")
    with naming(path), part.open("wb") as file:
        file.writelines(_line(encoder, value) for value in values)
    part.replace(path)


def read_finished(path: Path, kind: type[T], what: str) -> Iterator[tuple[bytes, T]]:
    """Yield (bytes, value) of each finished line; nothing if there is no file.

    Args:
        path: The file.
        kind: Type of a line's value.
        what: What a line is, for the message ("a prediction").

    Raises:
        DataError: A line is not of `kind`; the message names file and line.
    """
    if not path.exists():
        return
    decoder = msgspec.json.Decoder(kind)
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                yield line, decoder.decode(line)
            except msgspec.MsgspecError as error:
                raise DataError(f"{path}:{number}: not {what} ({error}); give another --out") from error


def rewrite(path: Path, kind: type[T], what: str, keep: Callable[[T], bool]) -> None:
    """Leave only the finished lines for whose value `keep` is true; arguments as in `read_finished`."""
    part = path.with_name(path.name + ".part")
    with naming(path), part.open("wb") as file:
        file.writelines(line for line, value in read_finished(path, kind, what) if keep(value))
    part.replace(path)


def whole_characters(value: Any) -> Any:
    """Return `value` with lone surrogates, which no file can hold, replaced by question marks."""
    match value:
        case str():
            return value.encode("utf-8", "replace").decode("utf-8")
        case dict():
            return {whole_characters(key): whole_characters(entry) for key, entry in value.items()}
        case list() | tuple():
            return [whole_characters(entry) for entry in value]
        case _:
            return value


def _line(encoder: msgspec.json.Encoder, value: Any) -> bytes:
    try:
        return encoder.encode(value) + b"\n"
    except UnicodeEncodeError:
        return encoder.encode(whole_characters(msgspec.to_builtins(value))) + b"\n"


def _finished_bytes(path: Path) -> int:
    """Return the size of `path` up to and with its last line break."""
    return path.read_bytes().rfind(b"\n") + 1

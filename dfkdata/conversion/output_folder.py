"""The output folder: files are written beside their final place and moved there when everything is done.

Promises: a killed run leaves the previous result or no manifest, never half a result with one; two runs never
write into one folder at once; equal input and configuration give equal bytes; `manifest.json` is written last
and names every other file with its hash."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

import msgspec

from dfkdata.common import locks
from dfkdata.common.errors import ConfigError
from dfkdata.common.locks import LOCK

MANIFEST = "manifest.json"
PARTIAL = ".partial"
MEDIA = "media"
_BUFFER_BYTES = 1 << 18  # hashed and written while it is still in the processor's cache


class Lines:
    """A JSONL file being written; rows and SHA-256 are counted on the way. Rows are encoded straight into the
    buffer."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = 0
        self._hash = sha256()
        self._file = path.open("wb", buffering=0)
        self._buffer = bytearray()
        encoder = msgspec.json.Encoder()
        self._encode_into, self._encode_lines = encoder.encode_into, encoder.encode_lines

    def put(self, row: Any) -> None:
        """Add one row. Raises `UnicodeEncodeError`, adding nothing, for text that is no text."""
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
        """Add several rows. Raises `UnicodeEncodeError`, adding nothing, for text that is no text."""
        self._buffer += self._encode_lines(rows)
        self.rows += len(rows)
        if len(self._buffer) > _BUFFER_BYTES:
            self._flush()

    def put_line(self, line: bytes) -> None:
        """Add one line as it is, with its line break."""
        self._buffer += line
        self.rows += 1
        if len(self._buffer) > _BUFFER_BYTES:
            self._flush()

    def close(self) -> None:
        """Write what is left and make it last."""
        self._flush()
        os.fsync(self._file.fileno())
        self._file.close()

    @property
    def facts(self) -> dict[str, Any]:
        """The file's line in the manifest."""
        return {"path": self.path.name, "rows": self.rows, "sha256": self._hash.hexdigest()}

    def _flush(self) -> None:
        self._hash.update(self._buffer)
        left = memoryview(self._buffer)
        while left:
            written = self._file.write(left)
            left, done = left[written:], left
            done.release()
        left.release()
        self._buffer = bytearray()


class Folder:
    """The final folder and the partial one inside it."""

    def __init__(self, final: Path) -> None:
        self.final = final
        self.partial = final / PARTIAL

    @contextmanager
    def alone(self) -> Iterator[None]:
        """The folder for this run only; it is removed again where it stays empty.

        Raises `ConfigError` as `locks.alone`."""
        with locks.alone(self.final / LOCK, "conversion"):
            yield

    def start(self) -> None:
        """An empty partial folder."""
        shutil.rmtree(self.partial, ignore_errors=True)
        self.partial.mkdir(parents=True)

    def lines(self, name: str) -> Lines:
        """A new JSONL file in the partial folder."""
        return Lines(self.partial / name)

    def finish(self, manifest: dict[str, Any]) -> None:
        """Move everything to its final place; the old manifest goes first, the new one comes last."""
        old = self.manifest() or {}
        (self.final / MANIFEST).unlink(missing_ok=True)
        for entry in old.get("outputs", []):
            (self.final / Path(entry["path"]).name).unlink(missing_ok=True)
        for path in sorted(self.partial.iterdir()):
            _move(path, self.final / path.name)
        text = msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
        (self.partial / MANIFEST).write_bytes(text)
        (self.partial / MANIFEST).replace(self.final / MANIFEST)
        self.partial.rmdir()

    def discard(self) -> None:
        """Remove the partial folder."""
        shutil.rmtree(self.partial, ignore_errors=True)

    def manifest(self) -> dict[str, Any] | None:
        """The manifest of a finished conversion; None where there is none."""
        try:
            found = msgspec.json.decode((self.final / MANIFEST).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            raise ConfigError(
                f"{self.final / MANIFEST}: cannot be read ({error}); remove it or use --overwrite"
            ) from error
        return found if isinstance(found, dict) else None

    def manifest_exists(self) -> bool:
        """Whether a conversion was finished here, readable or not."""
        return (self.final / MANIFEST).exists()

    def relative(self) -> Callable[[str], str]:
        """A function that gives a path as a row writes it: seen from the final folder, with forward
        slashes."""
        final, partial = os.path.realpath(self.final), str(self.partial.absolute())
        folders: dict[str, str] = {}

        def seen_from_rows(path: str) -> str:
            folder, name = os.path.split(path)
            if folder not in folders:
                inside = folder == partial or folder.startswith(partial + os.sep)
                start = partial if inside else final
                folders[folder] = os.path.relpath(
                    folder if inside else os.path.realpath(folder), start
                ).replace(os.sep, "/")
            return name if folders[folder] == "." else f"{folders[folder]}/{name}"

        return seen_from_rows


def _move(path: Path, target: Path) -> None:
    """Move a file over `target`; a folder is merged into it, since its files are named by content."""
    if path.is_dir():
        target.mkdir(exist_ok=True)
        for inner in sorted(path.iterdir()):
            _move(inner, target / inner.name)
        path.rmdir()
    else:
        path.replace(target)


def file_facts(path: Path, name: str) -> dict[str, Any]:
    """An input's line in the manifest: its name, size in bytes and SHA-256."""
    try:
        with path.open("rb") as file:
            digest = file_digest(file, "sha256").hexdigest()
        return {"path": name, "bytes": path.stat().st_size, "sha256": digest}
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error

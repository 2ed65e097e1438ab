"""Identify the media that rows name by their bytes, wherever the files lie."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from dfkdata.common import data_uri
from dfkdata.common.errors import DataError
from dfkdata.common.files import open_regular
from dfkdata.common.hashing import file_sha256
from dfkdata.common.media_roots import MediaRoots
from dfkdata.rows.record import Record

_REMEMBERED = 1 << 15
"""Files whose hashes are kept; pictures of neighbouring rows are often the same."""


class MediaHashes:
    """Hash the media of the rows of one file.

    Attributes:
        missing: Number of names under which no file can be read.
        first_missing: The first of them, with its line; empty if there is none.
    """

    def __init__(self, file: Path) -> None:
        self._file, self._roots = file, MediaRoots(file)
        self._folder = str(file.parent.resolve())
        self._hash = lru_cache(maxsize=_REMEMBERED)(_content)
        self.missing, self.first_missing = 0, ""

    def of(self, record: Record, line: int) -> bytes:
        """Return a hash over the kinds and bytes of all media of a row; empty without media.

        A file that cannot be read is counted, and its name stands for it.

        Raises:
            DataError: The row names a file that it may not name (`media_roots`).
        """
        if not (record.images or record.videos or record.audios):
            return b""
        whole = sha256()
        for kind, names in (("images", record.images), ("videos", record.videos), ("audios", record.audios)):
            for content in self._contents(kind, names, line):
                whole.update(kind.encode() + content)
        return whole.digest()

    def _contents(self, kind: str, names: Iterable[str], line: int) -> Iterable[bytes]:
        for name in names:
            if data_uri.is_data_uri(name):
                yield _embedded(name)
                continue
            path = os.path.join(self._folder, name)  # noqa: PTH118  # for each picture
            if not self._roots.permits(path):
                raise DataError(f"{self._file}:{line}: `{kind}`: {self._roots.refusal(path)}")
            content = self._hash(path)
            if content is None:
                self.missing += 1
                self.first_missing = self.first_missing or f"{self._file}:{line}: {name}"
                content = b"missing\x1f" + name.encode("utf-8", "surrogatepass")
            yield content


def _content(path: str) -> bytes | None:
    """Return the hash of a file, None if it cannot be read."""
    try:
        open_regular(path, limit=1 << 62).close()  # a pipe would never end
        return bytes.fromhex(file_sha256(path))
    except (OSError, ValueError):
        return None


def _embedded(uri: str) -> bytes:
    """Return the hash of embedded bytes: that of a file with the same bytes; of its text if it is damaged."""
    try:
        return sha256(data_uri.decode(uri)).digest()
    except data_uri.DataUriError:
        return sha256(uri.encode("utf-8", "surrogatepass")).digest()

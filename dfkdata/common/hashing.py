"""Names that come from content: they depend on no row number, machine or Python version.

SHA-256 is used throughout: with the processor's own instructions it is the fastest hash of the standard
library, for short texts too."""

from __future__ import annotations

import os
from hashlib import file_digest, sha256
from pathlib import Path


def content_id(*values: str) -> str:
    """Return 16 hex digits (64 bits) over `values` in order.

    Moving a character from one value to the next changes the name."""
    return sha256("\x1f".join(values).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def number_of(value: str | bytes) -> int:
    """Return 64 bits over a value, for large numbers of values that are only compared."""
    data = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
    return int.from_bytes(sha256(data).digest()[:8])


def file_sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hex digits.

    Raises:
        OSError: The file cannot be read.
    """
    with Path(path).open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


WHOLE_BYTES = 1 << 24
"""Bytes of a file up to which `sampled_sha256` hashes all; of a larger one it hashes as many."""
_SAMPLES = 64


def sampled_sha256(path: str | Path) -> bytes:
    """Return a SHA-256 over a file's bytes; of one over 16 MiB, over its size and 64 pieces from its start to its end.

    Raises:
        OSError: The file cannot be read.
    """
    with Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size <= WHOLE_BYTES:
            return file_digest(file, "sha256").digest()
        digest, piece = sha256(b"%d" % size), WHOLE_BYTES // _SAMPLES
        for sample in range(_SAMPLES):
            file.seek((size - piece) * sample // (_SAMPLES - 1))
            digest.update(file.read(piece))
    return digest.digest()


def folder_sha256(folder: str | Path, pattern: str = "*.safetensors") -> str:
    """Return one SHA-256 over names and bytes of the files in `folder` that match `pattern`, in name order.

    With the default pattern it identifies a model or an adapter.

    Raises:
        OSError: A file cannot be read.
    """
    digest = sha256()
    for path in sorted(Path(folder).glob(pattern)):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while chunk := file.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()

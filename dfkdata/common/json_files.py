"""JSON objects in files: written whole or not at all, and only from plain data.

Guarantees:
    - A file is written beside its place and moved there, so that a killed process leaves the old one.
    - A value that JSON cannot hold (a path, an object) raises `TypeError` before a file is touched; nothing
      is turned into text silently."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import msgspec

from dfkdata.common.errors import DataError
from dfkdata.common.faults import naming

#: How floats are written: "short" as msgspec does (6.25e-6, NaN as null), "repr" as Python (6.25e-06, NaN).
Floats = Literal["short", "repr"]


def encode(value: Any, *, floats: Floats = "short") -> bytes:
    """Return `value` as indented JSON with a line break at its end, keys in their order.

    Raises:
        TypeError: `value` holds something that is not plain data.
    """
    if floats == "repr":
        return json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n"
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


def write_json(path: Path, value: Any, *, floats: Floats = "short") -> None:
    """Replace `path` by `value` as indented JSON; its folder is created if it is missing.

    Raises:
        TypeError: `value` holds something that is not plain data; nothing is written.
    """
    write_bytes(path, encode(value, floats=floats))


def write_bytes(path: Path, data: bytes, *, shared: bool = False) -> None:
    """Replace `path` by `data`, whole or not at all; its folder is created if it is missing.

    Args:
        path: The file.
        data: Its new content.
        shared: Whether other processes may write the same file at the same time; the last one wins.
    """
    own = f".{os.getpid()}.{os.urandom(4).hex()}" if shared else ""
    _write(path, path.with_name(f"{path.name}{own}.part"), [data])


def write_parts(path: Path, parts: Iterable[str]) -> None:
    """Replace `path` by the texts of `parts` in UTF-8, one behind the other, whole or not at all."""
    _write(path, path.with_name(f"{path.name}.part"), (part.encode() for part in parts))


def _write(path: Path, part: Path, blocks: Iterable[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with naming(path), part.open("wb") as file:
            file.writelines(blocks)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def read_json(path: Path, hint: str = "") -> dict[str, Any]:
    """Return the JSON object in `path`.

    Args:
        path: The file.
        hint: What to try if the file cannot be read; ends the message.

    Raises:
        DataError: The file cannot be read, is not JSON, or holds no object.
    """
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}){hint and '; ' + hint}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error})") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: not a JSON object")
    return value


def read_json_or_none(path: Path) -> dict[str, Any] | None:
    """Return the JSON object in `path`, None if there is no such file.

    Raises:
        DataError: The file is not JSON or holds no object.
    """
    return read_json(path) if path.is_file() else None

"""JSONL files that are written line by line and survive a kill.

Promises: a half-written last line, which a kill leaves, is not a line; a broken line anywhere else is an
error and never skipped; rewriting keeps the bytes of what is kept and happens whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from dfkdata.common.errors import DataError

T = TypeVar("T")


def finished(path: Path, kind: type[T], what: str) -> Iterator[tuple[bytes, T]]:
    """(bytes, value) of each finished line; none where there is no file. what: what a line is, for the error.

    Raises `DataError` with file and line for a line that is not of `kind`."""
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


def keep(path: Path, kind: type[T], what: str, wanted: Callable[[T], bool]) -> None:
    """Leave only the finished lines that are `wanted`."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.writelines(line for line, found in finished(path, kind, what) if wanted(found))
    part.replace(path)


def whole_characters(value: Any) -> Any:
    """`value` with half characters (lone surrogates), which no file can hold, as question marks."""
    match value:
        case str():
            return value.encode("utf-8", "replace").decode("utf-8")
        case dict():
            return {whole_characters(key): whole_characters(each) for key, each in value.items()}
        case list() | tuple():
            return [whole_characters(each) for each in value]
        case _:
            return value

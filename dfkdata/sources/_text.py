"""JSON and JSONL -> raw rows, one at a time; a JSON list is read piece by piece, whatever its size."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Iterator
from typing import IO, Any

import msgspec

from dfkdata.errors import DataError
from dfkdata.sources._common import BOM, DECODE, Found, as_row, bad_json

_CHUNK = 1 << 20


def lines(file: IO[bytes], name: str) -> Iterator[Found]:
    """One JSON object a line; blank lines are no rows."""
    for number, line in enumerate(file, start=1):
        source = f"{name}:{number}"
        if number == 1:
            line = line.removeprefix(BOM)
        try:
            row = DECODE(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            if line.strip():
                yield bad_json(line, source, str(error)), source
            continue
        if type(row) is dict and "raw" not in row:
            yield row, source
        else:
            yield as_row(row, source), source


def document(file: IO[bytes], name: str) -> Iterator[Found]:
    """A list of rows; or an object that wraps one under data, items, examples or records; or a map of id ->
    row; or JSONL under another name."""
    start = file.read(1).lstrip(BOM) or file.read(3).lstrip(BOM)
    while start and not start.strip():
        start = file.read(1)
    file.seek(0)
    if start == b"[":
        yield from _items(file, name)
        return
    data = file.read().removeprefix(BOM)
    try:
        whole = DECODE(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        if start == b"{" and b"\n" in data.strip():
            file.seek(0)
            yield from lines(file, name)
            return
        raise DataError(f"{name}: not JSON ({error})") from error
    for number, row in enumerate(_unwrap(whole), start=1):
        source = f"{name}:{number}"
        yield as_row(row, source), source


def _unwrap(whole: Any) -> Iterable[Any]:
    if isinstance(whole, dict):
        for key in ("data", "items", "examples", "records"):
            if isinstance(whole.get(key), list):
                return list(whole[key])
        if whole and all(isinstance(row, dict) for row in whole.values()):
            return list(whole.values())
    return [whole]


def _items(file: IO[bytes], name: str) -> Iterator[Found]:
    """The items of a JSON list with the line on which each begins. Raises `DataError` where the list breaks
    off."""
    text = _Text(file, name)
    text.skip("[")
    while not text.at("]"):
        line = text.line
        row = text.value()
        yield as_row(row, f"{name}:{line}"), f"{name}:{line}"
        if not text.at("]"):
            text.skip(",")


class _Text:
    """A window on a long JSON text."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        self.file, self.name = file, name
        self.decode = codecs.getincrementaldecoder("utf-8-sig")()
        self.read_value = json.JSONDecoder(parse_constant=self._constant).raw_decode
        self.window, self.place, self.line, self.ended = "", 0, 1, False

    def at(self, sign: str) -> bool:
        """Whether the next sign, blanks skipped, is `sign`."""
        while True:
            rest = len(self.window)
            while self.place < rest and self.window[self.place] in " \t\r\n":
                self.line += self.window[self.place] == "\n"
                self.place += 1
            if self.place < rest:
                return self.window[self.place] == sign
            if not self._more():
                raise DataError(f"{self.name}:{self.line}: the JSON list breaks off")

    def skip(self, sign: str) -> None:
        """Step over `sign`. Raises `DataError` when something else stands there."""
        if not self.at(sign):
            raise DataError(f"{self.name}:{self.line}: not JSON: {sign!r} expected in the list")
        self.place += 1
        self.at("")

    def value(self) -> Any:
        """The JSON value at this place; the window doubles until it holds it."""
        while True:
            try:
                value, end = self.read_value(self.window, self.place)
            except json.JSONDecodeError as error:
                if not self._more():
                    raise DataError(f"{self.name}:{self.line}: not JSON ({error.msg})") from error
                continue
            self.line += self.window.count("\n", self.place, end)
            self.place = end
            return value

    def _more(self) -> bool:
        """Read on, dropping what was passed."""
        if self.ended:
            return False
        data = self.file.read(max(_CHUNK, len(self.window) - self.place))
        self.ended = not data
        try:
            self.window = self.window[self.place :] + self.decode.decode(data, final=not data)
        except UnicodeDecodeError as error:
            raise DataError(f"{self.name}:{self.line}: the file is not UTF-8 ({error})") from error
        self.place = 0
        return bool(data)

    def _constant(self, name: str) -> Any:
        raise DataError(f"{self.name}:{self.line}: {name} is not JSON")

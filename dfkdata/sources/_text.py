"""JSON and JSONL -> raw rows, one at a time; a JSON list is read piece by piece, whatever its size."""

from __future__ import annotations

import codecs
import json
import math
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

import msgspec

from dfkdata.errors import DataError
from dfkdata.records import Reject
from dfkdata.sources._common import BOM, DECODE, Found, Row, as_row, bad_json, demand_text, no_text

_CHUNK = 1 << 20


def lines(file: IO[bytes], name: str) -> Iterator[Found]:
    """One JSON object a line; blank lines are no rows."""
    for number, line in enumerate(file, start=1):
        source = f"{name}:{number}"
        if number == 1:
            line = line.removeprefix(BOM)
        try:
            row = DECODE(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
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
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
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
        yield text.row(f"{name}:{line}"), f"{name}:{line}"
        if not text.at("]"):
            text.skip(",")
    text.finish()


class _Text:
    """A window on a long JSON text."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        self.file, self.name = file, name
        self.decode = codecs.getincrementaldecoder("utf-8-sig")()
        self.read_value = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite).raw_decode
        self.read_loosely = json.JSONDecoder(parse_constant=str, parse_int=str, parse_float=str).raw_decode
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

    def finish(self) -> None:
        """Step over the end of the list. Raises `DataError` when more than blanks follows it."""
        self.place += 1
        while True:
            rest = self.window[self.place :]
            if rest.strip():
                raise DataError(f"{self.name}:{self.line}: something follows the end of the JSON list")
            self.place = len(self.window)
            if not self._more():
                return

    def row(self, source: str) -> Row | Reject:
        """The row at this place. A number that JSON or Python does not know costs this row alone."""
        problem = ""
        try:
            value, written = self._value(self.read_value)
        except _NoNumber as error:
            problem = str(error)
            value, written = self._value(self.read_loosely)
        if problem:
            return bad_json(written.encode("utf-8", "backslashreplace"), source, problem)
        if "\\u" in written:
            try:
                demand_text(value)
            except UnicodeEncodeError as error:
                return no_text(source, value, error)
        return as_row(value, source)

    def _value(self, read: Callable[[str, int], tuple[Any, int]]) -> tuple[Any, str]:
        """The JSON value at this place and its text; the window doubles until it holds it."""
        while True:
            try:
                value, end = read(self.window, self.place)
            except json.JSONDecodeError as error:
                if not self._more():
                    raise DataError(f"{self.name}:{self.line}: not JSON ({error.msg})") from error
                continue
            except RecursionError as error:
                raise DataError(f"{self.name}:{self.line}: the row is nested too deeply") from error
            except ValueError as error:
                raise _NoNumber(str(error)) from error
            self.line += self.window.count("\n", self.place, end)
            written, self.place = self.window[self.place : end], end
            return value, written

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


class _NoNumber(Exception):
    """A row holds NaN, Infinity, or an integer of more digits than Python reads."""


def _finite(text: str) -> float:
    value = float(text)
    if value in (math.inf, -math.inf):
        raise ValueError(f"{text} is beyond every number")
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")

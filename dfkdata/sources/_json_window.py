"""Read a long JSON text value by value through a window, so that its size costs no memory.

Guarantees:
- The window holds one value and little more.
- A value that is not JSON raises `DataError` with file and line; a number that Python cannot hold costs its
  own row only."""

from __future__ import annotations

import codecs
import json
import math
from collections.abc import Callable, Iterator
from typing import IO, Any

from dfkdata.common import limits
from dfkdata.common.errors import DataError
from dfkdata.rows.record import Reject, Row
from dfkdata.sources import _duplicate_keys
from dfkdata.sources._rejects import as_row, bad_json, check_encodable, unencodable

_CHUNK = 1 << 20


class Window:
    """A window on a long JSON text, which moves forwards only."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        self.file, self.name = file, name
        self.decode = codecs.getincrementaldecoder("utf-8-sig")()
        self.twice = _duplicate_keys.DuplicateKeyHook()
        self.read_value = json.JSONDecoder(
            object_pairs_hook=self.twice, parse_constant=_no_constant, parse_float=_finite
        ).raw_decode
        self.read_loosely = json.JSONDecoder(parse_constant=str, parse_int=str, parse_float=str).raw_decode
        self.window, self.place, self.line, self.ended = "", 0, 1, False

    def at(self, sign: str) -> bool:
        """Return whether the next character after blanks is `sign`."""
        while True:
            rest = len(self.window)
            while self.place < rest and self.window[self.place] in " \t\r\n":
                self.line += self.window[self.place] == "\n"
                self.place += 1
            if self.place < rest:
                return self.window[self.place] == sign
            if not self._more():
                raise DataError(f"{self.name}:{self.line}: the JSON text breaks off; fetch the file again")

    def skip(self, sign: str) -> None:
        """Step over `sign`; anything else raises `DataError`."""
        if not self.at(sign):
            raise DataError(f"{self.name}:{self.line}: not JSON: {sign!r} expected")
        self.place += 1
        self.at("")

    def items(self) -> Iterator[int]:
        """Yield the line of each item of the list at this place; the caller must read each item."""
        self.skip("[")
        while not self.at("]"):
            yield self.line
            if not self.at("]"):
                self.skip(",")
        self.place += 1

    def names(self) -> Iterator[str]:
        """Yield each key of the object at this place; the caller must read each value."""
        self.skip("{")
        while not self.at("}"):
            if not self.at('"'):
                raise DataError(f"{self.name}:{self.line}: not JSON: a key expected in the object")
            key, _ = self._value(self.read_value)
            self.skip(":")
            yield str(key)
            if not self.at("}"):
                self.skip(",")
        self.place += 1

    def pass_value(self) -> None:
        """Step over the value at this place."""
        self._value(self.read_loosely)

    def finish(self) -> None:
        """Raise `DataError` if more than blanks follow the end of the document."""
        while True:
            rest = self.window[self.place :]
            if rest.strip():
                raise DataError(f"{self.name}:{self.line}: something follows the end of the JSON text")
            self.place = len(self.window)
            if not self._more():
                return

    def row(self, source: str) -> Row | Reject:
        """Return the row at this place, or its reject if a number is one that Python cannot hold."""
        problem = ""
        try:
            value, written = self._value(self.read_value)
        except NumberError as error:
            problem = str(error)
            value, written = self._value(self.read_loosely)
        if problem:
            return bad_json(written.encode("utf-8", "backslashreplace"), source, problem)
        if (key := self.twice.take()) is not None:
            return _duplicate_keys.reject(written.encode("utf-8", "backslashreplace"), key, source)
        if "\\u" in written:
            try:
                check_encodable(value)
            except UnicodeEncodeError as error:
                return unencodable(source, value, error)
        return as_row(value, source)

    def _value(self, read: Callable[[str, int], tuple[Any, int]]) -> tuple[Any, str]:
        """Return the JSON value at this place and its text; the window doubles until it holds them."""
        while True:
            self.twice.take()  # the window may have ended within the value
            try:
                value, end = read(self.window, self.place)
            except json.JSONDecodeError as error:
                if not self._more():
                    raise DataError(f"{self.name}:{self.line}: not JSON ({error.msg})") from error
                continue
            except RecursionError as error:
                raise DataError(f"{self.name}:{self.line}: the row is nested too deeply") from error
            except ValueError as error:
                raise NumberError(str(error)) from error
            if end + 2 >= len(self.window):  # a number may go on: 2 is a part of 2.5 and of 2e+5
                end -= self.place  # what is passed is dropped now
                if self._more():
                    continue
                end += self.place
            self.line += self.window.count("\n", self.place, end)
            written, self.place = self.window[self.place : end], end
            return value, written

    def _more(self) -> bool:
        """Read on and drop what was passed; return False at the end."""
        if self.ended:
            return False
        if len(self.window) - self.place > limits.current().line:
            raise limits.too_long(f"{self.name}:{self.line}", "JSON value")
        data = self.file.read(max(_CHUNK, len(self.window) - self.place))
        self.ended = not data
        try:
            self.window = self.window[self.place :] + self.decode.decode(data, final=not data)
        except UnicodeDecodeError as error:
            raise DataError(f"{self.name}:{self.line}: the file is not UTF-8 ({error})") from error
        self.place = 0
        return bool(data)


class NumberError(Exception):
    """A row holds NaN, Infinity, or an integer of more digits than Python reads."""


def _finite(text: str) -> float:
    value = float(text)
    if value in (math.inf, -math.inf):
        raise ValueError(f"{text} is beyond every number")
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")

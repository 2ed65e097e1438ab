"""Read JSON values exactly, and Python's repr of lists and dicts.

How it works: the C scanner of the standard library reads JSON, and hooks refuse what an exact reader must
refuse: keys that stand twice, NaN, Infinity, numbers that overflow, integers over the digit limit, and
nesting deeper than MAX_DEPTH. A small reader of our own takes Python's repr, which the first Qwen3-Coder
template wrote; `ast.literal_eval` can exhaust memory and accepts far more.

Guarantees:
- Only the standard library is needed.
- No recursion is deeper than MAX_DEPTH.
- The only exception is `LiteralError`."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from itertools import chain
from typing import Any, Final

#: Levels of nesting in a value. Deeper values are refused, so that no later walk can exhaust the stack.
MAX_DEPTH: Final = 100
#: Decimal digits of an integer: the default limit of CPython, which bounds the quadratic conversion.
MAX_DIGITS: Final = 4300
#: The blanks of JSON. `str.strip()` without them also removes U+00A0 and other characters that are data.
BLANKS: Final = " \t\r\n"


class LiteralError(ValueError):
    """The text is not an acceptable literal.

    Attributes:
        code: the name of the reason.
        at: its offset in the text."""

    def __init__(self, code: str, message: str, at: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.at = at


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        repeated = next(key for key, count in counts.items() if count > 1)
        raise LiteralError("duplicate_key", f"the key {repeated!r} stands twice in one object")
    return value


def _constant(name: str) -> Any:
    raise LiteralError("not_finite", f"{name} is not JSON")


def finite(text: str) -> float:
    """Return the float that a JSON number writes.

    Raises:
        LiteralError: if the number overflows to infinity."""
    value = float(text)
    if value - value != 0.0:
        raise LiteralError("not_finite", f"the number {text[:40]} is too large for a double")
    return value


#: Texts up to this length are read with a check of each object; above, keys and colons are counted instead.
_SHORT: Final = 4096

#: The C scanner of the json module, an attribute that the module has had since Python 3.1 and typeshed does
#: not know. The strict one calls `_pairs` for each object, which costs as much as reading the object.
_STRICT: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder(
    object_pairs_hook=_pairs, parse_constant=_constant, parse_float=finite
).scan_once  # type: ignore[attr-defined]
_RELAXED: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder(
    object_pairs_hook=_pairs, parse_constant=_constant, parse_float=finite, strict=False
).scan_once  # type: ignore[attr-defined]
_FAST: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder(
    parse_constant=_constant, parse_float=finite
).scan_once  # type: ignore[attr-defined]


def scan_json(text: str, start: int) -> tuple[Any, int]:
    """Read the JSON value that begins exactly at `start`.

    Returns:
        The value and the offset behind it.

    Raises:
        LiteralError: if no acceptable value begins there."""
    if len(text) - start <= _SHORT:
        value, end = _scan_strictly(text, start)
        if text.count("[", start, end) + text.count("{", start, end) > MAX_DEPTH:
            _count_keys(value)
        return value, end
    try:
        value, end = _FAST(text, start)
    except (ValueError, StopIteration, RecursionError):
        return _scan_strictly(text, start)
    if text.find("{", start, end) < 0 and text.count("[", start, end) <= MAX_DEPTH:
        return value, end
    if _count_keys(value) != text.count(":", start, end):  # a key that stands twice, or a colon in a string
        _scan_strictly(text, start)
    return value, end


#: Control characters other than line breaks and tabs.
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")


def scan_relaxed(text: str, start: int) -> tuple[Any, int]:
    """Read a JSON value as `scan_json` does, also one with raw line breaks and tabs inside its strings.

    Raises:
        LiteralError: if no such value begins at `start`."""
    value, end = _scan_strictly(text, start, _RELAXED)
    if control := _CONTROLS.search(text, start, end):
        raise LiteralError("control_character", "a control character stands in a string", control.start())
    if text.count("[", start, end) + text.count("{", start, end) > MAX_DEPTH:
        _count_keys(value)
    return value, end


def scan_mended(text: str, start: int, lenient: bool) -> tuple[Any, int, list[str]]:
    """Read a JSON value as `scan_json` does or, if `lenient`, as `scan_relaxed`.

    Returns:
        The value, the offset behind it, and the names of the repairs that it needed.

    Raises:
        LiteralError: if no such value begins at `start`."""
    try:
        return (*scan_json(text, start), [])
    except LiteralError as bad:
        if not (lenient and bad.code == "control_character"):
            raise
    return (*scan_relaxed(text, start), ["raw_line_break"])


def scan_before(text: str, start: int, closer: str, lenient: bool) -> tuple[Any, int, list[str]]:
    """Read the JSON value at `start` as `scan_mended` does. Only the text up to a `closer` is decoded, and up to a
    farther one if that stood in a string, so that an error does not cost time in the length of the text.

    Raises:
        LiteralError: if no such value begins there."""
    reach = start
    while True:
        close = text.find(closer, reach)
        stop = close if close >= 0 else len(text)
        try:
            value, size, repairs = scan_mended(text[start:stop], 0, lenient)
        except LiteralError as bad:
            if bad.code != "open_string" or close < 0:
                raise
            reach = stop + (stop - start)
        else:
            return value, start + size, repairs


#: How the errors of the json module begin -> the code. A text that is cut behind the digits of an escape has
#: an open string; the module blames the escape.
_CODES: Final = {"Unterminated string": "open_string", "Invalid control character": "control_character"}
_CUT_ESCAPE: Final = re.compile(r"\\u[0-9a-fA-F]{4}\Z", re.ASCII)


def _code(text: str, bad: json.JSONDecodeError) -> str:
    if bad.msg.startswith("Invalid \\uXXXX") and _CUT_ESCAPE.match(text, bad.pos - 1):
        return "open_string"
    return next((code for begin, code in _CODES.items() if bad.msg.startswith(begin)), "bad_json")


def _scan_strictly(
    text: str, start: int, scan: Callable[[str, int], tuple[Any, int]] = _STRICT
) -> tuple[Any, int]:
    """Read the value at `start`; refuse what `LiteralError` names, but for values that nest too deeply."""
    try:
        return scan(text, start)
    except StopIteration as stop:
        raise LiteralError("bad_json", "no JSON value begins here", stop.value) from None
    except LiteralError:
        raise
    except json.JSONDecodeError as bad:
        raise LiteralError(_code(text, bad), f"not JSON: {bad.msg}", bad.pos) from None
    except ValueError:
        raise LiteralError(
            "too_many_digits", f"an integer has more than {MAX_DIGITS} digits", start
        ) from None
    except RecursionError:
        raise LiteralError("too_deep", f"nested deeper than {MAX_DEPTH} levels", start) from None


def _count_keys(value: Any) -> int:
    """Return the number of keys in all objects of `value`, level by level, so that no stack is needed.

    Raises:
        LiteralError: if the value nests deeper than MAX_DEPTH."""
    keys = 0
    level = [value]
    for _ in range(MAX_DEPTH):
        objects = [item for item in level if type(item) is dict]
        keys += sum(map(len, objects))
        members = chain.from_iterable(map(dict.values, objects))
        items = chain.from_iterable([item for item in level if type(item) is list])
        level = [item for item in chain(members, items) if type(item) is dict or type(item) is list]
        if not level:
            return keys
    raise LiteralError("too_deep", f"nested deeper than {MAX_DEPTH} levels")


_BLANK_RUN: Final = re.compile(r"[ \t\r\n]*+")


def skip_blanks(text: str, start: int) -> int:
    """Return the offset of the first character at or behind `start` that is not a JSON blank."""
    blanks = _BLANK_RUN.match(text, start)
    assert blanks is not None  # the pattern matches the empty string
    return blanks.end()


def load_json(text: str) -> Any:
    """Return the one JSON value that `text` holds between optional blanks.

    Raises:
        LiteralError: if it holds no acceptable value, or text behind it."""
    return load_mended(text, lenient=False)[0]


def load_mended(text: str, lenient: bool) -> tuple[Any, list[str]]:
    """Return the value that `load_json` returns or, if `lenient`, one that `scan_mended` reads, and the names
    of the repairs.

    Raises:
        LiteralError: if it holds no acceptable value, or text behind it."""
    value, end, repairs = scan_mended(text, skip_blanks(text, 0), lenient)
    end = skip_blanks(text, end)
    if end != len(text):
        raise LiteralError("extra_text", f"text follows the JSON value: {text[end : end + 20]!r}", end)
    return value, repairs


_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][+-]?[0-9]++)?+", re.ASCII)
_PYTHON_WORDS: Final = {"True": True, "False": False, "None": None}
_WORD: Final = re.compile(r"[A-Za-z]++", re.ASCII)
_PLAIN: Final = {"'": re.compile(r"[^'\\\x00-\x1f]*+"), '"': re.compile(r'[^"\\\x00-\x1f]*+')}
_ESCAPE: Final = re.compile(r"x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})", re.ASCII)
_ESCAPED: Final = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", "'": "'", '"': '"'}


class _PythonReader:
    """Reads the repr of lists, dicts with string keys, strings, finite numbers, True, False and None."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def fail(self, message: str) -> LiteralError:
        return LiteralError(
            "bad_python_literal", f"not a Python list or dict of plain values: {message}", self.at
        )

    def peek(self) -> str:
        self.at = skip_blanks(self.text, self.at)
        return self.text[self.at : self.at + 1]

    def value(self, depth: int) -> Any:
        sign = self.peek()
        if sign in ("'", '"'):
            return self.string(sign)
        if sign == "[":
            return self.items(depth)
        if sign == "{":
            return self.pairs(depth)
        return self.word()

    def word(self) -> Any:
        if number := _NUMBER.match(self.text, self.at):
            self.at = number.end()
            return number_of(number.group())
        name = _WORD.match(self.text, self.at)
        if name is None or name.group() not in _PYTHON_WORDS:
            raise self.fail("a value expected")
        self.at = name.end()
        return _PYTHON_WORDS[name.group()]

    def enter(self, depth: int) -> None:
        if depth >= MAX_DEPTH:
            raise LiteralError("too_deep", f"nested deeper than {MAX_DEPTH} levels", self.at)
        self.at += 1

    def more(self, close: str, first: bool) -> bool:
        """Return whether another element follows; steps over the comma or the closing bracket."""
        sign = self.peek()
        if sign == close:
            self.at += 1
            return False
        if not first:
            if sign != ",":
                raise self.fail(f"',' or {close!r} expected")
            self.at += 1
        return True

    def items(self, depth: int) -> list[Any]:
        self.enter(depth)
        items: list[Any] = []
        while self.more("]", not items):
            items.append(self.value(depth + 1))
        return items

    def pairs(self, depth: int) -> dict[str, Any]:
        self.enter(depth)
        pairs: dict[str, Any] = {}
        while self.more("}", not pairs):
            quote = self.peek()
            if quote not in ("'", '"'):
                raise self.fail("a quoted key expected")
            key = self.string(quote)
            if key in pairs:
                raise LiteralError("duplicate_key", f"the key {key!r} stands twice in one object", self.at)
            if self.peek() != ":":
                raise self.fail("':' expected")
            self.at += 1
            pairs[key] = self.value(depth + 1)
        return pairs

    def string(self, quote: str) -> str:
        parts: list[str] = []
        self.at += 1
        while True:
            run = _PLAIN[quote].match(self.text, self.at)
            assert run is not None  # the pattern matches the empty string
            parts.append(run.group())
            self.at = run.end()
            sign = self.text[self.at : self.at + 1]
            self.at += 1
            if sign == quote:
                return "".join(parts)
            if sign != "\\":
                raise self.fail("a string is not closed")
            parts.append(self.escape())

    def escape(self) -> str:
        if coded := _ESCAPE.match(self.text, self.at):
            self.at = coded.end()
            code = int(coded.group(coded.lastindex or 0), 16)
            if code > 0x10FFFF:
                raise self.fail("no such character")
            return chr(code)
        sign = self.text[self.at : self.at + 1]
        if sign not in _ESCAPED:
            raise self.fail(f"unknown escape \\{sign}")
        self.at += 1
        return _ESCAPED[sign]


def load_python(text: str) -> Any:
    """Return the list or dict whose Python repr `text` is, between optional blanks.

    Raises:
        LiteralError: if it is nothing of the kind."""
    reader = _PythonReader(text)
    if reader.peek() not in ("[", "{"):
        raise reader.fail("'[' or '{' expected")
    value = reader.value(0)
    if reader.peek():
        raise LiteralError(
            "extra_text", f"text follows the value: {text[reader.at : reader.at + 20]!r}", reader.at
        )
    return value


def number_of(text: str) -> int | float:
    """Return the number that a JSON number writes: an int, never through a float, if it has neither fraction
    nor exponent.

    Raises:
        LiteralError: if the number is too large."""
    if not text.lstrip("-").isdigit():
        return finite(text)
    if len(text) > MAX_DIGITS:
        raise LiteralError("too_many_digits", f"an integer has more than {MAX_DIGITS} digits")
    return int(text)


def is_number(text: str) -> bool:
    """Return whether `text` is a number by JSON's grammar."""
    return _NUMBER.fullmatch(text) is not None

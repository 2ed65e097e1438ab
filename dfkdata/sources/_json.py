"""Read JSON and JSONL, one row at a time.

How it works. A JSON list is read piece by piece, whatever its size, and so is a list in a large object. Small
objects, and large ones that map ids to rows, are read whole."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import IO, Any

import msgspec

from dfkdata.common import limits
from dfkdata.common.errors import DataError
from dfkdata.sources import _duplicate_keys
from dfkdata.sources._json_window import NumberError, Window
from dfkdata.sources._part import Span
from dfkdata.sources._rejects import BOM, DECODE, DECODE_LINES, SourcedRow, as_row, bad_json

_LINES_CHUNK = 1 << 17


def lines(file: IO[bytes], name: str, passed: int = 0) -> Iterator[SourcedRow]:
    """Yield the rows of JSONL, of which `passed` lines came before; blank lines are not rows."""
    for text in _whole_lines(file, name, at_start=not passed):
        try:
            rows = DECODE_LINES(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            rows = []
        if rows and _duplicate_keys.certainly_unique(text, rows):
            for row in rows:
                passed += 1
                source = f"{name}:{passed}"
                yield (row if "raw" not in row else as_row(row, source)), source
        else:
            yield from _one_by_one(text, name, passed)
            passed += text.count(b"\n")


def line_spans(file: IO[bytes], size: int) -> Iterator[tuple[Span, int]]:
    """Yield the spans of a JSONL file, of about `size` bytes each, and how many lines each has."""
    start = at = line = before = 0
    while data := file.read(_LINES_CHUNK):
        end, passed = at + len(data), 0
        while start + size <= end and (cut := data.find(b"\n", max(start + size - 1 - at, passed)) + 1):
            line += data.count(b"\n", passed, cut)
            yield Span(start, at + cut, before), line - before
            start, passed, before = at + cut, cut, line
        line += data.count(b"\n", passed)
        at = end
    if at > start:
        yield Span(start, at, before), line - before


def _whole_lines(file: IO[bytes], name: str, *, at_start: bool) -> Iterator[bytes]:
    """Yield the file in pieces of whole lines; a long line is read in steps that double."""
    rest, most, start = b"", limits.current().line, at_start
    while data := file.read(max(_LINES_CHUNK, len(rest))):
        if start:
            data, start = data.removeprefix(BOM), False
        cut = data.rfind(b"\n") + 1
        if cut:
            yield rest + data[:cut]
            rest = data[cut:]
        else:
            rest += data
            if len(rest) > most:
                raise limits.too_long(name)
    if rest:
        yield rest


def _one_by_one(text: bytes, name: str, passed: int) -> Iterator[SourcedRow]:
    """Yield lines of which some may not be rows; `passed` lines came before."""
    for at, line in enumerate(text.split(b"\n"), start=1):
        source = f"{name}:{passed + at}"
        try:
            row = DECODE(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            if line.strip():
                yield bad_json(line, source, str(error)), source
            continue
        key = _duplicate_keys.duplicate_key(line, row)
        yield (_duplicate_keys.reject(line, key, source) if key is not None else as_row(row, source)), source


def document(file: IO[bytes], name: str) -> Iterator[SourcedRow]:
    """Yield the rows of a JSON document.

    It is a list, an object with a list under data, items, examples or records, an object that maps ids to
    rows, or JSONL under another name."""
    start = file.read(1).lstrip(BOM) or file.read(3).lstrip(BOM)
    while start and not start.strip():
        start = file.read(1)
    file.seek(0)
    if start == b"[":
        yield from _items(file, name)
        return
    data = file.read(_WHOLE).removeprefix(BOM)
    large = _large(file, name, data) if start == b"{" and len(data) > _WHOLE - len(BOM) else None
    if large is not None:
        del data
        yield from large
        return
    most = limits.current().line
    data += file.read(most)
    if len(data) > most:
        raise limits.too_long(name, "JSON document that is no list and is read whole")
    try:
        whole = DECODE(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        rows = _undecoded(file, name, data) if start == b"{" else None
        if rows is None:
            raise DataError(f"{name}: not JSON ({error})") from error
        yield from rows
        return
    if _duplicate_keys.duplicate_key(data, whole) is not None:
        yield from _rows_with_duplicate_keys(data, name)
        return
    for number, row in enumerate(_unwrap(whole, name), start=1):
        source = f"{name}:{number}"
        yield as_row(row, source), source


def _undecoded(file: IO[bytes], name: str, data: bytes) -> Iterable[SourcedRow] | None:
    """Return the rows of an object that does not decode as a whole, or None.

    They lie under one of `_WRAPPERS`, if only rows are at fault, or on lines."""
    file.seek(0)
    if len(data) <= _WHOLE and _key_of_list(Window(file, name)) is not None:
        file.seek(0)
        try:
            return list(_wrapped(file, name))
        except DataError:
            pass  # it may be JSON lines
    file.seek(0)
    return lines(file, name) if b"\n" in data.strip() else None


def _large(file: IO[bytes], name: str, head: bytes) -> Iterator[SourcedRow] | None:
    """Return the rows of a large file that begins with an object and `head`, if they can be read in pieces.

    They can if there is one object a line, or a list under one of `_WRAPPERS`. Otherwise the result is None,
    and the file's position is behind `head`."""
    at, cut = file.tell(), head.find(b"\n") + 1
    try:
        by_line = isinstance(DECODE(head[:cut]), dict) and head[cut:].strip() != b""
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        by_line = False
    file.seek(0)
    if by_line or _object_a_line(file):
        file.seek(0)
        return lines(file, name)
    file.seek(0)
    if _key_of_list(Window(file, name)) is not None:
        file.seek(0)
        return _wrapped(file, name)
    file.seek(at)
    return None


def _object_a_line(file: IO[bytes]) -> bool:
    """Return whether the first line ends with a brace and the next begins with one, as in no whole document.

    The line may be as long as the file, so it is read in pieces."""
    before = b""
    while data := file.read(_LINES_CHUNK):
        line, end, rest = data.partition(b"\n")
        before = line.rstrip()[-1:] or before
        if end:
            break
    else:
        return False
    while before == b"}" and not rest.strip() and (data := file.read(_LINES_CHUNK)):
        rest = data
    return before == b"}" and rest.strip()[:1] == b"{"


def _key_of_list(text: Window) -> str | None:
    """Return the first key of `_WRAPPERS` that holds a list, stepping over the values before it."""
    try:
        for key in text.names():
            if key in _WRAPPERS and text.at("["):
                return key
            text.pass_value()
    except (DataError, NumberError):
        pass  # reading the file whole reports what is wrong
    return None


def _wrapped(file: IO[bytes], name: str) -> Iterator[SourcedRow]:
    """Yield the rows in the lists of an object; more than one list with rows raises `DataError`."""
    text, number, full, before = Window(file, name), 0, "", set[str]()
    for key in text.names():
        if key in before:
            raise _duplicate_around(name, key)
        before.add(key)
        if key not in _WRAPPERS or not text.at("["):
            text.pass_value()
            continue
        for _ in text.items():
            if full not in ("", key):
                raise _two_lists(name, full, key)
            number, full = number + 1, key
            yield text.row(f"{name}:{number}"), f"{name}:{number}"
    text.finish()


def _duplicate_around(name: str, key: str) -> DataError:
    return DataError(f"{name}: the key {key!r} stands twice in the object around the rows; rename one")


def _two_lists(name: str, one: str, other: str) -> DataError:
    way = "put them into one list, or into a file each"
    return DataError(f"{name}: rows under {one!r} and under {other!r}; {way}")


def _rows_with_duplicate_keys(data: bytes, name: str) -> Iterator[SourcedRow]:
    """Yield the rows of a document in which some object holds a key twice; such rows are rejects.

    A key twice in the object around the rows raises `DataError`."""
    hook = _duplicate_keys.DuplicateKeyHook()
    whole = json.loads(data, object_pairs_hook=lambda pairs: _Marked(hook(pairs), hook.take()))
    if isinstance(whole, _Marked) and whole.key is not None and _unwrap(whole, name) != [whole]:
        raise _duplicate_around(name, whole.key)
    for number, row in enumerate(_unwrap(whole, name), start=1):
        source, key = f"{name}:{number}", _marked(row)
        text = msgspec.json.encode(row)
        yield (
            (_duplicate_keys.reject(text, key, source) if key is not None else as_row(DECODE(text), source)),
            source,
        )


class _Marked(dict[str, Any]):
    """An object, and the key that it holds twice."""

    def __init__(self, content: dict[str, Any], key: str | None) -> None:
        super().__init__(content)
        self.key = key


def _marked(value: Any) -> str | None:
    """Return the first key that an object anywhere in `value` holds twice."""
    if isinstance(value, _Marked) and value.key is not None:
        return value.key
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((key for one in inner if (key := _marked(one)) is not None), None)


_WRAPPERS = ("data", "items", "examples", "records")
_WHOLE = 1 << 21


def _unwrap(whole: Any, name: str) -> Iterable[Any]:
    """Return the rows of a document; more than one list with rows raises `DataError`."""
    if not isinstance(whole, dict):
        return [whole]
    lists = {key: whole[key] for key in _WRAPPERS if isinstance(whole.get(key), list)}
    full = [key for key, rows in lists.items() if rows]
    if len(full) > 1:
        raise _two_lists(name, *full[:2])
    if lists:
        return list(lists[full[0]]) if full else []
    if whole and all(isinstance(row, dict) for row in whole.values()):
        return list(whole.values())
    return [whole]


def _items(file: IO[bytes], name: str) -> Iterator[SourcedRow]:
    """Yield the items of a JSON list with the line on which each begins, and a number if others began there before."""
    text, last, number = Window(file, name), 0, 1
    for line in text.items():
        number, last = number + 1 if line == last else 1, line
        source = f"{name}:{line}" if number == 1 else f"{name}:{line}[{number}]"
        yield text.row(source), source
    text.finish()

"""JSON and JSONL -> raw rows, one at a time; a JSON list is read piece by piece, whatever its size, and so is
one in a large object. Small objects, and large ones that map ids to rows, are read whole."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import IO, Any

import msgspec

from dfkdata.common.errors import DataError
from dfkdata.sources import _duplicate_keys
from dfkdata.sources._json_window import NoNumber, Window
from dfkdata.sources._rejects import BOM, DECODE, DECODE_LINES, Found, as_row, bad_json

_LINES_CHUNK = 1 << 17


def lines(file: IO[bytes], name: str) -> Iterator[Found]:
    """One JSON object a line; blank lines are no rows."""
    passed = 0
    for text in _whole_lines(file):
        try:
            rows = DECODE_LINES(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            rows = []
        if rows and _duplicate_keys.plain(text, rows):
            for row in rows:
                passed += 1
                source = f"{name}:{passed}"
                yield (row if "raw" not in row else as_row(row, source)), source
        else:
            yield from _one_by_one(text, name, passed)
            passed += text.count(b"\n")


def _whole_lines(file: IO[bytes]) -> Iterator[bytes]:
    """The file in pieces of whole lines; a long line is read in steps that double."""
    rest = b""
    start = True
    while data := file.read(max(_LINES_CHUNK, len(rest))):
        if start:
            data, start = data.removeprefix(BOM), False
        cut = data.rfind(b"\n") + 1
        if cut:
            yield rest + data[:cut]
            rest = data[cut:]
        else:
            rest += data
    if rest:
        yield rest


def _one_by_one(text: bytes, name: str, passed: int) -> Iterator[Found]:
    """Lines of which some may be no row. passed: lines before these."""
    for at, line in enumerate(text.split(b"\n"), start=1):
        source = f"{name}:{passed + at}"
        try:
            row = DECODE(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            if line.strip():
                yield bad_json(line, source, str(error)), source
            continue
        key = _duplicate_keys.twice(line, row)
        yield (_duplicate_keys.reject(line, key, source) if key is not None else as_row(row, source)), source


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
    data = file.read(_WHOLE).removeprefix(BOM)
    found = _large(file, name, data) if start == b"{" and len(data) > _WHOLE - len(BOM) else None
    if found is not None:
        del data
        yield from found
        return
    data += file.read()
    try:
        whole = DECODE(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        rows = _undecoded(file, name, data) if start == b"{" else None
        if rows is None:
            raise DataError(f"{name}: not JSON ({error})") from error
        yield from rows
        return
    if _duplicate_keys.twice(data, whole) is not None:
        yield from _with_keys_twice(data, name)
        return
    for number, row in enumerate(_unwrap(whole, name), start=1):
        source = f"{name}:{number}"
        yield as_row(row, source), source


def _undecoded(file: IO[bytes], name: str, data: bytes) -> Iterable[Found] | None:
    """The rows of an object that does not decode as a whole: those under one of `_WRAPPERS`, where what is
    wrong lies within rows; else those of lines. None where there is one line."""
    file.seek(0)
    if len(data) <= _WHOLE and _key_of_list(Window(file, name)) is not None:
        file.seek(0)
        try:
            return list(_wrapped(file, name))
        except DataError:
            pass  # it may be JSON lines
    file.seek(0)
    return lines(file, name) if b"\n" in data.strip() else None


def _large(file: IO[bytes], name: str, head: bytes) -> Iterator[Found] | None:
    """The rows of a large file that begins with an object and `head`, where they can be read piece by piece:
    one object a line, or lists under `_WRAPPERS`. Else None, and the file stands behind `head`."""
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
    """Whether the first line ends with a brace and the next begins with one, as in no whole document. The
    line may be as long as the file, so it is read in pieces."""
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
    """The first key of `_WRAPPERS` that holds a list; values before it are passed."""
    try:
        for key in text.names():
            if key in _WRAPPERS and text.at("["):
                return key
            text.pass_value()
    except (DataError, NoNumber):
        pass  # what is wrong is said by what reads it whole
    return None


def _wrapped(file: IO[bytes], name: str) -> Iterator[Found]:
    """The rows in the lists of an object. Raises `DataError` where more than one list holds rows."""
    text, number, full, before = Window(file, name), 0, "", set[str]()
    for key in text.names():
        if key in before:
            raise _twice_around(name, key)
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


def _twice_around(name: str, key: str) -> DataError:
    return DataError(f"{name}: the key {key!r} stands twice in the object around the rows; rename one")


def _two_lists(name: str, one: str, other: str) -> DataError:
    way = "put them into one list, or into a file each"
    return DataError(f"{name}: rows under {one!r} and under {other!r}; {way}")


def _with_keys_twice(data: bytes, name: str) -> Iterator[Found]:
    """A document in which some object names a key twice: rows that do so are rejects. Raises `DataError`
    where it is the object around the rows."""
    hook = _duplicate_keys.Twice()
    whole = json.loads(data, object_pairs_hook=lambda pairs: _Marked(hook(pairs), hook.take()))
    if isinstance(whole, _Marked) and whole.key is not None and _unwrap(whole, name) != [whole]:
        raise _twice_around(name, whole.key)
    for number, row in enumerate(_unwrap(whole, name), start=1):
        source, key = f"{name}:{number}", _marked(row)
        text = msgspec.json.encode(row)
        yield (
            (_duplicate_keys.reject(text, key, source) if key is not None else as_row(DECODE(text), source)),
            source,
        )


class _Marked(dict[str, Any]):
    """An object, and the key that it names twice."""

    def __init__(self, found: dict[str, Any], key: str | None) -> None:
        super().__init__(found)
        self.key = key


def _marked(value: Any) -> str | None:
    """The first key that an object anywhere in `value` names twice."""
    if isinstance(value, _Marked) and value.key is not None:
        return value.key
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((key for one in inner if (key := _marked(one)) is not None), None)


_WRAPPERS = ("data", "items", "examples", "records")
_WHOLE = 1 << 21


def _unwrap(whole: Any, name: str) -> Iterable[Any]:
    """The rows of a document. Raises `DataError` where more than one list holds rows."""
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


def _items(file: IO[bytes], name: str) -> Iterator[Found]:
    """The items of a JSON list with the line on which each begins. Raises `DataError` where the list breaks
    off."""
    text = Window(file, name)
    for line in text.items():
        yield text.row(f"{name}:{line}"), f"{name}:{line}"
    text.finish()

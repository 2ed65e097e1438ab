"""Find JSON objects that hold a key twice: JSON readers keep the last value and say nothing.

How it works. A colon outside of texts follows a key. If there are as many quotes with a colon behind them as
the decoded rows have keys, no key was lost, and that can be seen for many rows at once. Only what looks odd
is read again by a slow reader that knows."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import msgspec

from dfkdata.rows.record import Reject, RowError

_ENCODE = msgspec.json.Encoder().encode
_APART = re.compile(rb'"\s+:')
_ESCAPED = b"\\u00"  # a quote or a colon may be written so, and then counts do not agree
_BIG = 1 << 16  # bytes from which numpy pays


class DuplicateKeyHook:
    """Hook of `json` readers that builds objects; `key` is the first one that an object holds twice."""

    def __init__(self) -> None:
        self.key: str | None = None

    def __call__(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """Return the object of these pairs."""
        content = dict(pairs)
        if len(content) < len(pairs) and self.key is None:
            counts = Counter(name for name, _ in pairs)
            self.key = next(name for name, count in counts.items() if count > 1)
        return content

    def take(self) -> str | None:
        """Return the key and forget it."""
        key, self.key = self.key, None
        return key


def duplicate_key(text: bytes, value: Any) -> str | None:
    """Return the key that an object in `text` holds twice, or None; `value` is what the text decodes to."""
    if not _APART.search(text) and _ESCAPED not in text and text.count(b'":') == _ENCODE(value).count(b'":'):
        return None
    hook = DuplicateKeyHook()
    json.loads(text, object_pairs_hook=hook)
    return hook.key


def certainly_unique(text: bytes, rows: list[Any]) -> bool:
    """Return whether `rows` are certainly what `text` holds: one object a line, with each key once.

    False means that nothing is certain."""
    if len(text) < _BIG or text[:1] != b"{" or text[-1:] != b"\n" or set(map(type, rows)) != {dict}:
        return False
    import numpy

    signs = numpy.frombuffer(text, numpy.uint8)
    ends = numpy.flatnonzero(signs == 10)
    # inside an object no line can begin with a brace when the one before ended with one
    if len(ends) != len(rows) or (signs[ends - 1] != 125).any() or (signs[ends[:-1] + 1] != 123).any():
        return False
    before = signs[numpy.flatnonzero(signs == 58) - 1]
    if (before <= 32).any():
        return False
    keys = int((before == 34).sum())
    if keys == sum(map(len, rows)):
        return True
    return _ESCAPED not in text and keys == _ENCODE(rows).count(b'":')


def reject(text: bytes, key: str, source: str) -> Reject:
    """Return the reject of a row that holds `key` twice; it keeps the text, as the value lost something."""
    shown = text.decode("utf-8", "backslashreplace").rstrip("\r\n")
    hint = "keep one of the two"
    return RowError("KEY_TWICE", f"the key {key!r} stands twice", path=key, value=shown, hint=hint).reject(
        source, shown
    )

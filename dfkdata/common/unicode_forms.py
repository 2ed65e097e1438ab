"""Unicode normal forms in linear time.

How it works. `unicodedata` puts the combining marks behind a letter in order by insertion, which takes quadratic time
for long runs of them (80,000 marks: 19 s). Before such a text is given to it, its signs are taken apart one by one and
each run of marks is sorted, which changes no normal form; ordered runs take linear time. A text without long runs goes
straight to `unicodedata`; every 32nd sign is looked at to know that.

Guarantees:
- The results are those of `unicodedata`."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import Literal

Form = Literal["NFC", "NFD", "NFKC", "NFKD"]

_STEP = 32
_LATE_MARKS = frozenset("\u0f73\u0f75\u0f81\uff9e\uff9f")
"""Signs that are no marks but are taken apart into marks alone."""


def normalize(form: Form, text: str) -> str:
    """Return `text` in a Unicode normal form; equal to `unicodedata.normalize(form, text)`.

    Example:
        >>> from dfkdata.common.unicode_forms import normalize
        >>> normalize("NFC", "e\\u0301") == "\\u00e9"
        True
    """
    if not has_long_run(text):
        return unicodedata.normalize(form, text)
    apart = "NFKD" if "K" in form else "NFD"
    return unicodedata.normalize(form, "".join(_ordered("".join(_apart(apart, sign) for sign in text))))


def is_normalized(form: Form, text: str) -> bool:
    """Return whether `text` is in a Unicode normal form; equal to `unicodedata.is_normalized(form, text)`."""
    return normalize(form, text) == text if has_long_run(text) else unicodedata.is_normalized(form, text)


def has_long_run(text: str) -> bool:
    """Return whether there may be 32 marks or more in a row; never False for 64 of them."""
    return not text.isascii() and any(
        _is_mark(text[at]) and _run(text, at) >= _STEP for at in range(0, len(text), _STEP)
    )


def _run(text: str, at: int) -> int:
    """Return how many marks stand in a row around a place, at most 32 to each side."""
    start = end = at
    while start > max(0, at - _STEP) and _is_mark(text[start - 1]):
        start -= 1
    while end < min(len(text), at + _STEP) and _is_mark(text[end]):
        end += 1
    return end - start


def _is_mark(sign: str) -> bool:
    return unicodedata.combining(sign) != 0 or sign in _LATE_MARKS


@lru_cache(maxsize=4096)
def _apart(form: Form, sign: str) -> str:
    return unicodedata.normalize(form, sign)


def _ordered(text: str) -> Iterator[str]:
    """Yield the signs of a text that was taken apart, each run of marks in its canonical order."""
    run: list[str] = []
    for sign in text:
        if unicodedata.combining(sign):
            run.append(sign)
            continue
        yield from sorted(run, key=unicodedata.combining)
        run.clear()
        yield sign
    yield from sorted(run, key=unicodedata.combining)

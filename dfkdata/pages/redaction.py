"""Mask what points at a person: handles, links, phone numbers and e-mail addresses in texts.

Guarantees:

- Only what is shown is masked; rows, answers and scores stay as they are.
- A text without any of these stays as it is, and masking twice changes nothing more."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

_DOMAINS = "com|net|org|id|co|me|ly|be|gg|io|info|tv|xyz|link|page|site|app|gl|sch|ac|go"
_KINDS: Final = {
    "e-mail": r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,5}",
    "link": rf"\b(?:https?://|www\.)[^\s<>\"']+|(?<![\w@.-])(?:[\w-]{{1,63}}\.){{1,4}}(?:{_DOMAINS})\b(?:/[^\s<>\"']*)?",
    "handle": r"(?<![\w@/])@\w[\w.]{0,29}",
    "phone": r"(?<![\w./-])\+?\(?\d(?:[ ().-]{0,2}\d){8,}(?![\w-])",
}
_PATTERN: Final = re.compile("|".join(f"({pattern})" for pattern in _KINDS.values()), re.IGNORECASE)


def mask(text: str) -> str:
    """Return a text with "[handle]", "[link]", "[phone]" and "[e-mail]" in place of what they name.

    Example:
        >>> from dfkdata.pages.redaction import mask
        >>> mask("Kata @budi.s di https://x.example/1, telepon 0812-3456-7890")
        'Kata [handle] di [link] telepon [phone]'
    """
    names = tuple(_KINDS)
    return _PATTERN.sub(lambda found: f"[{names[(found.lastindex or 1) - 1]}]", text)


def masked(value: Any) -> Any:
    """Return a value of JSON types with `mask` on all its texts; keys stay."""
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, Mapping):
        return {key: masked(inner) for key, inner in value.items()}
    return [masked(inner) for inner in value] if isinstance(value, list | tuple) else value

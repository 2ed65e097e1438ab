"""Find control tokens in turns, and bring their text to Unicode normal form."""

from __future__ import annotations

import re
import unicodedata

from dfkdata.rows.record import RowError
from dfkdata.validation.rules import RowReport

_CONTROL = re.compile(rb"<\|[A-Za-z0-9_]+\|>")
_LESS = ord("<")


def may_hold_control_token(turns: bytes) -> bool:
    """Return whether encoded turns hold the beginning of a control token."""
    return _LESS in turns and b"<|" in turns  # searching for one byte is five times as fast as for two


def control_token(turns: bytes) -> str | None:
    """Return the first control token in encoded turns, or None.

    Tokenizers obey such tokens: <|image_pad|> in a text is one more picture, <|im_end|> ends the turn."""
    match = _CONTROL.search(turns) if may_hold_control_token(turns) else None
    return match.group().decode() if match is not None else None


def check_control_tokens(turns: bytes, report: RowReport) -> None:
    """Report a control token in encoded turns."""
    name = control_token(turns)
    if name is not None:
        hint = "write it in another way, or drop the row"
        report(RowError("CONTROL_TOKEN", f"the text says {name}", path="messages", value=name, hint=hint))


# Joiners (U+200C, U+200D) are left out: emoji and several scripts need them.
_ZERO_WIDTH = ("\u200b", "\u2060", "\ufeff", "\u00ad")


def nfc(text: str) -> str:
    """Return `text` in Unicode normal form C."""
    return unicodedata.normalize("NFC", text)


def is_normal(text: str) -> bool:
    """Return whether `normalised` finds nothing to report or to change in a text."""
    return unicodedata.is_normalized("NFC", text) and not any([sign in text for sign in _ZERO_WIDTH])


def normalised(text: str, report: RowReport) -> str | None:
    """Return the JSON text of some turns as it is to be written, or None if it stays as it is.

    JSON's own signs are ASCII that composes with nothing, so the text can be normalised as a whole.

    Args:
        text: The turns as JSON.
        report: Called with ZERO_WIDTH and TEXT_NFC; text is changed if their policy is "fix".
    """
    fixed = text
    if any(character in text for character in _ZERO_WIDTH):
        report(RowError("ZERO_WIDTH", "invisible characters in the text", path="messages"))
        if report.policy("ZERO_WIDTH") == "fix":
            fixed = text.translate(dict.fromkeys(map(ord, _ZERO_WIDTH)))
    if not unicodedata.is_normalized("NFC", fixed):
        report(RowError("TEXT_NFC", "the text is not in Unicode normal form C", path="messages"))
        if report.policy("TEXT_NFC") == "fix":
            fixed = nfc(fixed)
    return fixed if fixed != text else None

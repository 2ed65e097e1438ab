"""Find control tokens in turns, and bring their text to Unicode normal form."""

from __future__ import annotations

import re
import unicodedata

from dfkdata.rows.record import RowError
from dfkdata.validation.rules import RuleReporter

_CONTROL = re.compile(rb"<\|[A-Za-z0-9_]+\|>")
_LESS = ord("<")


def may_hold_control_token(turns: bytes) -> bool:
    """Whether encoded turns hold the beginning of a control token."""
    return _LESS in turns and b"<|" in turns  # a number is found five times as fast as a text


def control_token(turns: bytes) -> str | None:
    """The first control token in encoded turns. Tokenizers obey them, so a text that says <|image_pad|> is
    one more picture, and one that says <|im_end|> ends the turn."""
    found = _CONTROL.search(turns) if may_hold_control_token(turns) else None
    return found.group().decode() if found is not None else None


def check_control_tokens(turns: bytes, report: RuleReporter) -> None:
    """Look for control tokens in encoded turns."""
    name = control_token(turns)
    if name is not None:
        hint = "write it in another way, or drop the row"
        report(RowError("CONTROL_TOKEN", f"the text says {name}", path="messages", value=name, hint=hint))


# Joiners (U+200C, U+200D) are left out: emoji and several scripts need them.
_ZERO_WIDTH = ("\u200b", "\u2060", "\ufeff", "\u00ad")


def nfc(text: str) -> str:
    """`text` in Unicode normal form C."""
    return unicodedata.normalize("NFC", text)


def is_normal(text: str) -> bool:
    """Whether `normalised` has nothing to say about a text."""
    return unicodedata.is_normalized("NFC", text) and not any([sign in text for sign in _ZERO_WIDTH])


def normalised(text: str, report: RuleReporter) -> str | None:
    """The JSON `text` of some turns as it is to be written; None when it stays as it is.

    JSON's own signs are ASCII that composes with nothing, so the text can be normalised as a whole."""
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

"""Find control tokens and damage in turns, and bring their text to Unicode normal form."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Any

from dfkdata.rows.record import Record, Row, RowError
from dfkdata.validation.rules import RowReport

_CONTROL = re.compile(rb"<\|[A-Za-z0-9_]+\|>")
_LESS = ord("<")


_SIGNS = frozenset(("nan", "null", "<na>", "n/a", "nat", "undefined"))
_ERROR = re.compile(r"#(?:VALUE!|REF!|DIV/0!|NAME\?|NUM!|NULL!|N/A|SPILL!|CALC!|ERROR!)", re.IGNORECASE)
_LONGEST_SIGN = 9


def missing_value(text: str) -> str | None:
    """Return the sign of a missing value, or the spreadsheet's error, that an answer is or holds; else None.

    Example: "nan" that pandas wrote for an empty cell, or "#VALUE!"."""
    if len(text) < _LONGEST_SIGN + 8 and (word := text.strip(" \t\r\n.")).casefold() in _SIGNS:
        return word
    match = _ERROR.search(text) if "#" in text else None
    return match.group() if match is not None else None


def broken_sign(text: str) -> str | None:
    """Return the name of a sign in a text that only damage leaves, or None."""
    if "\0" in text:
        return "NUL"
    return None if text.isascii() or "\ufffd" not in text else "U+FFFD, the sign for a lost character"


def may_be_damaged(text: str) -> bool:
    """Return whether `check_answers` would find something in an answer."""
    return missing_value(text) is not None or broken_sign(text) is not None


def check_answers(record: Record, turns: list[Row], report: RowReport) -> None:
    """Report answers that are a missing value's sign or hold signs which only damage leaves.

    Args:
        record: The record; its gold is the answer if it has one.
        turns: The row's turns, whose assistant turns are the answers of a record without gold.
        report: Called with ANSWER_MISSING_VALUE and TEXT_DAMAGED.
    """
    for path, text in _answers(record, turns):
        sign = missing_value(text)
        if sign is not None:
            reason, hint = f"the answer says {sign}", "write the answer, or drop the row"
            report(RowError("ANSWER_MISSING_VALUE", reason, path=path, value=text, hint=hint))
        damage = broken_sign(text)
        if damage is not None:
            hint = "it was read in a wrong encoding before; repair the text"
            report(RowError("TEXT_DAMAGED", f"the answer holds {damage}", path=path, value=text, hint=hint))


def _answers(record: Record, turns: list[Row]) -> Iterator[tuple[str, str]]:
    if record.gold is not None:
        yield from _strings(record.gold, "gold")
        return
    for at, turn in enumerate(turns):
        if turn.get("role") == "assistant":
            yield from _strings(turn, f"messages.{at}")


def _strings(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _strings(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            yield from _strings(inner, f"{path}.{at}")


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

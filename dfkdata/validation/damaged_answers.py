"""Find answers that are damaged: signs of missing values, errors of spreadsheets, and lost characters."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from functools import lru_cache
from typing import Any

from dfkdata.rows.record import Record, Row, RowError
from dfkdata.validation.rules import RowReport

_SIGNS = frozenset(
    (
        "nan", "+nan", "-nan", "null", "<na>", "n/a", "#n/a n/a", "nat", "undefined", "\\n",
        "(blank)", "(empty)", "(null)", "(none)", "1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan",
    )
)  # fmt: skip
"""Texts that programs write for a missing value, in small letters and without a full stop."""

_WORDS = frozenset(("none", "nil", "na", "n.a"))
"""More of them, which are values of tool arguments as well."""

_MARKS = frozenset("-\u2010\u2011\u2012\u2013\u2014\u2015\u2212_.?*/\u2026")
"""Signs that people put into a cell that they leave empty."""

_ERRORS = (
    "VALUE!", "REF!", "DIV/0!", "NAME?", "NUM!", "NULL!", "N/A", "SPILL!", "CALC!", "ERROR!", "GETTING_DATA",
    "FIELD!", "BLOCKED!", "CONNECT!", "BUSY!", "UNKNOWN!", "PYTHON!", "EXTERNAL!",
)  # fmt: skip
"""Errors of spreadsheets behind their #, which count wherever they stand."""

_TRANSLATED = (
    "NILAI!", "NAMA?", "ANGKA!", "NIHIL!", "BAGI/0!", "TIDAK_TERSEDIA", "T/A",  # Indonesian, Malay
    "WERT!", "BEZUG!", "ZAHL!", "NV", "ÜBERLAUF!",  # German
    "VALEUR!", "NOM?", "NOMBRE!", "NUL!",  # French
    "¡VALOR!", "¡REF!", "¿NOMBRE?", "¡NUM!", "¡NULO!", "¡DIV/0!",  # Spanish
    "VALOR!", "NOME?", "NÚM!", "NULO!", "N/DISP", "N/D",  # Portuguese
    "VALORE!", "RIF!", "NULLO!",  # Italian
    "WAARDE!", "VERW!", "NAAM?", "GETAL!", "LEEG!", "N/B", "DEEL/0!",  # Dutch
    "ЗНАЧ!", "ССЫЛКА!", "ИМЯ?",
    "ЧИСЛО!", "Н/Д", "ДЕЛ/0!",
    "ПУСТО!",  # Russian
    "DEĞER!", "BAŞV!", "AD?", "SAYI!", "YOK", "BOŞ!", "SAYI/0!",  # Turkish
    "ARG!", "ADR!", "NAZWA?", "LICZBA!", "N/D!", "ZERO!", "DZIEL/0!",  # Polish
    "VÄRDEFEL!", "REFERENS!", "NAMN?", "OGILTIGT!", "SAKNAS!", "SKÄRNING!", "DIVISION/0!",  # Swedish
    "VÆRDI!", "VERDI!", "REFERENCE!", "NAVN?", "I/T",  # Danish, Norwegian
    "ARVO!", "VIITTAUS!", "NIMI?", "LUKU!", "PUUTTUU!", "TYHJÄ!", "JAKO/0!",  # Finnish
    "HODNOTA!", "ODKAZ!", "NÁZEV?", "ČÍSLO!",  # Czech
    "ÉRTÉK!", "HIV!", "NÉV?", "SZÁM!", "HIÁNYZIK", "NULLA!",  # Hungarian
)  # fmt: skip
"""The same as Excel and LibreOffice write them in other languages. Many are words, and hashtags, of these languages, so
they count only where they stand alone: as a whole answer, a line of it, or what follows a colon at a line's end."""


def _any_of(words: tuple[str, ...]) -> str:
    return "|".join(map(re.escape, sorted(words, key=len, reverse=True)))


_ERROR = re.compile(
    rf"(?<!\w)(?:#(?:{_any_of(_ERRORS)})|Err:5\d\d)(?!\w)"
    rf"|(?:^|:)[^\S\n]*(?P<alone>#(?:{_any_of(_TRANSLATED)}))\.?[^\S\n]*$",
    re.IGNORECASE | re.MULTILINE,
)
_SHORT = max(map(len, _SIGNS)) + 8  # characters of an answer that may be a sign, with blanks around it


def missing_value(text: str, *, is_argument: bool = False) -> str | None:
    """Return the sign of a missing value, or the spreadsheet's error, that an answer is or holds; else None.

    Args:
        text: The answer, or a text inside it.
        is_argument: Whether it is an argument of a tool, which may well be "none" or "-".

    Example: "nan" that pandas wrote for an empty cell, a lone "-", or "#VALUE!", in any language of the program."""
    if len(text) < _SHORT and (word := _lone_sign(text, is_argument)):
        return word
    may_hold = "#" in text or (len(text) < _SHORT and "Err:" in text)
    match = _ERROR.search(text) if may_hold else None
    return (match["alone"] or match.group()) if match is not None else None


@lru_cache(maxsize=1024)  # turns hold the same short texts again and again: roles, names, types
def _lone_sign(text: str, is_argument: bool) -> str:
    """Return the sign of a missing value that a short text is, without blanks around it; empty for none."""
    word = text.strip()
    bare = word.rstrip(".").strip().casefold()
    is_sign = bare in _SIGNS or (not is_argument and (bare in _WORDS or _MARKS.issuperset(word)))
    return word if is_sign else ""


def broken_sign(text: str) -> str | None:
    """Return the name of a sign in a text that only damage leaves, or None."""
    if "\0" in text:
        return "NUL"
    return None if text.isascii() or "\ufffd" not in text else "U+FFFD, the sign for a lost character"


def may_be_damaged(text: str) -> bool:
    """Return whether `check_answers` would find something in an answer; most answers need no closer look."""
    if (len(text) < _SHORT or "#" in text) and missing_value(text) is not None:
        return True
    return "\0" in text or (not text.isascii() and "\ufffd" in text)


def check_answers(record: Record, turns: list[Row], report: RowReport, classes: Collection[str] = ()) -> None:
    """Report answers that are a missing value's sign or hold signs which only damage leaves.

    Args:
        record: The record; its gold is the answer if it has one.
        turns: The row's turns, whose assistant turns are the answers of a record without gold.
        report: Called with ANSWER_MISSING_VALUE and TEXT_DAMAGED.
        classes: Fields of gold that hold one of a schema's classes, of which "none" may be one.
    """
    gold = record.gold
    if gold is not None and classes:
        gold = {name: value for name, value in gold.items() if name not in classes}
    said = [gold] if gold is not None else [t for t in turns if t.get("role") == "assistant"]
    if not any(map(_is_damaged, said)):
        return
    for path, text in _answers(gold, turns):
        sign = missing_value(text, is_argument=".tool_calls." in path)
        if sign is not None:
            reason, hint = f"the answer says {sign}", "write the answer, or drop the row"
            report(RowError("ANSWER_MISSING_VALUE", reason, path=path, value=text, hint=hint))
        damage = broken_sign(text)
        if damage is not None:
            hint = "it was read in a wrong encoding before; repair the text"
            report(RowError("TEXT_DAMAGED", f"the answer holds {damage}", path=path, value=text, hint=hint))


def _is_damaged(value: Any) -> bool:
    """Return whether any text inside a value may be damaged; it names no places, which takes most of the time."""
    if isinstance(value, str):
        return may_be_damaged(value)
    if isinstance(value, dict):
        return any(map(_is_damaged, value.values()))
    return isinstance(value, list) and any(map(_is_damaged, value))


def _answers(gold: Row | None, turns: list[Row]) -> Iterator[tuple[str, str]]:
    if gold is not None:
        yield from _strings(gold, "gold")
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

"""Say how each outcome looks: a sign, a hue and a pattern of its own, and a name by the form that was asked."""

from __future__ import annotations

from dataclasses import dataclass

from dfkdata.pages import Words
from dfkdata.schemas import JsonForm, Schema, TextForm
from dfkeval.types import NOT_ANSWERED, OUTCOMES

_SIGNS = {
    "ok": "✓", "repaired": "≈", "truncated": "…", "empty": "∅", "no_call": "?", "wrong_function": "ƒ", "bad_xml": "<>",
    "bad_json": "{}", "bad_text": "¶", "ambiguous": "×2", "schema_invalid": "≠", "unknown_label": "#",
    "class_refused": "!", "unclosed_think": "…?", "content_filter": "⊘", "request_failed": "✕", "timeout": "◷",
    "no_gold": "–",
}  # fmt: skip
_BY_FORM = ("no_call", "schema_invalid")
HATCHES = ("M0 8L8 0", "M4 0V8", "M0 4H8", "M0 0L8 8", "M0 8L8 0M0 0L8 8", "M3 3h2v2h-2z")
"""Paths in squares of 8, one a pattern; the first is that of valid answers which are wrong."""


@dataclass(frozen=True)
class OutcomeLook:
    """How one outcome is shown.

    Attributes:
        code: Its name in files.
        name: What people read.
        meaning: What it means, in a sentence.
        kind: "good", "warn", "bad" or "none".
        sign: A short sign, so that no outcome is known by its colour alone.
        pattern: Number of its hatching; -1 for none.
    """

    code: str
    name: str
    meaning: str
    kind: str
    sign: str
    pattern: int


def kind(outcome: str) -> str:
    """Return what an outcome is: "good", "warn", "bad", or "none" for what says nothing about the model."""
    if outcome == "ok":
        return "good"
    if outcome in NOT_ANSWERED or outcome == "no_gold":
        return "none"
    return "warn" if outcome == "repaired" else "bad"


def form_of(schema: Schema, mode: str = "free") -> str:
    """Return how answers are written: "text", "json" or "tool"."""
    if mode == "json_mode" or isinstance(schema.form, JsonForm):
        return "json"
    return "text" if isinstance(schema.form, TextForm) else "tool"


def look_of(code: str, form: str, w: Words) -> OutcomeLook:
    """Return how an outcome is shown where answers are written in `form`."""
    bad = [name for name in OUTCOMES if kind(name) == "bad"]
    key = f"{code}_{form}" if code in _BY_FORM else code
    name, _, meaning = w(f"outcome.{key}").partition(": ")
    pattern = 1 + bad.index(code) % (len(HATCHES) - 1) if code in bad else -1
    return OutcomeLook(code, name, meaning, kind(code), _SIGNS[code], pattern)

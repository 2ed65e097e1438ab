"""Answers written as marked text (`Label: …`, blank line, `Analisis: …`) -> field texts with spans.

Strict takes the markers exactly as training writes them, at the beginning of the visible text; the last value
runs to its end. Lenient finds the markers at the start of lines in any case and spacing, and names what it
mended (TEXT_REPAIRS). Visible is what stands behind a leading think block and before the special tokens that
end a turn.

Promises: linear; never raises; nothing is cut from the last value but blanks at the end, and that only
leniently."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

from dfkeval.toolcall import Problem

TEXT_REPAIRS: Final[dict[str, str]] = {
    "text_before": "text stands before the first marker",
    "marker_spelling": "a marker is written in another case or with other blanks",
    "marker_spacing": "the blanks or lines between two parts are not as trained",
    "emphasis": "a one-line value is written in Markdown bold or quotes",
    "second_answer": "a second answer stands inside the last value; the first label counts",
    "outer_blanks": "blanks stand around the answer",
}

Parts = tuple[tuple[str, str], ...]
_THINK: Final = re.compile(r"\s*+<think>")
_TURN_END: Final = re.compile(r"(?:<\|im_end\|>|<\|endoftext\|>)")
_EMPHASIS: Final = "*_`\"'"


@dataclass(slots=True)
class Marked:
    """Field -> text, its spans, the repairs."""

    value: dict[str, str]
    spans: dict[str, tuple[int, int]]
    span: tuple[int, int]
    repairs: list[str]


@dataclass(slots=True)
class TextFailure:
    """Why the text is not of the form."""

    kind: Literal["no_call", "bad_xml", "ambiguous"]
    problems: list[Problem]


def visible(text: str) -> tuple[int, int]:
    """(start, end) of what the user sees: behind a leading think block, before the first special token. A
    think block that is not closed hides everything."""
    start = 0
    if opened := _THINK.match(text):
        close = text.find("</think>", opened.end())
        if close < 0:
            return len(text), len(text)
        start = close + len("</think>")
        start += 2 if text.startswith("\n\n", start) else 0
    ended = _TURN_END.search(text, start)
    return start, ended.start() if ended else len(text)


def read_marked(text: str, parts: Parts, *, lenient: bool) -> Marked | TextFailure:
    """The values behind the markers of `parts`, (marker, field) pairs in order."""
    start, end = visible(text)
    exact = _exact(text, parts, start, end)
    if exact is None or (lenient and _untidy(exact)):
        return _loose(text, parts, start, end) if lenient else _refused(text, parts, start, end)
    again = _twice(text, parts, exact)
    if again is not None and not lenient:
        return again
    if again is not None:
        exact.repairs.append("second_answer")
    return exact


def _untidy(read: Marked) -> bool:
    """Whether the exact reading leaves something that lenient reading mends."""
    *lines, last = read.value.values()
    return last != last.strip() or any(line.strip(_EMPHASIS + " \t") != line for line in lines)


def _exact(text: str, parts: Parts, start: int, end: int) -> Marked | None:
    """The reading with every marker exactly as trained, or None."""
    marker, _ = parts[0]
    if not text.startswith(marker, start):
        return None
    spans: dict[str, tuple[int, int]] = {}
    begin = start + len(marker)
    for (_, field), (marker, _) in pairwise(parts):
        stop = text.find(marker, begin, end)
        if stop < 0 or "\n" in text[begin:stop]:
            return None
        spans[field] = (begin, stop)
        begin = stop + len(marker)
    spans[parts[-1][1]] = (begin, end)
    return Marked({field: text[a:b] for field, (a, b) in spans.items()}, spans, (start, end), [])


def _pattern(marker: str) -> re.Pattern[str]:
    """`marker` at the start of a line, in any case, perhaps in bold, with any blanks around its colon."""
    name = re.escape(marker.strip().rstrip(":").strip())
    return re.compile(rf"^[ \t>*_#]*+({name})[ \t*_]*+:[*_]*+[ \t]*+", re.IGNORECASE | re.MULTILINE)


def _inline(marker: str) -> re.Pattern[str]:
    return re.compile(rf"[ \t]({re.escape(marker.strip())})[ \t]*+", re.IGNORECASE)


def _twice(text: str, parts: Parts, read: Marked) -> TextFailure | None:
    """The whole form stands once more inside the last value: two answers."""
    begin, end = read.spans[parts[-1][1]]
    again = _exact_from(text, parts, begin, end)
    if again < 0:
        return None
    message = "a second answer stands inside the last value"
    return TextFailure("ambiguous", [Problem("ambiguous", "second_answer", message, (again, end))])


def _exact_from(text: str, parts: Parts, begin: int, end: int) -> int:
    at = text.find("\n" + parts[0][0], begin, end)
    if at < 0 or _exact(text, parts, at + 1, end) is None:
        return -1
    return at + 1


def _refused(text: str, parts: Parts, start: int, end: int) -> TextFailure:
    found = [_pattern(marker).search(text, start, end) is not None for marker, _ in parts]
    wanted = " … ".join(repr(marker) for marker, _ in parts)
    problem = Problem("malformed", "not_the_form", f"the text is not of the form {wanted}", (start, end))
    return TextFailure("bad_xml" if any(found) else "no_call", [problem])


def _loose(text: str, parts: Parts, start: int, end: int) -> Marked | TextFailure:
    """The reading with markers wherever they begin a line; the first of each counts."""
    heads: list[re.Match[str]] = []
    at = start
    for number, (marker, _) in enumerate(parts):
        head = _pattern(marker).search(text, at, end)
        if head is None and number:
            head = _inline(marker).search(text, at, end)
        if head is None:
            return _refused(text, parts, start, end)
        heads.append(head)
        at = head.end()
    repairs = ["text_before"] if text[start : heads[0].start()].strip() else []
    if any(head.group().strip() != marker.strip() for head, (marker, _) in zip(heads, parts, strict=True)):
        repairs.append("marker_spelling")
    read = _cut(text, parts, heads, end, repairs)
    lines = [field for _, field in parts[:-1]]
    if any("\n" in read.value[field] for field in lines):
        return _refused(text, parts, start, end)
    if _pattern(parts[0][0]).search(text, read.spans[parts[-1][1]][0], end):
        read.repairs.append("second_answer")
    return read


def _cut(text: str, parts: Parts, heads: list[re.Match[str]], end: int, repairs: list[str]) -> Marked:
    value: dict[str, str] = {}
    spans: dict[str, tuple[int, int]] = {}
    for number, (_, field) in enumerate(parts):
        begin, last = heads[number].end(), number + 1 == len(parts)
        stop = end if last else heads[number + 1].start()
        raw = text[begin:stop]
        inner = raw.strip() if last else raw.strip().strip(_EMPHASIS + ".").strip()
        if not last and inner != raw.strip():
            repairs.append("emphasis")
        if not last and text[begin + len(raw.rstrip()) : heads[number + 1].end()] != parts[number + 1][0]:
            repairs.append("marker_spacing")
        offset = begin + (raw.find(inner) if inner else 0)
        value[field], spans[field] = inner, (offset, offset + len(inner))
    if text[: heads[0].start()].strip() == "" and (
        heads[0].start() or text[end:].strip() or value[parts[-1][1]] != text[begin:end]
    ):
        repairs.append("outer_blanks")
    return Marked(value, spans, (heads[0].start(), end), list(dict.fromkeys(repairs)))

"""Read an answer in marked text (`Label: …`, blank line, `Analisis: …`): the text of each field, with spans.

How it works: strict reading takes the markers exactly as training writes them, at the beginning of the
visible text, and the form's `end` at its end. A form whose one marker is empty is free text: the whole
visible text is the value. If values before the last may have several lines, a marker that stands twice
leaves two readings, and strict reading refuses both. Lenient reading finds the markers at the start of
lines in any case and spacing, and names what it mended (TEXT_REPAIRS). Visible text stands behind a
leading think block and before the special tokens that end a turn.

Guarantees:
- Linear time; never raises.
- Nothing is cut from a value but blanks around it, and those only leniently."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Final, Literal

from dfkdata.schemas import TextForm
from dfkeval.parsing.reasoning import answer_start
from dfkeval.parsing.tags import TURN_ENDS
from dfkeval.parsing.toolcall import Problem

TEXT_REPAIRS: Final[dict[str, str]] = {
    "text_before": "text stands before the first marker",
    "marker_spelling": "a marker is written in another case or with other blanks",
    "marker_spacing": "the blanks or lines between two parts are not as trained",
    "emphasis": "a one-line value is written in Markdown bold or quotes",
    "second_answer": "a second answer stands inside the last value; the first label counts",
    "outer_blanks": "blanks stand around the answer",
    "missing_end": "the answer does not end as trained",
    "text_behind": "text stands behind the line that ends the answer",
}

_TURN_END: Final = re.compile("|".join(map(re.escape, TURN_ENDS)))
_EMPHASIS: Final = "*_`\"'"
#: A pattern that never matches.
_NOTHING: Final = "(?!)"


@dataclass(slots=True)
class MarkedAnswer:
    """The fields of an answer.

    Attributes:
        value: field -> text.
        spans: field -> where its text stands.
        span: where the whole answer stands.
        repairs: names of what was mended."""

    value: dict[str, str]
    spans: dict[str, tuple[int, int]]
    span: tuple[int, int]
    repairs: list[str]


@dataclass(slots=True)
class TextFailure:
    """Why a text is not of the form."""

    kind: Literal["empty", "no_call", "bad_text", "ambiguous"]
    problems: list[Problem]


def visible_span(text: str) -> tuple[int, int]:
    """Return the span of what a user sees: behind a leading think block, before the first special token. A
    think block that is not closed hides everything."""
    start = answer_start(text)
    turn_end = _TURN_END.search(text, start)
    return start, turn_end.start() if turn_end else len(text)


def read_marked(text: str, form: TextForm, *, lenient: bool) -> MarkedAnswer | TextFailure:
    """Read the values behind the markers of a form.

    Args:
        text: what a model wrote.
        form: the form of the answer.
        lenient: whether repairs are allowed."""
    start, end = visible_span(text)
    if not form.parts[0][0]:
        return _free(text, form, start, end, lenient)
    exact = _exact(text, form, start, end)
    if exact is None or (lenient and _untidy(exact, form)):
        return _loose(text, form, start, end) if lenient else _refused(text, form, start, end)
    again = _twice(text, form, exact)
    if again < 0:
        return exact
    if form.end and lenient:
        return _loose(text, form, start, end)
    if lenient:
        exact.repairs.append("second_answer")
        return exact
    message = "a second answer, or a marker once more, stands inside the answer"
    return TextFailure("ambiguous", [Problem("ambiguous", "second_answer", message, (again, end))])


def _free(text: str, form: TextForm, start: int, end: int, lenient: bool) -> MarkedAnswer | TextFailure:
    """Free text: all that is visible is the value of the one field."""
    raw = text[start:end]
    if not raw.strip():
        return TextFailure("empty", [Problem("malformed", "empty", "nothing is visible", (start, end))])
    if not lenient or raw == raw.strip():
        return MarkedAnswer({form.parts[0][1]: raw}, {form.parts[0][1]: (start, end)}, (start, end), [])
    inner = raw.strip()
    begin = start + raw.find(inner)
    span = (begin, begin + len(inner))
    return MarkedAnswer({form.parts[0][1]: inner}, {form.parts[0][1]: span}, span, ["outer_blanks"])


def _lines(form: TextForm) -> frozenset[str]:
    """Return the fields whose values stand on one line: all but the last, or only the last if the form has an
    end."""
    fields = [field for _, field in form.parts]
    return frozenset(fields[-1:] if form.end else fields[:-1])


def _untidy(read: MarkedAnswer, form: TextForm) -> bool:
    """Return whether the exact reading leaves something that lenient reading mends."""
    lines = _lines(form)
    return any(
        value != value.strip() or (field in lines and (value != value.strip(_EMPHASIS) or "\n" in value))
        for field, value in read.value.items()
    )


def _exact(text: str, form: TextForm, start: int, end: int) -> MarkedAnswer | None:
    """Return the reading with every marker exactly as trained, or None."""
    marker, _ = form.parts[0]
    end -= len(form.end)
    if end < start or not (text.startswith(marker, start) and text.startswith(form.end, end)):
        return None
    spans: dict[str, tuple[int, int]] = {}
    begin = start + len(marker)
    for (_, field), (marker, _) in pairwise(form.parts):
        stop = text.find(marker, begin, end)
        if stop < 0 or (not form.end and "\n" in text[begin:stop]):
            return None
        spans[field] = (begin, stop)
        begin = stop + len(marker)
    spans[form.parts[-1][1]] = (begin, end)
    span = (start, end + len(form.end))
    return MarkedAnswer({field: text[a:b] for field, (a, b) in spans.items()}, spans, span, [])


def _names(marker: str) -> str:
    """Return the words of `marker` as a pattern: in any case, perhaps in bold, with any blanks around each
    colon."""
    words = [word for line in marker.split("\n") if (word := line.strip(_EMPHASIS + " \t.:"))]
    loose = (re.escape(word) + r"[ \t*_]*+:[*_]*+[ \t]*+" for word in words)
    return r"\s*+[ \t>*_#]*+".join(loose) if words else _NOTHING


@lru_cache(maxsize=64)
def _pattern(marker: str) -> re.Pattern[str]:
    """`marker` at the start of a line: exactly, or as `_names` allows."""
    return re.compile(rf"^(?:{re.escape(marker)}|[ \t>*_#]*+{_names(marker)})", re.IGNORECASE | re.MULTILINE)


@lru_cache(maxsize=64)
def _inline(marker: str) -> re.Pattern[str]:
    """`marker` inside a line."""
    return re.compile(rf"{re.escape(marker)}|(?<=[ \t*.]){_names(marker)}", re.IGNORECASE)


def _twice(text: str, form: TextForm, read: MarkedAnswer) -> int:
    """Return the offset at which the whole form stands once more inside the last value or, if values have
    several lines, any later marker does; -1 if there is none."""
    begin, end = read.spans[form.parts[-1][1]]
    if form.end:
        later = ((marker, read.spans[field][0]) for marker, field in form.parts[1:])
        return max((text.find(marker, at - len(marker) + 1, end) for marker, at in later), default=-1)
    at = text.find("\n" + form.parts[0][0], begin, end)
    return -1 if at < 0 or _exact(text, form, at + 1, end) is None else at + 1


def _refused(text: str, form: TextForm, start: int, end: int) -> TextFailure:
    any_marker = any(_pattern(marker).search(text, start, end) for marker, _ in form.parts)
    shape = " … ".join(repr(marker) for marker, _ in form.parts)
    shape += f" … {form.end!r}" if form.end else ""
    problem = Problem("malformed", "not_the_form", f"the text is not of the form {shape}", (start, end))
    return TextFailure("bad_text" if any_marker else "no_call", [problem])


def _loose(text: str, form: TextForm, start: int, end: int) -> MarkedAnswer | TextFailure:
    """Return the reading with markers at the start of any line; the first of each counts."""
    heads: list[re.Match[str]] = []
    at = start
    for marker, _ in form.parts:
        head = _head(text, marker, at, end, inline=bool(heads), anywhere=not form.end)
        if head is None:
            return _refused(text, form, start, end)
        heads.append(head)
        at = head.end()
    repairs = ["text_before"] if text[start : heads[0].start()].strip() else []
    spelled = zip(heads, form.parts, strict=True)
    if any(head.group().strip() != marker.strip() for head, (marker, _) in spelled):
        repairs.append("marker_spelling")
    read = _cut(text, form, heads, end, repairs)
    if any("\n" in read.value[field] for field in _lines(form)):
        return _refused(text, form, start, end)
    if _pattern(form.parts[0][0]).search(text, read.spans[form.parts[-1][1]][0], end):
        read.repairs.append("second_answer")
    return read


def _head(text: str, marker: str, at: int, end: int, inline: bool, anywhere: bool) -> re.Match[str] | None:
    """Return the marker at the start of a line or, if `inline`, inside one: whichever comes first if
    `anywhere`."""
    at_line = _pattern(marker).search(text, at, end)
    if not inline or (at_line is not None and not anywhere):
        return at_line
    in_line = _inline(marker).search(text, at, end)
    both = [head for head in (at_line, in_line) if head is not None]
    return min(both, key=re.Match.start, default=None)


def _cut(text: str, form: TextForm, heads: list[re.Match[str]], end: int, repairs: list[str]) -> MarkedAnswer:
    value: dict[str, str] = {}
    spans: dict[str, tuple[int, int]] = {}
    stops = [head.start() for head in heads[1:]]
    stops.append(_last_stop(text, form, heads[-1].end(), end, repairs))
    lines = _lines(form)
    for number, (_, field) in enumerate(form.parts):
        begin, stop = heads[number].end(), stops[number]
        raw = text[begin:stop]
        inner = raw.strip().strip(_EMPHASIS + ".").strip() if field in lines else raw.strip()
        if field in lines and inner != raw.strip():
            repairs.append("emphasis")
        gap = text[begin + len(raw.rstrip()) : heads[number + 1].end()] if number + 1 < len(heads) else None
        if gap is not None and gap != form.parts[number + 1][0]:
            repairs.append("marker_spacing")
        offset = begin + (raw.find(inner) if inner else 0)
        value[field], spans[field] = inner, (offset, offset + len(inner))
    before = heads[0].start() if not text[: heads[0].start()].strip() else 0
    if before or text[end - 1 : end].isspace():
        repairs.append("outer_blanks")
    return MarkedAnswer(value, spans, (heads[0].start(), end), list(dict.fromkeys(repairs)))


def _last_stop(text: str, form: TextForm, begin: int, end: int, repairs: list[str]) -> int:
    """Return where the last value stops: at the end of the form on its line, or where the text ends."""
    if not form.end:
        return end
    begin += len(text[begin:end]) - len(text[begin:end].lstrip())
    line = text.find("\n", begin, end)
    stop = line if line >= 0 else end
    if text[stop:end].strip():
        repairs.append("text_behind")
    stop = begin + len(text[begin:stop].rstrip())
    if text.endswith(form.end, begin, stop):
        return stop - len(form.end)
    repairs.append("missing_end")
    return stop

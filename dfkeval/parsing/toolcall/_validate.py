"""Type and validate a call that was read, or say which problems forbid it.

How it works: this is the only place where strict and lenient reading differ. Lenient reading takes a call
whose repairs are in REPAIRS, and of two readings the one that the doubt describes; strict reading reports
both as problems.

Guarantees:
- Lenient reading takes every call that strict reading takes, with equal arguments, because both see the
  same frame."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice, pairwise, product, starmap
from typing import Any, Final

from dfkdata.common.json_schema import Issue, pointer_step
from dfkeval.parsing.coercion import Dialect, Refused, Slot, read
from dfkeval.parsing.json_call import KEY_REPAIRS
from dfkeval.parsing.toolcall._frame import DOUBTS, Doubt, Frame, Parameter
from dfkeval.parsing.toolcall._tools import Tool
from dfkeval.parsing.toolcall._types import Problem, Span, Status, ToolCall

#: What lenient reading mends, by name. Strict reading reports each as malformed under the same name.
REPAIRS: Final[dict[str, str]] = {
    "missing_close_parameter": "a value ends without </parameter>",
    "drifted_closer": "a closing tag is misspelled",
    "duplicate_closer": "</parameter> is written more than once",
    "stray_closer": "</function> is written more than once",
    "orphan_closer": "closing tags follow a call that is already closed",
    "missing_close_function": "</function> is missing",
    "missing_close_tool_call": "</tool_call> is missing",
    "missing_open_tool_call": "<tool_call> is missing",
    "missing_tool_call_tags": "<tool_call> and </tool_call> are missing",
    "duplicate_opener": "<tool_call> is written twice",
    "shared_tool_call": "one <tool_call> holds more than one function",
    "unclosed_call": "the text ends before the closing tags of a call",
    "crlf_framing": "the line before a text ends in CRLF",
    "unclosed_fence": "a code fence is opened before the call and not closed before it",
    "python_literal": "a JSON value is written as a Python literal",
    "integer_from_exponent": "an integer is written with an exponent",
    "empty_optional_dropped": "an optional parameter that cannot be text is left empty",
    "raw_line_break": "a line break or tab stands raw inside a JSON string",
    "self_closed_opener": "an opening tag is closed in itself",
    **KEY_REPAIRS,
}
_CUT: Final = ("unclosed_call",)
#: How many ways to read a call are tried if parts of the schema type a parameter differently.
_TRIED: Final = 64


class Outcome:
    """The result of one frame: the call, or None, and the problems."""

    __slots__ = ("call", "problems")

    def __init__(self, call: ToolCall | None, problems: list[Problem]) -> None:
        self.call = call
        self.problems = problems


def finish(frame: Frame, text: str, dialect: Dialect, lenient: bool, poisoned: bool) -> Outcome:
    """Return the call of `frame`, typed and validated, or its problems.

    Args:
        frame: the call as it was read.
        text: the text that holds it.
        dialect: how scalars are spelled.
        lenient: whether repairs are allowed.
        poisoned: strict reading cannot trust where this call begins."""
    notes = frame.notes
    problems = [*notes.faults, *starmap(_duplicate, notes.twice.items())]
    arguments, spans = _arguments(frame, text, dialect, lenient, problems)
    if frame.tool is None:
        problems.append(_unknown_function(frame))
    elif not (problems or (frame.tool.covered and frame.tool.required <= arguments.keys())):
        issues = frame.tool.validator.issues(arguments)
        if issues and not _otherwise(frame, frame.tool, text, dialect, arguments):
            problems += [_invalid(issue, _anchor(frame, spans, issue)) for issue in issues]
    if not lenient:
        problems += _strict(frame, poisoned)
    if problems:
        return Outcome(None, sorted(problems, key=lambda problem: problem.span))
    return Outcome(
        ToolCall(frame.name, arguments, (frame.start, frame.end), tuple(frame.notes.repairs), spans), []
    )


def _strict(frame: Frame, poisoned: bool) -> list[Problem]:
    problems = [*map(_ambiguous, frame.notes.doubts), *_embedded(frame)]
    for name, span in frame.notes.repairs.items():
        status: Status = "truncated" if name in _CUT else "malformed"
        problems.append(Problem(status, name, REPAIRS[name], span))
    if poisoned:
        message = "this call begins inside a call that is not closed"
        problems.append(Problem("malformed", "inside_malformed", message, (frame.start, frame.end)))
    return problems


def _ambiguous(doubt: Doubt) -> Problem:
    code, start, end, names = doubt
    return Problem("ambiguous", code, DOUBTS[code].format(*names), (start, end))


def _embedded(frame: Frame) -> list[Problem]:
    """Doubts about parameters whose value holds a closer as text: such a parameter may itself be text of the
    value before it, if no rule requires it."""
    problems = []
    for before, parameter in pairwise(frame.parameters):
        free = before.textual and before.framed and not (before.slot is not None and before.slot.enumerated)
        needed = frame.tool is not None and parameter.name in frame.tool.required
        if parameter.closer_inside and free and not needed:
            message = (
                f"{parameter.name!r} holds a closing tag as text; it may be text of {before.name!r} itself"
            )
            problems.append(Problem("ambiguous", "parameter_or_text", message, (before.begin, parameter.end)))
    return problems


def _duplicate(name: str, span: Span) -> Problem:
    message = f"the parameter {name!r} stands more than once"
    return Problem("invalid", "duplicate_parameter", message, span, pointer_step(name))


def _unknown_function(frame: Frame) -> Problem:
    message = f"no tool is named {frame.name!r}"
    return Problem("invalid", "unknown_function", message, (frame.start, frame.end))


def _arguments(
    frame: Frame, text: str, dialect: Dialect, lenient: bool, problems: list[Problem]
) -> tuple[dict[str, Any], dict[str, Span]]:
    arguments: dict[str, Any] = {}
    spans: dict[str, Span] = {}
    if frame.tool is None:
        return arguments, spans
    for parameter in frame.parameters:
        if parameter.name in spans:
            continue  # a duplicate, reported as such
        span = spans[parameter.name] = parameter.value_span(text)
        if parameter.slot is None:
            problems.append(_undeclared(frame, parameter, span))
            continue
        try:
            value, repairs = _value(parameter, parameter.slot, text[span[0] : span[1]], dialect, lenient)
        except Refused as refused:
            if not (lenient and _droppable(frame, parameter, span)):
                problems += [
                    _invalid(Issue(pointer_step(parameter.name) + i.pointer, i.code, i.message), span)
                    for i in refused.issues
                ]
                continue
            repairs = ["empty_optional_dropped"]
            del spans[parameter.name]
        else:
            arguments[parameter.name] = value
        for name in repairs:
            frame.repair(name, *span)
    return arguments, spans


def _value(
    parameter: Parameter, slot: Slot, text: str, dialect: Dialect, lenient: bool
) -> tuple[Any, list[str]]:
    if parameter.value is not None and slot.validator.is_valid(parameter.value[0]):
        return parameter.value
    return read(slot, text, dialect, lenient)


def _otherwise(frame: Frame, tool: Tool, text: str, dialect: Dialect, arguments: dict[str, Any]) -> bool:
    """Return whether `arguments`, which fit one by one, fit as a whole if parameters are read as another part
    of the schema describes them; then they are. Only readings that need no repair are tried, _TRIED at
    most."""
    choices: dict[str, list[Any]] = {}
    for parameter in frame.parameters:
        slots = tool.ways(parameter.name)
        if slots and parameter.name in arguments:
            start, end = parameter.value_span(text)
            choices[parameter.name] = _readings(slots, text[start:end], dialect, arguments[parameter.name])
    for values in islice(product(*choices.values()), 1, _TRIED):
        tried = {**arguments, **dict(zip(choices, values, strict=True))}
        if tool.validator.is_valid(tried):
            arguments.update(tried)
            return True
    return False


def _readings(slots: Iterable[Slot], text: str, dialect: Dialect, first: Any) -> list[Any]:
    """`first` and what else `text` says for one of `slots`."""
    readings = [first]
    for slot in slots:
        try:
            value, _ = read(slot, text, dialect)
        except Refused:
            continue
        if not any(type(value) is type(known) and value == known for known in readings):
            readings.append(value)
    return readings


def _droppable(frame: Frame, parameter: Parameter, span: Span) -> bool:
    """Return whether the value is empty and the parameter is optional."""
    return span[0] == span[1] and frame.tool is not None and parameter.name not in frame.tool.required


def _undeclared(frame: Frame, parameter: Parameter, span: Span) -> Problem:
    message = f"{parameter.name!r} is not a parameter of {frame.name!r}, and others are forbidden"
    return Problem("invalid", "additionalProperties", message, span, pointer_step(parameter.name))


def _invalid(issue: Issue, span: Span) -> Problem:
    message = f"{issue.pointer}: {issue.message}" if issue.pointer else issue.message
    return Problem("invalid", issue.code, message, span, issue.pointer)


def _anchor(frame: Frame, spans: dict[str, Span], issue: Issue) -> Span:
    """Return where the value that `issue` is about stands; the whole call if it is about the call."""
    for name, span in spans.items():
        if issue.pointer == pointer_step(name) or issue.pointer.startswith(pointer_step(name) + "/"):
            return span
    return frame.start, frame.end

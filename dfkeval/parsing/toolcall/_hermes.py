"""Read calls as Qwen3 and Hermes write them: <tool_call>{"name": …, "arguments": {…}}</tool_call>.

They are read only if `dialect="hermes"` is given, because the text alone cannot say which of two formats
the model was asked to use."""

from __future__ import annotations

from typing import Any

from dfkeval.parsing.json_call import call_arguments
from dfkeval.parsing.json_text import LiteralError, scan_before, skip_blanks
from dfkeval.parsing.tags import TOOL_CALL_CLOSE, TOOL_CALL_OPEN
from dfkeval.parsing.toolcall._scanner import Ahead
from dfkeval.parsing.toolcall._tools import Tool
from dfkeval.parsing.toolcall._types import Problem, ToolCall

Read = tuple[ToolCall | None, list[Problem], int]


def read_json_call(
    text: str, start: int, tools: dict[str, Tool], lenient: bool, finished: bool, closers: Ahead
) -> Read:
    """Return the call at `start`, or its problems, and the offset behind it.

    Args:
        text: the text that holds the call.
        start: where its `<tool_call>` stands.
        tools: the tools by name; without any, every name is accepted.
        lenient: whether repairs are allowed.
        finished: whether generation ended by itself.
        closers: finds `</tool_call>`."""
    begin = skip_blanks(text, start + len(TOOL_CALL_OPEN))
    try:
        value, end, repairs = scan_before(text, begin, TOOL_CALL_CLOSE, lenient)
    except LiteralError as bad:
        close, behind = closers.find(begin)
        if close == len(text):
            return _failed("truncated", "truncated", "the text ends inside a JSON call", start, len(text))
        return _failed("malformed", bad.code, str(bad), start, behind)
    stop = skip_blanks(text, end)
    if text.startswith(TOOL_CALL_CLOSE, stop):
        stop += len(TOOL_CALL_CLOSE)
    elif stop < len(text):
        close, behind = closers.find(stop)
        return _failed(
            "malformed",
            "extra_text",
            "text follows the JSON of a call",
            start,
            behind if close < len(text) else stop,
        )
    elif not (lenient and finished):
        return _failed("truncated", "truncated", "the text ends inside a JSON call", start, stop)
    else:
        repairs.append("missing_close_tool_call")
    return _typed(value, tools, lenient, repairs, start, stop)


def _failed(status: Any, code: str, message: str, start: int, end: int, pointer: str | None = None) -> Read:
    return None, [Problem(status, code, message, (start, end), pointer)], end


def _typed(
    value: dict[str, Any], tools: dict[str, Tool], lenient: bool, repairs: list[str], start: int, end: int
) -> Read:
    name = value.get("name")
    if not isinstance(name, str):
        message = 'a JSON call needs "name" (a string) and "arguments" (an object)'
        return _failed("malformed", "bad_json_call", message, start, end)
    if tools and name not in tools:
        return _failed("invalid", "unknown_function", f"no tool is named {name!r}", start, end)
    try:
        arguments, mended = call_arguments(value, lenient)
    except LiteralError as bad:
        return _failed("malformed", bad.code, str(bad), start, end)
    issues = tools[name].validator.issues(arguments) if tools else []
    if issues:
        return (
            None,
            [
                Problem("invalid", i.code, f"{i.pointer}: {i.message}", (start, end), i.pointer)
                for i in issues
            ],
            end,
        )
    return ToolCall(name, arguments, (start, end), (*repairs, *mended), {}), [], end

"""Read calls as Qwen3 and Hermes write them: <tool_call>{"name": …, "arguments": {…}}</tool_call>.

They are read only if `dialect="hermes"` is given, because the text alone cannot say which of two formats
the model was asked to use."""

from __future__ import annotations

from typing import Any

from dfkeval.parsing.json_text import LiteralError, load_json, scan_json, skip_blanks
from dfkeval.parsing.tags import TOOL_CALL_CLOSE, TOOL_CALL_OPEN
from dfkeval.parsing.toolcall._tools import Tool
from dfkeval.parsing.toolcall._types import Problem, ToolCall

Read = tuple[ToolCall | None, list[Problem], int]


def read_json_call(text: str, start: int, tools: dict[str, Tool], lenient: bool, finished: bool) -> Read:
    """Return the call at `start`, or its problems, and the offset behind it."""
    begin = skip_blanks(text, start + len(TOOL_CALL_OPEN))
    close = text.find(TOOL_CALL_CLOSE, begin)
    try:
        value, end = scan_json(text, begin)
    except LiteralError as bad:
        if close < 0:
            return _failed("truncated", "truncated", "the text ends inside a JSON call", start, len(text))
        return _failed("malformed", bad.code, str(bad), start, close + len(TOOL_CALL_CLOSE))
    stop = skip_blanks(text, end)
    repairs: list[str] = []
    if text.startswith(TOOL_CALL_CLOSE, stop):
        stop += len(TOOL_CALL_CLOSE)
    elif stop < len(text):
        behind = text.find(TOOL_CALL_CLOSE, stop)
        return _failed(
            "malformed",
            "extra_text",
            "text follows the JSON of a call",
            start,
            behind + len(TOOL_CALL_CLOSE) if behind >= 0 else stop,
        )
    elif not (lenient and finished):
        return _failed("truncated", "truncated", "the text ends inside a JSON call", start, stop)
    else:
        repairs.append("missing_close_tool_call")
    return _typed(value, tools, lenient, repairs, start, stop)


def _failed(status: Any, code: str, message: str, start: int, end: int, pointer: str | None = None) -> Read:
    return None, [Problem(status, code, message, (start, end), pointer)], end


def _typed(
    value: Any, tools: dict[str, Tool], lenient: bool, repairs: list[str], start: int, end: int
) -> Read:
    name = value.get("name")
    arguments = value.get("arguments", {})
    if lenient and isinstance(arguments, str):
        arguments, repairs = _unquoted(arguments), [*repairs, "double_encoded"]
    if not isinstance(name, str) or not isinstance(arguments, dict):
        return _failed(
            "malformed",
            "bad_json_call",
            'a JSON call needs "name" (a string) and "arguments" (an object)',
            start,
            end,
        )
    if tools and name not in tools:
        return _failed("invalid", "unknown_function", f"no tool is named {name!r}", start, end)
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
    return ToolCall(name, arguments, (start, end), tuple(repairs), {}), [], end


def _unquoted(text: str) -> Any:
    try:
        return load_json(text)
    except LiteralError:
        return None

"""Read a call exactly as templates write it, with no tag inside a value, by a few `str.find`.

Guarantees:
- The result is the one that the machine gives for the same call, or None; a property test checks it."""

from __future__ import annotations

from typing import Any, Final

from dfkeval.parsing.coercion import Dialect, Refused, Slot, read
from dfkeval.parsing.json_text import BLANKS, LiteralError, scan_json
from dfkeval.parsing.tags import (
    FUNCTION_CLOSE,
    FUNCTION_START,
    PARAMETER_CLOSE,
    TOOL_CALL_CLOSE,
    TOOL_CALL_OPEN,
)
from dfkeval.parsing.toolcall._tools import Tool
from dfkeval.parsing.toolcall._types import Span, ToolCall

_HEAD: Final = f"{TOOL_CALL_OPEN}\n{FUNCTION_START}"
_CLOSER: Final = f"\n{PARAMETER_CLOSE}\n"
_TAIL: Final = f"{FUNCTION_CLOSE}\n{TOOL_CALL_CLOSE}"
_N_HEAD, _N_CLOSER, _N_TAIL = len(_HEAD), len(_CLOSER), len(_TAIL)
#: The machine reads longer names.
_LONGEST: Final = 256
_TAGS: Final = ("</param", "<param", "<tool_call", "<function", "</func", "</tool_call")


class Canonical:
    """Reads usual calls of one text and remembers the last closer, so that searches never overlap."""

    __slots__ = ("_closer", "_dialect", "_text", "_tools")

    def __init__(self, text: str, tools: dict[str, Tool], dialect: Dialect) -> None:
        self._text = text
        self._tools = tools
        self._dialect: Dialect = dialect
        self._closer = -1

    def call(self, start: int) -> tuple[ToolCall, bool] | None:
        """Return the valid call at `start`, and whether its last value is free text; None if anything is
        unusual."""
        text = self._text
        if not text.startswith(_HEAD, start):
            return None
        at = text.find(">\n", start + _N_HEAD, start + _LONGEST)
        name = text[start + _N_HEAD : max(at, start)]
        tool = self._tools.get(name)
        if tool is None:
            return None
        at += 2
        arguments: dict[str, Any] = {}
        spans: dict[str, Span] = {}
        slot: Slot | None = None
        for tag, length, key, declared in tool.usual:
            if text.startswith(tag, at):
                slot = declared
                begin = at + length
                end = self._value(begin, slot, arguments, key)
                if end < 0:
                    return None
                spans[key] = (begin, end)
                at = end + _N_CLOSER
        if not (
            text.startswith(_TAIL, at) and tool.required <= arguments.keys() and _ends(text, at + _N_TAIL)
        ):
            return None
        if not tool.covered and not tool.validator.is_valid(arguments):
            return None
        return ToolCall(name, arguments, (start, at + _N_TAIL), (), spans), slot is not None and slot.textual

    def _value(self, begin: int, slot: Slot, arguments: dict[str, Any], key: str) -> int:
        """Read the value at `begin` into `arguments[key]`, and return its end; -1 if anything is unusual."""
        text = self._text
        end = self._closer
        if end < begin:
            end = text.find(_CLOSER, begin)
            self._closer = end = end if end >= 0 else len(text)
        if end == len(text):
            return -1
        raw = text[begin:end]
        if slot.containers_only:
            return end if _container(raw, slot, arguments, key) else -1
        if slot.holds_containers or ("<" in raw and any(tag in raw for tag in _TAGS)):
            return -1
        if slot.plain:
            arguments[key] = raw
            return end
        try:
            arguments[key] = read(slot, raw, self._dialect)[0]
        except Refused:
            return -1
        return end


def _container(raw: str, slot: Slot, arguments: dict[str, Any], key: str) -> bool:
    """Decode `raw`, a JSON container with nothing around it, into `arguments[key]`; False if it is not
    valid."""
    try:
        value, end = scan_json(raw, 0)
    except LiteralError:
        return False
    arguments[key] = value
    return end == len(raw) and slot.validator.is_valid(value)


def _ends(text: str, at: int) -> bool:
    """Return whether no closing tag follows the call directly."""
    if at == len(text) or text.startswith(f"\n{TOOL_CALL_OPEN}", at):
        return True
    near = text[at : at + 64].lstrip(BLANKS)
    if not near:
        return at + 64 >= len(text)
    return not near.startswith("</") and near != "<"

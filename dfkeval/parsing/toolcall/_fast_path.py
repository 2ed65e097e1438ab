"""Read a call as templates and grammar-bound engines write it, with no tag inside a value, by a few `str.find`.

Guarantees:
- The result is the one that the machine gives for the same call, or None; a property test checks it."""

from __future__ import annotations

import re
from typing import Any, Final

from dfkeval.parsing.coercion import Dialect, Refused, Slot, read
from dfkeval.parsing.json_text import LiteralError, scan_json, skip_blanks
from dfkeval.parsing.tags import FUNCTION_CLOSE, PARAMETER_CLOSE, TOOL_CALL_CLOSE, TOOL_CALL_OPEN
from dfkeval.parsing.toolcall._patterns import C_CLOSE, DRIFT, F_CLOSE, P_CLOSE, TOKEN
from dfkeval.parsing.toolcall._tools import Tool
from dfkeval.parsing.toolcall._types import Span, ToolCall

#: A call up to its first parameter; the name is the group. The machine reads longer names.
_HEAD: Final = re.compile(r"<tool_call>[ \t\r\n]*+<function=([^<>\n]{1,256}+)>[ \t\r\n]*+")
_TAIL: Final = f"{FUNCTION_CLOSE}\n{TOOL_CALL_CLOSE}"
_ANY_TAIL: Final = re.compile(r"</function>[ \t\r\n]*+</tool_call>")
#: An opening tag of a parameter; the name is the group. The machine reads longer names.
_OPENER: Final = re.compile(r"<parameter=([^<>\n]{1,256}+)>")
_CLOSERS: Final = (P_CLOSE, F_CLOSE, C_CLOSE, DRIFT)
#: What stands behind a value on lines of its own.
_FRAMED: Final = f"\n{PARAMETER_CLOSE}"
_N_FRAMED, _N_CLOSER, _N_TAIL = len(_FRAMED), len(PARAMETER_CLOSE), len(_TAIL)
#: An offset behind every text; -1 modulo this is behind it too.
_NEVER: Final = 1 << 60
#: Only in longer texts are there more calls than can be reported, so that it matters which of them cannot fit.
_LONG: Final = 20_000
_EDGES: Final = ("\r", "\n")
#: What every tag holds, in small letters.
_IN_TAGS: Final = ("param", "tool", "func")


class Canonical:
    """Reads usual calls of one text and remembers the last closer, so that searches never overlap.

    Attributes:
        unfit: the last call that was not read is a problem in every mode, however its tags are read; in short texts,
            values are not looked at for that."""

    __slots__ = ("_anything", "_closer", "_dialect", "_framed", "_text", "_tools", "unfit")

    def __init__(self, text: str, tools: dict[str, Tool], anything: Tool | None, dialect: Dialect) -> None:
        self._text = text
        self._tools = tools
        self._anything = anything
        self.unfit = False
        self._dialect: Dialect = dialect
        #: Where the last closer was found, behind a value on lines of its own and behind another.
        self._framed = -1
        self._closer = -1

    def call(self, start: int) -> tuple[ToolCall, bool] | None:
        """Return the valid call at `start`, and whether its last value is free text; None if anything is
        unusual."""
        text = self._text
        self.unfit = False
        head = _HEAD.match(text, start)
        if head is None:
            return None
        tool = self._tools.get(head[1], self._anything)
        if tool is None:
            self.unfit = not head[1].endswith(("/", " "))
            return None
        at = head.end()
        arguments: dict[str, Any] = {}
        spans: dict[str, Span] = {}
        slot: Slot | None = None
        if tool.untyped:
            at, slot = self._untyped(tool, at, arguments, spans)
            if at < 0 or head[1].endswith(("/", " ")):
                return None
        for tag, length, key, declared in tool.usual:
            if text.startswith(tag, at):
                slot = declared
                at = self._value(at + length, slot, arguments, spans, key)
                if at < 0:
                    return None
        stop = at + _N_TAIL if text.startswith(_TAIL, at) else _tail_end(text, at)
        if stop < 0 or not _ends(text, stop):
            return None
        if not tool.required <= arguments.keys() or not (tool.covered or tool.validator.is_valid(arguments)):
            self.unfit = not tool.has_choices
            return None
        return ToolCall(head[1], arguments, (start, stop), (), spans), slot is not None and slot.textual

    def _untyped(
        self, tool: Tool, at: int, arguments: dict[str, Any], spans: dict[str, Span]
    ) -> tuple[int, Slot | None]:
        """Read the parameters at `at` of a tool that declares none, as `_value` does.

        Returns:
            The offset of the next tag, or -1 if anything is unusual, and what the last value can be."""
        slot: Slot | None = None
        while at >= 0 and (opener := _OPENER.match(self._text, at)) is not None:
            key = opener[1]
            if key in spans or key.endswith(("/", " ")) or (slot := tool.slot(key)) is None:
                return -1, slot
            at = self._value(opener.end(), slot, arguments, spans, key)
        return at, slot

    def _value(
        self, begin: int, slot: Slot, arguments: dict[str, Any], spans: dict[str, Span], key: str
    ) -> int:
        """Read the value at `begin` into `arguments[key]`.

        Returns:
            The offset of the next tag, or -1 if anything is unusual."""
        text = self._text
        if text.startswith("\n", begin):
            begin += 1
            end = self._framed
            if end < begin:
                end = self._framed = text.find(_FRAMED, begin) % _NEVER
            at = end + _N_FRAMED
        else:
            end = self._closer
            if end < begin:
                end = self._closer = text.find(PARAMETER_CLOSE, begin) % _NEVER
            at = end + _N_CLOSER
            if text[begin : begin + 1] in _EDGES or text[end - 1 : end] in _EDGES:
                return -1  # a line break may be framing
        if end >= len(text):
            return -1
        read_as = _container if slot.containers_only else self._scalar
        if not read_as(text[begin:end], slot, arguments, key):
            return -1
        spans[key] = (begin, end)
        return at + 1 if text.startswith("\n<", at) else skip_blanks(text, at)

    def _scalar(self, raw: str, slot: Slot, arguments: dict[str, Any], key: str) -> bool:
        """Read `raw` into `arguments[key]`; False if anything is unusual."""
        if slot.holds_containers or ("<" in raw and _holds_tag(raw)):
            return False
        if slot.plain:
            arguments[key] = raw
            return True
        try:
            arguments[key] = read(slot, raw, self._dialect)[0]
        except Refused:
            self.unfit = bool(raw) and len(self._text) > _LONG and self._never(slot, raw)
            return False
        return True

    def _never(self, slot: Slot, raw: str) -> bool:
        """Return whether no repair makes a value of `raw`."""
        try:
            read(slot, raw, self._dialect, lenient=True)
        except Refused:
            return True
        return False


def _tail_end(text: str, at: int) -> int:
    """Return where the closing tags of a call at `at` end, with any blanks between them; -1 if there are
    none."""
    tail = _ANY_TAIL.match(text, at)
    return -1 if tail is None else tail.end()


def _holds_tag(raw: str) -> bool:
    """Return whether a tag stands in `raw`, misspelled ones included."""
    small = raw.lower()
    return any(word in small for word in _IN_TAGS) and TOKEN.search(raw) is not None


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
    """Return whether no closing tag, however it is spelled, follows the call directly."""
    if at == len(text) or text.startswith(f"\n{TOOL_CALL_OPEN}", at):
        return True
    following = TOKEN.match(text, skip_blanks(text, at))
    return following is None or following.lastindex not in _CLOSERS

"""Open and close calls and parameters; `_machine` decides when.

Guarantees:
- A JSON value is decoded where it stands and ends where its JSON ends; decoding takes time in the value
  only."""

from __future__ import annotations

from bisect import bisect_left
from functools import cached_property
from typing import Any, Final

from dfkeval.parsing.json_text import LiteralError, scan_mended, skip_blanks
from dfkeval.parsing.tags import PARAMETER_CLOSE
from dfkeval.parsing.toolcall._allowance import CALL, DEEP, JSON, VALUE, Allowance
from dfkeval.parsing.toolcall._endings import Ending, function_end
from dfkeval.parsing.toolcall._frame import Frame, Parameter
from dfkeval.parsing.toolcall._patterns import C_OPEN, P_CLOSE
from dfkeval.parsing.toolcall._tags import Tags
from dfkeval.parsing.toolcall._tools import Tool

#: Tags that may be read again in any text; texts of ordinary length do not come near.
_FREE: Final = 20_000


class Stack:
    """The open frames over `tags`, from the outermost inwards, and the finished ones in order (`out`)."""

    def __init__(
        self, tags: Tags, tools: dict[str, Tool], anything: Tool | None, finished: bool, allowance: Allowance
    ) -> None:
        self.tags = tags
        self.text = tags.text
        self.tools = tools
        self.anything = anything
        self.finished = finished
        self.allowance = allowance
        #: How many tags may still be read again because a closer was looked for in vain.
        self.spare = _FREE + 4 * len(tags)
        self.stack: list[Frame] = []
        self.out: list[Frame] = []

    @cached_property
    def _closer_starts(self) -> list[int]:
        """Return where each `</parameter>` starts; only JSON values need it."""
        tags = self.tags
        closers = (i for i in range(len(tags)) if tags.kinds[i] == P_CLOSE and i not in tags.drifted)
        return [tags.starts[i] for i in closers]

    def function_end(self, i: int, wrapped: bool) -> Ending | None:
        """Return the end of the call if tag `i`, a closer of the function, ends it."""
        return function_end(self.tags, i, wrapped, self.finished)

    def push(self, i: int, wrapped: bool) -> int:
        """Open a frame at tag `i` (`<tool_call>` or `<function=NAME>`) and return the next index."""
        tags, first = self.tags, i
        if tags.kinds[i] == C_OPEN:
            i += 1
        written = tags.name(i)
        name = written.rstrip("/ ") if tags.empty(i) and written not in self.tools else written
        frame = Frame(name, tags.starts[first], tags.ends[i], wrapped, self.tools.get(name, self.anything))
        if name != written:
            frame.repair("self_closed_opener", tags.starts[i], tags.ends[i])
        if len(self.stack) > DEEP:
            self.allowance.left -= CALL
        self.stack.append(frame)
        return i + 1

    def close(self, frame: Frame, ending: Ending) -> int:
        """Complete the frame on top of the stack and return where to continue. Inside the value of another
        frame it is text of that value so far."""
        if ending.repairs:
            self.allowance.left -= CALL
        for name in ending.repairs:
            frame.repair(name, frame.at, ending.end)
        frame.end, frame.poison, frame.shared = ending.end, ending.poison, ending.shared
        self.stack.pop()
        if not self.stack:
            self.out.append(frame)
            return ending.resume
        outer = self.stack[-1]
        if outer.done:
            outer.done.append(frame)
        else:
            outer.done = [frame]
        assert outer.open is not None  # calls are pushed from inside values only
        outer.open.nested = outer.open.closer_inside = True
        return ending.resume

    def abandon(self, frame: Frame, i: int) -> None:
        """Give up the frame on top of the stack, since a new call begins at tag `i` before its end."""
        self.allowance.left -= CALL
        message = f"the call of {frame.name!r} is not closed before the next one begins"
        frame.fault("unclosed_call", message, frame.start, self.tags.starts[i])
        self.close(frame, Ending(self.tags.starts[i], i, poison=True))

    def open(self, frame: Frame, i: int) -> int:
        """Open the parameter at tag `i` and return where to continue: behind its value if that is JSON."""
        tags, name = self.tags, self.parameter_name(frame, i)
        start, begin = tags.starts[i], tags.ends[i]
        slot = None if frame.tool is None else frame.tool.slot(name)
        framed = self.text.startswith("\n", begin)
        if not framed and self.text.startswith("\r\n", begin):
            framed = True
            if slot is None or (slot.textual and not slot.enumerated):  # else blanks around a value are free
                frame.repair("crlf_framing", begin, begin + 2)
        frame.open = parameter = Parameter(name, start, begin, framed, slot)
        if name in frame.seen:
            self.allowance.left -= VALUE
            frame.again(name, start, begin)
        else:
            frame.seen.add(name)
        if name != tags.name(i):
            frame.repair("self_closed_opener", start, begin)
            if tags.empty(i):
                self.end_value(frame, parameter, begin, begin)
                return i + 1
        stop = self._decode(parameter)
        if stop is None:
            return i + 1
        self.end_value(frame, parameter, stop, stop + len(PARAMETER_CLOSE))
        return tags.at(stop) + 1

    def parameter_name(self, frame: Frame, i: int) -> str:
        """Return the name in the opening tag `i`, without the slash of a tag that is closed in itself."""
        name = self.tags.name(i)
        if not name.endswith("/") or frame.tool is None or name in frame.tool.slots:
            return name
        short = name.rstrip("/ ")
        return short if short in frame.tool.slots or self.tags.empty(i) else name

    def _decode(self, parameter: Parameter) -> int | None:
        """Decode the JSON container at the start of the value and return the offset of its closer."""
        slot = parameter.slot
        if slot is None or not slot.holds_containers or not self._closer_starts:
            return None
        start = skip_blanks(self.text, parameter.begin)
        if not self.text.startswith(("[", "{"), start):
            return None
        scanned = self._scan(start, parameter.textual)
        if scanned is None:
            self.allowance.left -= JSON
            return None
        value, end, repairs = scanned
        stop = skip_blanks(self.text, end)
        if not self.text.startswith(PARAMETER_CLOSE, stop):
            return None
        parameter.value = (value, repairs)
        return stop

    def _scan(self, start: int, textual: bool) -> tuple[Any, int, list[str]] | None:
        """Return the JSON value at `start`, its end, and the repairs that it needs. Only the text up to a
        closer is decoded, and up to a farther one if that stood in a string, so that an error does not cost
        time in the length of the text. `textual`: no repair is needed, since the text can be a string."""
        tried = reach = start
        while True:
            close = self._closer_at(reach)
            if close <= tried:
                return None
            try:
                value, end, repairs = scan_mended(self.text[start:close], 0, not textual)
            except LiteralError as bad:
                if bad.code != "open_string":
                    return None
                tried, reach = close, close + (close - start)
            else:
                return value, start + end, repairs

    def _closer_at(self, offset: int) -> int:
        """Return where the first `</parameter>` at or behind `offset` starts, else the last one; there is at
        least one."""
        starts = self._closer_starts
        at = bisect_left(starts, offset)
        return starts[min(at, len(starts) - 1)]

    def end_value(self, frame: Frame, parameter: Parameter, end: int, at: int) -> None:
        """End the value of `parameter` at `end`; its closing tag ends at `at`."""
        parameter.end = end
        inside = parameter.drift
        if inside is not None and inside[0] < end and not self.text.startswith(PARAMETER_CLOSE, end):
            message = (
                f"a misspelled closing tag stands inside the value of {parameter.name!r}, which has no closer"
            )
            frame.fault("closer_in_text", message, *inside, "ambiguous")
        if parameter.nested:
            frame.doubt("call_in_text", parameter.begin, end)
        frame.parameters.append(parameter)
        frame.open = None
        frame.at = at
        if frame.done:
            frame.done = ()

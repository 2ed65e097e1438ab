"""Look ahead in the text outside of calls, and decide what a `<tool_call>` opens.

How it works: every look-ahead that can find nothing remembers its answer, so that none runs twice.

Guarantees:
- A `<tool_call>` that opens nothing is prose; one that opens something unreadable is reported."""

from __future__ import annotations

import re
from typing import Final

from dfkeval.parsing.tags import THINK_CLOSE, TOOL_CALL_CLOSE, TOOL_CALL_OPEN
from dfkeval.parsing.toolcall._patterns import CALL_START, THINK_END

#: What follows a `<tool_call>` and blanks, in the order of _OPENS. A name with braces or a dollar sign is the
#: placeholder of a template: the text shows what calls look like and makes none.
_BEHIND: Final = re.compile(
    r"[ \t\r\n]*+(?:(<function=[^<>\n{}$]++>)|(<function(?:=[^<>\n]*+)?+\Z)|(<function)|(\{)|(</tool_call>)"
    r"|(<f?u?n?c?t?i?o?\Z|\Z)|)"
)
_OPENS: Final = (None, "call", "cut", "bad_function", "json", "empty", "cut")


class Ahead:
    """Finds one pattern and remembers the last answer; the offsets only grow."""

    def __init__(self, pattern: re.Pattern[str], text: str) -> None:
        self._pattern = pattern
        self._text = text
        self._start = -1
        self._answer = (-1, -1)

    def find(self, offset: int) -> tuple[int, int]:
        """Return the span of the first match at or behind `offset`; without one, both ends are the length of
        the text."""
        if self._start < offset:
            match = self._pattern.search(self._text, offset)
            size = len(self._text)
            self._answer = match.span() if match else (size, size)
            self._start = match.start() if match else size + 1
        return self._answer


class Lookahead:
    """The look-aheads of reading outside of calls."""

    def __init__(self, text: str) -> None:
        self.think_close = Ahead(re.compile(re.escape(THINK_CLOSE)), text)
        self.think_end = Ahead(THINK_END, text)
        self.call_close = Ahead(re.compile(re.escape(TOOL_CALL_CLOSE)), text)
        self.call_start = Ahead(CALL_START, text)


def opening(text: str, start: int) -> str:
    """Return what the `<tool_call>` at `start` opens: "call", "json", "bad_function", "empty", "cut",
    "nothing" or "prose"."""
    behind = start + len(TOOL_CALL_OPEN)
    following = _BEHIND.match(text, behind)
    assert following is not None  # the pattern matches the empty string
    opens = _OPENS[following.lastindex or 0]
    if opens is not None:
        return opens
    if start and text[start - 1] != "\n":
        return "prose"
    return "nothing" if _alone(text, behind, following.end()) else "prose"


def _alone(text: str, behind: int, at: int) -> bool:
    """Return whether the tag, which begins a line, stands alone on it, or its line is
    `<tool_call>…</tool_call>`; prose is not written like that."""
    if "\n" in text[behind:at]:
        return True
    line_end = text.find("\n", behind)
    return text.find(TOOL_CALL_CLOSE, behind, line_end if line_end >= 0 else len(text)) >= 0

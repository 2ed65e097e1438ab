"""Markdown code in the text outside of calls: a call inside a code fence or a backtick span is an example,
not a call.

Strategy: all fence lines and backtick runs are found once, on first need. A fence that is never closed, or
closes inside a call, is no fence. A backtick span ends on its line, or encloses exactly one call that follows
it directly.

Promise: linear; the search for a closing fence or run moves forward only."""

from __future__ import annotations

import re
from bisect import bisect_right
from functools import cached_property
from typing import Final

_FENCE_END: Final = re.compile(r"^ {0,3}(`{3,}+|~{3,}+)[ \t]*+$", re.MULTILINE)
_TICKS: Final = re.compile(r"`++")
#: Longer fences and runs count as this long, which bounds the number of searches that can run side by side.
_LONGEST: Final = 16


class Fences:
    """Questions about Markdown code in `text`."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def _fence_ends(self) -> dict[tuple[str, int], list[int]]:
        """(character, length) -> ends of the lines that close a fence opened with that length."""
        ends: dict[tuple[str, int], list[int]] = {}
        for match in _FENCE_END.finditer(self.text):
            run = match.group(1)
            for length in range(3, min(len(run), _LONGEST) + 1):
                ends.setdefault((run[0], length), []).append(match.end())
        return ends

    @cached_property
    def _runs(self) -> dict[int, list[int]]:
        """Length -> ends of the backtick runs of that length."""
        ends: dict[int, list[int]] = {}
        for match in _TICKS.finditer(self.text):
            ends.setdefault(match.end() - match.start(), []).append(match.end())
        return ends

    def opens_fence(self, start: int, end: int) -> bool:
        """Whether the run of backticks or tildes from `start` to `end` opens a fence: at most three blanks
        before it on its line, and no backtick in the rest of a backtick fence's line."""
        if end - start < 3:
            return False
        line = self.text.rfind("\n", max(0, start - 4), start) + 1
        if line == 0 and start > 3:
            return False
        if self.text[line:start].strip(" "):
            return False
        stop = self.text.find("\n", end)
        return self.text[start] == "~" or stop < 0 or self.text.find("`", end, stop) < 0

    def fence_end(self, start: int, end: int) -> int | None:
        """The end of the line that closes the fence opened by the run from `start` to `end`; None if nothing
        does."""
        ends = self._fence_ends.get((self.text[start], min(end - start, _LONGEST)), [])
        line_end = self.text.find("\n", end) if ends else -1
        at = bisect_right(ends, line_end)
        return ends[at] if line_end >= 0 and at < len(ends) else None

    def span_end(self, start: int, end: int) -> int | None:
        """The end of the backtick span opened by the run from `start` to `end` on the same line; None if it
        stays open."""
        close = self.run_after(end - start, end)
        return close if close is not None and self.text.find("\n", end, close) < 0 else None

    def run_after(self, length: int, offset: int) -> int | None:
        """The end of the next run of exactly `length` backticks behind `offset`."""
        ends = self._runs.get(length, [])
        at = bisect_right(ends, offset)
        return ends[at] if at < len(ends) else None

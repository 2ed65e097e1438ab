"""Markdown code in the text outside of calls: a call inside a code fence or a backtick span is an example,
not a call.

Strategy: all fence lines and backtick runs are found once, on first need. A fence that is never closed, or
closes inside a call, is no fence. A backtick span ends on its line, or encloses exactly one call that follows
it directly.

Promise: linear; the search for a closing fence or run moves forward only."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict
from functools import cached_property
from typing import Final

#: At most three blanks before the run on its line, and no backtick in the rest of a backtick fence's line.
_OPENER: Final = re.compile(r"^ {0,3}(?=(?:`{3,}+(?:[^`\n]*+\n|[^\n]*+\Z)|~{3}))([`~])", re.MULTILINE)
_FENCE_END: Final = re.compile(r"^ {0,3}(`{3,}+|~{3,}+)[ \t]*+$", re.MULTILINE)
_TICKS: Final = re.compile(r"`++")
#: Longer fences and runs count as this long, which bounds the number of searches that can run side by side.
_LONGEST: Final = 16


class Fences:
    """Questions about Markdown code in `text`."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._ends: dict[tuple[str, int], list[int]] = {}

    @cached_property
    def openers(self) -> frozenset[int]:
        """Where the runs of backticks or tildes start that open a fence."""
        return frozenset([match.start(1) for match in _OPENER.finditer(self.text)])

    @cached_property
    def _closing(self) -> list[tuple[str, int]]:
        """(run, end) of each line that can close a fence."""
        return [(match[1], match.end()) for match in _FENCE_END.finditer(self.text)]

    def _fence_ends(self, character: str, length: int) -> list[int]:
        """The ends of the lines that close a fence opened with `length` of `character`."""
        key = (character, length)
        if key not in self._ends:
            run = character * length
            self._ends[key] = [end for closing, end in self._closing if closing.startswith(run)]
        return self._ends[key]

    @cached_property
    def _runs(self) -> dict[int, list[int]]:
        """Length -> ends of the backtick runs of that length."""
        ends: defaultdict[int, list[int]] = defaultdict(list)
        for match in _TICKS.finditer(self.text):
            start, end = match.span()
            ends[end - start].append(end)
        return ends

    def fence_end(self, start: int, end: int) -> int | None:
        """The end of the line that closes the fence opened by the run from `start` to `end`; None if nothing
        does."""
        ends = self._fence_ends(self.text[start], end - start if end - start < _LONGEST else _LONGEST)
        if not ends or ends[-1] <= end:
            return None
        line_end = self.text.find("\n", end)
        at = bisect_right(ends, line_end)
        return ends[at] if line_end >= 0 and at < len(ends) else None

    def span_end(self, start: int, end: int) -> int | None:
        """The end of the backtick span opened by the run from `start` to `end` on the same line; None if it
        stays open."""
        ends = self._runs[end - start]
        at = bisect_right(ends, end)
        if at == len(ends) or self.text.find("\n", end, ends[at]) >= 0:
            return None
        return ends[at]

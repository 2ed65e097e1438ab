"""Find Markdown code outside of calls: a call in a code fence or a backtick span is an example, not a call.

How it works: the lines that can close a fence, and the backtick runs, are found once, when they are first
needed. A fence that is never closed, or closes inside a call, is not a fence. A backtick span ends on its
line, or encloses exactly one call that follows it directly.

Guarantees:
- Linear time: the search for a closing fence or run moves forward only."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict
from functools import cached_property
from typing import Final

from dfkeval.parsing.toolcall._types import Span

#: At most three blanks before the run on its line.
_LINE_START: Final = re.compile(r"(?:\A|\n) {0,3}\Z")
#: Lines that can close a fence; the first line of a text cannot.
_CLOSERS: Final = {
    "`": re.compile(r"\n {0,3}(`{3,}+)[ \t]*+(?![^\n])"),
    "~": re.compile(r"\n {0,3}(~{3,}+)[ \t]*+(?![^\n])"),
}
#: Lines that open a fence, one behind another with no other code and no tag between; the last is the group.
_OPENERS: Final = re.compile(r"(?:[^<`~]*+(?<![^\n])(```)(?!`)[^`<\n]*+(?=\n))*+")
_TICKS: Final = re.compile(r"`++")
#: Longer fences count as this long, which bounds the number of searches that can run side by side.
_LONGEST: Final = 16


class Fences:
    """The Markdown code of a text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._closers: dict[str, list[tuple[int, int]]] = {}
        self._ends: dict[tuple[str, int], list[int]] = {}

    def opens(self, start: int, end: int) -> bool:
        """Return whether the run from `start` to `end`, three characters or more, opens a fence: it
        begins its line, and the rest of the line of a backtick fence holds no backtick."""
        text = self.text
        if start and text[start - 1] != "\n" and not _LINE_START.search(text, max(0, start - 4), start):
            return False
        if text[start] == "~":
            return True
        line_end = text.find("\n", end)
        return line_end < 0 or text.find("`", end, line_end) < 0

    def fence_end(self, start: int, end: int) -> int | None:
        """Return the end of the line that closes the fence opened by the run from `start` to `end`; None if
        no line does."""
        ends = self._fence_ends(self.text[start], min(end - start, _LONGEST))
        if not ends or ends[-1] <= end:
            return None
        line_end = self.text.find("\n", end)
        at = bisect_right(ends, line_end)
        return ends[at] if line_end >= 0 and at < len(ends) else None

    def last_open(self, start: int, end: int) -> tuple[Span, int]:
        """Return the run that matters, and where reading continues, if the fence of the run from `start` to
        `end` is not closed. If no later fence can be closed either, that is the last before the next tag."""
        ends = self._fence_ends("`", 3)
        if not ends or ends[-1] <= end:
            openers = _OPENERS.match(self.text, end)
            if openers is not None and openers.lastindex:
                return openers.span(1), openers.end()
        return (start, end), end

    def _fence_ends(self, character: str, length: int) -> list[int]:
        """Return the ends of the lines that close a fence opened with `length` of `character`."""
        key = (character, length)
        ends = self._ends.get(key)
        if ends is None:
            if character not in self._closers:
                found = _CLOSERS[character].finditer(self.text)
                self._closers[character] = [(match.end(), len(match[1])) for match in found]
            ends = self._ends[key] = [end for end, size in self._closers[character] if size >= length]
        return ends

    @cached_property
    def _runs(self) -> dict[int, list[int]]:
        """Return the length of backtick runs -> ends of the runs of that length."""
        ends: defaultdict[int, list[int]] = defaultdict(list)
        for match in _TICKS.finditer(self.text):
            start, end = match.span()
            ends[end - start].append(end)
        return ends

    def span_end(self, start: int, end: int) -> int | None:
        """Return the end of the backtick span that the run from `start` to `end` opens, if that is on the
        same line; None if the span stays open."""
        ends = self._runs[end - start]
        at = bisect_right(ends, end)
        if at == len(ends) or self.text.find("\n", end, ends[at]) >= 0:
            return None
        return ends[at]

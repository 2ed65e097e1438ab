"""Text in pieces. Strategy: pieces are kept and the verdict is made from the whole text, since any later text
can change the reading of an earlier call (a closing tag far behind shows that its end was text). What is
known meanwhile is reported as events: previews, made when a call's closing tag arrives, read from the end of
the last finished call on.

Promises: `close()` equals `parse()` of the joined pieces for every way of cutting. Feeding costs time linear
in the text: the work of previews is limited to the text's length and some free work. That is enough for about
eighty calls; behind them, and for a call of a quarter of a million characters, `close` alone tells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from dfkeval.toolcall._types import CallFinished, Event, ParseResult, Problem, ProblemFound, ToolCall

_CLOSER: Final = "</tool_call>"
#: Characters of work that are free: short answers are previewed at every closing tag.
_FREE: Final = 16_384
#: What any preview costs at least.
_EACH: Final = 200
#: Characters behind the last finished call above which there is no preview.
_LONGEST: Final = 250_000


class Stream:
    """`feed` pieces, then `close`. An event is a preview of what the text holds so far; the result of `close`
    is the verdict."""

    def __init__(self, parse: Callable[[str, bool], ParseResult]) -> None:
        """parse: (text, whether it begins where the answer begins) -> result."""
        self._parse = parse
        #: The text up to `_from`, the end of the last finished call, and the pieces behind it.
        self._done: list[str] = []
        self._pieces: list[str] = []
        self._size = 0
        self._work = -_FREE
        self._from = 0
        self._closed = False
        #: The last preview if it covered the whole text: (length, result).
        self._whole: tuple[int, ParseResult] | None = None

    def feed(self, piece: str) -> list[Event]:
        """Take the next piece. Returns the calls that it completes and the problems before them. Raises
        ValueError after `close`."""
        if self._closed:
            raise ValueError("the stream is closed; make a new one")
        self._pieces.append(piece)
        self._size += len(piece)
        if ">" in piece and ("l>" in piece or piece[0] == ">") and self._closes(piece):
            return self._preview()
        return []

    def _closes(self, piece: str) -> bool:
        """Whether `</tool_call>` ended within the last piece, which holds "l>" or begins with ">"."""
        if "l>" not in piece and not (len(self._pieces) > 1 and self._pieces[-2][-1:] in ("l", "")):
            return False
        return _CLOSER in "".join(self._pieces[-12:])[-len(piece) - 11 :]

    def close(self) -> ParseResult:
        """The verdict on the whole text. Raises ValueError when called twice."""
        if self._closed:
            raise ValueError("the stream is closed; make a new one")
        self._closed = True
        text = "".join(self._done + self._pieces)
        if self._whole is not None and self._whole[0] == len(text):
            return self._whole[1]
        return self._parse(text, True)

    def _preview(self) -> list[Event]:
        unread = self._size - self._from
        if unread > _LONGEST or self._work + _EACH + unread > self._size:
            return []
        self._work += _EACH + unread
        start = self._from
        text = "".join(self._pieces)
        self._pieces = [text]
        result = self._parse(text, start == 0)
        if start == 0:
            self._whole = (len(text), result)
        if not result.calls:
            return []
        end = result.calls[-1].span[1]
        self._from = start + end
        self._done.append(text[:end])
        self._pieces = [text[end:]]
        problems = [ProblemFound(_moved_problem(p, start)) for p in result.problems if p.span[1] <= end]
        return [*problems, *(CallFinished(_moved_call(call, start)) for call in result.calls)]


def _moved_call(call: ToolCall, by: int) -> ToolCall:
    spans = {key: (a + by, b + by) for key, (a, b) in call.spans.items()}
    return call._replace(span=(call.span[0] + by, call.span[1] + by), spans=spans)


def _moved_problem(problem: Problem, by: int) -> Problem:
    return problem._replace(span=(problem.span[0] + by, problem.span[1] + by))

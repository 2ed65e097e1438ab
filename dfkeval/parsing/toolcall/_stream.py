"""Parse text that arrives in pieces.

How it works: pieces are kept, and the result is made from the whole text, since any later text can change
the reading of an earlier call (a closing tag far behind shows that its end was text). What is known
meanwhile is reported as events. They are previews, made when the closing tag of a call arrives, and read
from the end of the last finished call on.

Guarantees:
- `close()` equals `parse()` of the joined pieces, however they were cut.
- Feeding takes time linear in the text: previews are counted, and so are the characters that they read in
  vain. After too many of either, or within a very long call, no more events are given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from dfkeval.parsing.tags import TOOL_CALL_CLOSE
from dfkeval.parsing.toolcall._types import CallFinished, Event, ParseResult, Problem, ProblemFound, ToolCall

#: Previews that are free, and characters of finished text that pay for one more.
_PREVIEWS: Final = 80
_PRICE: Final = 1000
#: Characters that may be read in vain, beyond an eighth of the finished text.
_IN_VAIN: Final = 16_384
#: Characters behind the last finished call above which there is no preview.
_LONGEST: Final = 65_536


class Stream:
    """Takes a text in pieces: `feed` them, then `close`.

    An event is a preview of what the text holds so far; the result of `close` counts."""

    def __init__(self, parse: Callable[[str, bool], ParseResult]) -> None:
        """`parse`: (text, whether it begins where the answer begins) -> result."""
        self._parse = parse
        #: The text up to `_from`, the end of the last finished call, and the pieces behind it.
        self._done: list[str] = []
        self._pieces: list[str] = []
        self._from = 0
        #: How many previews were made, and how many characters they read without finishing a call.
        self._previews = 0
        self._in_vain = 0
        #: Whether previews are made. What ends them, ends them for good.
        self._watching = True
        self._closed = False
        #: The last preview if it covered the whole text: (length, result).
        self._whole: tuple[int, ParseResult] | None = None

    def feed(self, piece: str) -> list[Event]:
        """Take the next piece.

        Returns:
            The calls that it completes and the problems before them.

        Raises:
            ValueError: if the stream is closed."""
        if self._closed:
            raise ValueError("the stream is closed; make a new one")
        self._pieces.append(piece)
        if self._watching and ">" in piece and ("l>" in piece or piece[0] == ">") and self._closes(piece):
            return self._preview()
        return []

    def _closes(self, piece: str) -> bool:
        """Return whether `</tool_call>` ended within the last piece, which holds "l>" or begins with ">"."""
        if "l>" not in piece and self._pieces[-2:][0][-1:] not in ("l", ""):
            return False
        return TOOL_CALL_CLOSE in "".join(self._pieces[-12:])[-len(piece) - 11 :]

    def close(self) -> ParseResult:
        """Return what the whole text holds.

        Raises:
            ValueError: if the stream is closed already."""
        if self._closed:
            raise ValueError("the stream is closed; make a new one")
        self._closed = True
        text = "".join(self._done + self._pieces)
        if self._whole is not None and self._whole[0] == len(text):
            return self._whole[1]
        return self._parse(text, True)

    def _preview(self) -> list[Event]:
        text = "".join(self._pieces)
        self._pieces = [text]
        self._watching = len(text) <= _LONGEST and self._affordable()
        if not self._watching:
            return []
        start = self._from
        result = self._parse(text, start == 0)
        end = result.calls[-1].span[1] if result.calls else 0
        self._previews += 1
        self._in_vain += len(text) - end
        if start == 0:
            self._whole = (len(text), result)
        if end == 0:
            return []
        self._from = start + end
        self._done.append(text[:end])
        self._pieces = [text[end:]]
        problems = [ProblemFound(_moved_problem(p, start)) for p in result.problems if p.span[1] <= end]
        return [*problems, *(CallFinished(_moved_call(call, start)) for call in result.calls)]

    def _affordable(self) -> bool:
        """Return whether one more preview leaves feeding linear."""
        finished = self._from
        return self._previews < _PREVIEWS + finished // _PRICE and self._in_vain <= _IN_VAIN + finished // 8


def _moved_call(call: ToolCall, by: int) -> ToolCall:
    spans = {key: (a + by, b + by) for key, (a, b) in call.spans.items()}
    return call._replace(span=(call.span[0] + by, call.span[1] + by), spans=spans)


def _moved_problem(problem: Problem, by: int) -> Problem:
    return problem._replace(span=(problem.span[0] + by, problem.span[1] + by))

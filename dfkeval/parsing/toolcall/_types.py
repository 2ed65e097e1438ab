"""What the parser returns: plain data, compared by value.

Spans are (start, end) offsets in code points into the text that was parsed."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

Status = Literal["truncated", "malformed", "invalid", "ambiguous"]
Kind = Literal["content", "reasoning", "call", "broken_call", "markup"]
Span = tuple[int, int]


class ToolCallError(ValueError):
    """`parse_tool_call` found no single good call. `problems` lists what the parser found wrong."""

    def __init__(self, message: str, problems: list[Problem]) -> None:
        super().__init__(message)
        self.problems = problems


class ToolCall(NamedTuple):
    """One call. `arguments`: typed and validated. `repairs`: names of what lenient reading mended.
    `spans`: where each parameter's value stands, without the framing newlines."""

    name: str
    arguments: dict[str, Any]
    span: Span
    repairs: tuple[str, ...]
    spans: dict[str, Span]


class Problem(NamedTuple):
    """One thing that is wrong. `code`: stable name; `json_pointer`: into the arguments, for invalid
    values."""

    status: Status
    code: str
    message: str
    span: Span
    json_pointer: str | None = None


class Segment(NamedTuple):
    """A piece of the input. kind: "content", "reasoning", "call", "broken_call" (a call with a problem) or
    "markup" (think tags, blanks between calls, special tokens)."""

    kind: Kind
    source: str


class ParseResult:
    """What one text holds.

    calls: the good calls in order. problems: in order of their spans. ok: no problems.
    content: the text outside of calls; reasoning: the text of think blocks, one newline less per side.
    segments: the whole input in pieces; their sources join to the input exactly."""

    __slots__ = ("_known", "_text", "calls", "problems")

    def __init__(
        self,
        text: str,
        calls: list[ToolCall],
        problems: list[Problem],
        layout: list[tuple[Kind, int, int]] | None,
    ) -> None:
        """layout: (kind, start, end) of each piece; None where the whole text is one call."""
        self._text = text
        self._known = layout
        self.calls = calls
        self.problems = problems

    @property
    def _layout(self) -> list[tuple[Kind, int, int]]:
        return [("call", 0, len(self._text))] if self._known is None else self._known

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong; a text without calls is ok."""
        return not self.problems

    @property
    def content(self) -> str:
        """The text outside of calls and think blocks, joined."""
        return "".join(self._text[start:end] for kind, start, end in self._layout if kind == "content")

    @property
    def reasoning(self) -> str:
        """The text of the think blocks, without the one newline on either side that templates write; blocks
        are joined by a newline."""
        blocks = [self._text[start:end] for kind, start, end in self._layout if kind == "reasoning"]
        return "\n".join(block.removeprefix("\n").removesuffix("\n") for block in blocks)

    @property
    def segments(self) -> list[Segment]:
        """The input in pieces, in order."""
        return [Segment(kind, self._text[start:end]) for kind, start, end in self._layout]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ParseResult):
            return NotImplemented
        return all(
            getattr(self, name) == getattr(other, name) for name in ("_text", "_layout", "calls", "problems")
        )

    __hash__ = None  # type: ignore[assignment]  # results hold dicts

    def __repr__(self) -> str:
        return f"ParseResult(calls={self.calls!r}, problems={self.problems!r}, content={self.content!r})"


class CallFinished(NamedTuple):
    """A call is complete and valid by everything that has arrived so far."""

    call: ToolCall


class ProblemFound(NamedTuple):
    """Something is wrong by everything that has arrived so far."""

    problem: Problem


Event = CallFinished | ProblemFound

"""Define the results of the parser: plain data, compared by value.

A span is a pair (start, end) of offsets in code points into the text that was parsed."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

Status = Literal["truncated", "malformed", "invalid", "ambiguous"]
Kind = Literal["content", "reasoning", "call", "broken_call", "markup"]
Span = tuple[int, int]


class ToolCallError(ValueError):
    """A text does not hold exactly one good call.

    Attributes:
        problems: what the parser found wrong."""

    def __init__(self, message: str, problems: list[Problem]) -> None:
        super().__init__(message)
        self.problems = problems


class ToolCall(NamedTuple):
    """One call.

    Attributes:
        name: the name of the function.
        arguments: parameter -> value, typed and validated.
        span: where the call stands.
        repairs: names of what lenient reading mended; empty in strict mode.
        spans: parameter -> where its value stands, without the framing newlines."""

    name: str
    arguments: dict[str, Any]
    span: Span
    repairs: tuple[str, ...]
    spans: dict[str, Span]


class Problem(NamedTuple):
    """One thing that is wrong.

    Attributes:
        status: "truncated", "malformed", "invalid" or "ambiguous".
        code: the stable name of the problem.
        message: the problem in words.
        span: where it stands.
        json_pointer: where in the arguments it is, for invalid values; else None."""

    status: Status
    code: str
    message: str
    span: Span
    json_pointer: str | None = None


class Segment(NamedTuple):
    """A piece of the input.

    Attributes:
        kind: "content", "reasoning", "call", "broken_call" (a call with a problem) or "markup" (think tags,
            blanks between calls, special tokens).
        source: the text of the piece."""

    kind: Kind
    source: str


class ParseResult:
    """What one text holds.

    Attributes:
        calls: the good calls in order.
        problems: what is wrong, in order of the spans.
        ok: whether nothing is wrong.
        content: the text outside of calls and think blocks.
        reasoning: the text of the think blocks.
        segments: the whole input in pieces; their sources join to the input exactly."""

    __slots__ = ("_known", "_text", "calls", "problems")

    def __init__(
        self,
        text: str,
        calls: list[ToolCall],
        problems: list[Problem],
        layout: list[tuple[Kind, int, int]] | None,
    ) -> None:
        """`layout`: (kind, start, end) of each piece; None if the whole text is one call."""
        self._text = text
        self._known = layout
        self.calls = calls
        self.problems = problems

    @property
    def _layout(self) -> list[tuple[Kind, int, int]]:
        return [("call", 0, len(self._text))] if self._known is None else self._known

    @property
    def ok(self) -> bool:
        """Return whether nothing is wrong; a text without calls is ok too."""
        return not self.problems

    @property
    def content(self) -> str:
        """Return the text outside of calls and think blocks, joined."""
        return "".join(self._text[start:end] for kind, start, end in self._layout if kind == "content")

    @property
    def reasoning(self) -> str:
        """Return the text of the think blocks without the newline that templates write on either side, joined
        by newlines."""
        blocks = [self._text[start:end] for kind, start, end in self._layout if kind == "reasoning"]
        return "\n".join(block.removeprefix("\n").removesuffix("\n") for block in blocks)

    @property
    def segments(self) -> list[Segment]:
        """Return the input in pieces, in order."""
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

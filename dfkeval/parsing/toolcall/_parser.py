"""The public face: a parser with its tools compiled once, one-shot functions, and a stream."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Literal, get_args

from dfkeval.parsing.coercion import Dialect
from dfkeval.parsing.tags import TOOL_CALL_OPEN
from dfkeval.parsing.toolcall._fast_path import Canonical
from dfkeval.parsing.toolcall._reader import Reader
from dfkeval.parsing.toolcall._stream import Stream
from dfkeval.parsing.toolcall._tools import AnyTool, Tool, compile_tools
from dfkeval.parsing.toolcall._types import ParseResult, ToolCallError

Mode = Literal["strict", "lenient"]
Prefill = Literal["none", "think"]
_CHOICES: Final = {"mode": get_args(Mode), "dialect": get_args(Dialect), "prefill": get_args(Prefill)}


class ToolCallParser:
    """Parses text that a model wrote.

    tools: OpenAI-style definitions or pydantic classes; None or empty: any name is accepted, every value
    stays text. mode: "strict" reads only what a chat template or a grammar-bound engine can write, and
    reports the rest;
        "lenient" applies the named repairs.
    dialect: how scalars are spelled beside strings; "auto" takes both spellings; "hermes" reads JSON calls
    instead. prefill: "think" when the prompt ended inside a think block. finished: False when generation
    stopped at its token limit; a cut call is then never returned. Raises SchemaError for a tool definition
    and ValueError for an option that cannot be used."""

    def __init__(
        self,
        tools: Iterable[Any] | None = None,
        mode: Mode = "strict",
        dialect: Dialect = "auto",
        prefill: Prefill = "none",
        finished: bool = True,
    ) -> None:
        for option, value in (("mode", mode), ("dialect", dialect), ("prefill", prefill)):
            if value not in _CHOICES[option]:
                raise ValueError(f"{option}={value!r}: use one of {', '.join(_CHOICES[option])}")
        self._tools: dict[str, Tool] = compile_tools(tools)
        self._anything: Tool | None = None if self._tools else AnyTool()
        self.mode = mode
        self.dialect: Dialect = dialect
        self.prefill = prefill
        self.finished = finished
        #: The text may be one usual call and nothing else, which needs no reader.
        self._plain = prefill == "none" and dialect != "hermes"

    def parse(self, text: str) -> ParseResult:
        """What `text` holds. Never raises for any str."""
        return self._parse(text, True)

    def stream(self) -> Stream:
        """A stream that takes the text in pieces; its result equals `parse` of the whole, however it was
        cut."""
        return Stream(self._parse)

    def _parse(self, text: str, begins: bool) -> ParseResult:
        """`begins`: the answer begins with this text, so that `prefill` applies to it."""
        if self._plain and text.startswith(TOOL_CALL_OPEN):
            done = Canonical(text, self._tools, self.dialect).call(0)
            if done is not None and done[0].span[1] == len(text):
                return ParseResult(text, [done[0]], [], None)
        reader = Reader(
            text,
            self._tools,
            self._anything,
            lenient=self.mode == "lenient",
            dialect=self.dialect,
            finished=self.finished,
        )
        return reader.read(self.prefill if begins else "none")


def parse_tool_calls(
    text: str,
    tools: Iterable[Any] | None = None,
    mode: Mode = "strict",
    dialect: Dialect = "auto",
    prefill: Prefill = "none",
    finished: bool = True,
) -> ParseResult:
    """`ToolCallParser(tools, ...).parse(text)`; make the parser yourself to parse many texts."""
    return ToolCallParser(tools, mode, dialect, prefill, finished).parse(text)


def parse_tool_call(
    text: str,
    tools: Iterable[Any] | None = None,
    mode: Mode = "strict",
    dialect: Dialect = "auto",
    prefill: Prefill = "none",
    finished: bool = True,
) -> dict[str, Any]:
    """The arguments of the one call in `text`. Raises ToolCallError, with the problems, where there is not
    exactly one."""
    result = parse_tool_calls(text, tools, mode, dialect, prefill, finished)
    if result.problems:
        first = result.problems[0]
        raise ToolCallError(f"{first.status} at {first.span[0]}: {first.message}", result.problems)
    if len(result.calls) != 1:
        raise ToolCallError(f"one tool call expected, found {len(result.calls)}", [])
    return result.calls[0].arguments

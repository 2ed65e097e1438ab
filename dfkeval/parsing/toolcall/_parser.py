"""Parse texts: a parser whose tools are compiled once, and functions for a single text."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any, Final, Literal, get_args

from dfkdata.common.json_schema import TYPES, SchemaError
from dfkeval.parsing.coercion import Dialect
from dfkeval.parsing.tags import TOOL_CALL_OPEN
from dfkeval.parsing.toolcall._fast_path import Canonical
from dfkeval.parsing.toolcall._reader import Reader
from dfkeval.parsing.toolcall._stream import Stream
from dfkeval.parsing.toolcall._tools import AnyTool, Tool, compile_tools
from dfkeval.parsing.toolcall._types import ParseResult, ToolCallError

Mode = Literal["strict", "lenient"]
Prefill = Literal["none", "think"]
OnUnknownType = Literal["text", "refuse"]
_CHOICES: Final = {
    "mode": get_args(Mode),
    "dialect": get_args(Dialect),
    "prefill": get_args(Prefill),
    "on_unknown_type": get_args(OnUnknownType),
}


class ToolCallParser:
    """Parses texts that a model wrote.

    Args:
        tools: definitions in OpenAI's, MCP's, Anthropic's or Gemini's form, bare ones, or pydantic classes; one of
            them or several. Without tools, any name is accepted and every value stays text.
        mode: "strict" reads only what a chat template or a grammar-bound engine can write and reports the
            rest; "lenient" applies the named repairs.
        dialect: how scalars are spelled beside strings. "auto" takes both spellings; "hermes" reads JSON
            calls instead.
        prefill: "think" if the prompt ended inside a think block.
        finished: False if generation stopped at its token limit; a call that was cut is never returned then.
        on_unknown_type: what to do with a `type` that names no type of JSON Schema or of any language that is
            read. "refuse" raises `SchemaError`; with "text" it asserts nothing, so that bare text stays text there,
            and a warning says so.

    Attributes:
        unknown_types: (tool, JSON pointer) of a `type` that names no type -> that name.

    Raises:
        SchemaError: if a tool definition cannot be used.
        ValueError: if an option has no such value.

    Example:
        >>> from dfkeval import ToolCallParser, write_tool_call
        >>> tool = {"name": "weather", "parameters": {"properties": {"days": {"type": "integer"}}}}
        >>> parser = ToolCallParser([tool])
        >>> result = parser.parse(write_tool_call("weather", {"days": 3}))
        >>> result.calls[0].name, result.calls[0].arguments
        ('weather', {'days': 3})
        >>> [problem.code for problem in parser.parse(write_tool_call("weather", {"days": "x"})).problems]
        ['type']"""

    def __init__(
        self,
        tools: Iterable[Any] | None = None,
        mode: Mode = "strict",
        dialect: Dialect = "auto",
        prefill: Prefill = "none",
        finished: bool = True,
        on_unknown_type: OnUnknownType = "text",
    ) -> None:
        chosen = {"mode": mode, "dialect": dialect, "prefill": prefill, "on_unknown_type": on_unknown_type}
        for option, value in chosen.items():
            if value not in _CHOICES[option]:
                raise ValueError(f"{option}={value!r}: use one of {', '.join(_CHOICES[option])}")
        self._tools: dict[str, Tool] = compile_tools(tools)
        self.unknown_types = {
            (name, pointer): unknown
            for name, tool in self._tools.items()
            for pointer, unknown in tool.unknown_types.items()
        }
        for (name, pointer), unknown in self.unknown_types.items():
            message = f"tool {name!r}: {pointer}: {unknown!r} is no type of JSON Schema"
            if on_unknown_type == "refuse":
                raise SchemaError(f"{message}; use one of {', '.join(sorted(TYPES))}, or any")
            warnings.warn(f"{message}; a bare text stays text there", stacklevel=2)
        self._anything: Tool | None = None if self._tools else AnyTool()
        self.mode = mode
        self.dialect: Dialect = dialect
        self.prefill = prefill
        self.finished = finished
        #: The text may be one usual call and nothing else, which needs no reader.
        self._plain = prefill == "none" and dialect != "hermes"

    def parse(self, text: str) -> ParseResult:
        """Return what `text` holds. Never raises for a str."""
        return self._parse(text, True)

    def stream(self) -> Stream:
        """Return a stream that takes a text in pieces; its result equals `parse` of the whole."""
        return Stream(self._parse)

    def _parse(self, text: str, begins: bool) -> ParseResult:
        """Parse `text`; `begins`: the answer begins with it, so that `prefill` applies."""
        if self._plain and text.startswith(TOOL_CALL_OPEN):
            done = Canonical(text, self._tools, self._anything, self.dialect).call(0)
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
    """Return what `text` holds. To parse many texts, make a `ToolCallParser` once.

    Args:
        text: what a model wrote.
        tools: as for `ToolCallParser`, like all other arguments.
        mode: "strict" or "lenient".
        dialect: how scalars are spelled.
        prefill: "think" if the prompt ended inside a think block.
        finished: False if generation stopped at its token limit.

    Raises:
        SchemaError: if a tool definition cannot be used.
        ValueError: if an option has no such value.

    Example:
        >>> from dfkeval import parse_tool_calls, write_tool_call
        >>> result = parse_tool_calls("I look it up.\\n" + write_tool_call("search", {"query": "dfk"}))
        >>> result.calls[0].arguments, result.content, result.ok
        ({'query': 'dfk'}, 'I look it up.\\n', True)"""
    return ToolCallParser(tools, mode, dialect, prefill, finished).parse(text)


def parse_tool_call(
    text: str,
    tools: Iterable[Any] | None = None,
    mode: Mode = "strict",
    dialect: Dialect = "auto",
    prefill: Prefill = "none",
    finished: bool = True,
) -> dict[str, Any]:
    """Return the arguments of the one call in `text`.

    Args:
        text: what a model wrote.
        tools: as for `ToolCallParser`, like all other arguments.
        mode: "strict" or "lenient".
        dialect: how scalars are spelled.
        prefill: "think" if the prompt ended inside a think block.
        finished: False if generation stopped at its token limit.

    Raises:
        ToolCallError: if the text does not hold exactly one good call; it carries the problems.
        SchemaError: if a tool definition cannot be used.
        ValueError: if an option has no such value.

    Example:
        >>> from dfkeval import parse_tool_call, write_tool_call
        >>> parse_tool_call(write_tool_call("search", {"query": "dfk"}))
        {'query': 'dfk'}"""
    result = parse_tool_calls(text, tools, mode, dialect, prefill, finished)
    if result.problems:
        first = result.problems[0]
        raise ToolCallError(f"{first.status} at {first.span[0]}: {first.message}", result.problems)
    if len(result.calls) != 1:
        raise ToolCallError(f"one tool call expected, {len(result.calls)} found", [])
    return result.calls[0].arguments

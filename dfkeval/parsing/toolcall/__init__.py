"""Tool calls in the text of Qwen3-Coder, Qwen3.5 and their successors: exact, typed, validated, in linear
time.

    parser = ToolCallParser(tools)
    result = parser.parse(text)         # result.calls, .problems, .content, .reasoning, .segments

Sans-I/O and standard library only. The rules, the dialects and the named repairs stand in docs/toolcalls.md.

    _patterns  what finds a tag           _tags      all tags of a text
    _frame     a call being read          _machine   moves frames over tags
    _endings   where a call may end       _fast_path the usual case
    _outside   think blocks, prose        _fences    Markdown code
    _source    a text and its views       _stack     the calls that are open
    _blocks    what was read -> result    _tools     tool definitions, compiled
    _reader    a whole text               _finish    typing, validation, strict against lenient
    _hermes    JSON calls                 _writer    the inverse
    _stream    text in pieces             _parser    the public face"""

from __future__ import annotations

from dfkdata.common.json_schema import SchemaError
from dfkeval.parsing.coercion import Dialect
from dfkeval.parsing.toolcall._parser import Mode, Prefill, ToolCallParser, parse_tool_call, parse_tool_calls
from dfkeval.parsing.toolcall._stream import Stream
from dfkeval.parsing.toolcall._types import (
    CallFinished,
    Event,
    ParseResult,
    Problem,
    ProblemFound,
    Segment,
    ToolCall,
    ToolCallError,
)
from dfkeval.parsing.toolcall._validate import REPAIRS
from dfkeval.parsing.toolcall._writer import write_tool_call

__all__ = [
    "REPAIRS",
    "CallFinished",
    "Dialect",
    "Event",
    "Mode",
    "ParseResult",
    "Prefill",
    "Problem",
    "ProblemFound",
    "SchemaError",
    "Segment",
    "Stream",
    "ToolCall",
    "ToolCallError",
    "ToolCallParser",
    "parse_tool_call",
    "parse_tool_calls",
    "write_tool_call",
]

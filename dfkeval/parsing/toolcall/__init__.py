"""Read tool calls in the text of Qwen3-Coder, Qwen3.5 and their successors: exact, typed, validated.

    parser = ToolCallParser(tools)
    result = parser.parse(text)         # result.calls, .problems, .content, .reasoning, .segments

The parser does no I/O, takes linear time, and needs the standard library and jsonschema-rs. The rules,
the dialects and the named repairs stand in docs/toolcalls.md.

    _patterns   find a tag                     _tags       all tags of a text
    _frame      one call while it is read      _machine    moves frames over tags
    _endings    where a call may end           _fast_path  the usual case
    _outside    think blocks, code, end        _fences     Markdown code
    _scanner    what a <tool_call> opens       _stack      the calls that are open
    _source     a text and its views           _tools      compiled tool definitions
    _reader     a whole text                   _validate   typing; strict against lenient
    _result     blocks become a result         _hermes     JSON calls
    _stream     text in pieces                 _writer     the inverse
    _parser     the public interface           _types      the public results
    _misspelt   tags written in another way    _allowance  what may be read in vain"""

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

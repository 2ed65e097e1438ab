"""Write a call as the chat template does, byte for byte; the parser is the inverse."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from dfkeval.parsing.coercion import Dialect
from dfkeval.parsing.tags import (
    FUNCTION_CLOSE,
    PARAMETER_CLOSE,
    TOOL_CALL_CLOSE,
    TOOL_CALL_OPEN,
    function_open,
    parameter_open,
)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _qwen35(value: Any) -> str:
    """Write as Qwen3.5 and the updated Qwen3-Coder: containers as JSON, everything else as Python prints
    it."""
    return _json(value) if isinstance(value, Mapping | list | tuple) else str(value)


def _qwen36(value: Any) -> str:
    """Write as Qwen3.6 and Qwen3.8: everything but strings as JSON."""
    return value if isinstance(value, str) else _json(value)


_VALUES: Final[dict[str, Callable[[Any], str]]] = {
    "qwen3.5": _qwen35,
    "qwen3.6": _qwen36,
    "qwen3.8": _qwen36,
    "qwen3-coder-2507": str,
}


def write_tool_call(name: str, arguments: Mapping[str, Any], dialect: Dialect = "qwen3.5") -> str:
    """Return the text of one call.

    Args:
        name: the name of the function.
        arguments: parameter -> value. Strings are written as they are, so a name with '>' or a newline in it
            cannot be read back.
        dialect: "qwen3.5", "qwen3.6", "qwen3.8", "qwen3-coder-2507" (values as Python's repr) or "hermes"
            (JSON).

    Raises:
        ValueError: if there is no such dialect, or nothing is written in it ("auto").

    Example:
        >>> from dfkeval import write_tool_call
        >>> print(write_tool_call("search", {"query": "dfk", "limit": None}))
        <tool_call>
        <function=search>
        <parameter=query>
        dfk
        </parameter>
        <parameter=limit>
        None
        </parameter>
        </function>
        </tool_call>"""
    if dialect == "hermes":
        return f"{TOOL_CALL_OPEN}\n{_json({'name': name, 'arguments': arguments})}\n{TOOL_CALL_CLOSE}"
    if dialect not in _VALUES:
        raise ValueError(f"dialect {dialect!r} cannot be written; use one of {', '.join(_VALUES)} or hermes")
    text = _VALUES[dialect]
    body = "".join(
        f"{parameter_open(key)}\n{text(value)}\n{PARAMETER_CLOSE}\n" for key, value in arguments.items()
    )
    return f"{TOOL_CALL_OPEN}\n{function_open(name)}\n{body}{FUNCTION_CLOSE}\n{TOOL_CALL_CLOSE}"

"""Read the keys of a call that is written as a JSON object: {"name": …, "arguments": {…}}.

Guarantees:
- No key is passed over: strict reading takes "name" and "arguments" and nothing else, and lenient reading
  names the keys that it reads for them or leaves out. So a call without arguments is never one whose
  arguments stood under another key."""

from __future__ import annotations

from typing import Any, Final

from dfkdata.common.tool_definitions import ARGUMENT_KEYS
from dfkeval.parsing.json_text import LiteralError, load_json

#: What lenient reading mends, by name.
KEY_REPAIRS: Final = {
    "arguments_key": "the arguments of a JSON call stand under another key",
    "missing_arguments": "a JSON call has no arguments",
    "unknown_key": "a JSON call holds a key that says nothing about the arguments",
    "double_encoded": "a JSON value is written inside a JSON string",
}
#: Keys, in small letters, of other formats that say nothing about the arguments.
_NOTES: Final = ("id", "call_id", "tool_call_id", "index", "type")
#: Keys, in small letters, under which formats write the name of a tool.
_NAMES: Final = ("name", "function", "tool", "tool_name", "function_name", "recipient_name", "action")
#: Keys, in small letters, that hold the arguments or whole calls.
_HOLDERS: Final = (*ARGUMENT_KEYS, "tool_input", "action_input", "tool_calls", "function_call")


def looks_like_call(value: dict[str, Any], name: str) -> bool:
    """Return whether `value`, none of whose keys is one of the answer, is a call in any format: it names the
    tool `name`, or it holds arguments and nothing but keys of calls."""
    keys = {key.lower() for key in value}
    called = [entry for key, entry in value.items() if key.lower() in _NAMES]
    called += [entry.get("name") for entry in called if isinstance(entry, dict)]
    if name in value or any(isinstance(entry, str) and entry.split(".")[-1] == name for entry in called):
        return True
    return not keys.isdisjoint(_HOLDERS) and keys.issubset((*_HOLDERS, *_NAMES, *_NOTES))


def call_arguments(value: dict[str, Any], lenient: bool) -> tuple[dict[str, Any], list[str]]:
    """Return the arguments of a call, and the names of the repairs (KEY_REPAIRS) that reading them needed.

    Args:
        value: the call; whoever calls knows what to do about its "name".
        lenient: whether repairs are allowed.

    Raises:
        LiteralError: if the keys are not those of a call, or the arguments no object."""
    repairs = _mended_keys(value) if lenient else _exact_keys(value)
    arguments = next((value[key] for key in value if key.lower() in ARGUMENT_KEYS), None)
    if lenient and arguments is None:
        return {}, [*repairs, "missing_arguments"]
    if lenient and isinstance(arguments, str):
        arguments, repairs = _unquoted(arguments), [*repairs, "double_encoded"]
    if not isinstance(arguments, dict):
        raise LiteralError("bad_json_call", 'the "arguments" of a JSON call are an object')
    return arguments, repairs


def misplaced_arguments(function: dict[str, Any]) -> bool:
    """Return whether a call has no "arguments" and holds them under another key."""
    return function.get("arguments") is None and any(
        key.lower() in ARGUMENT_KEYS and value is not None for key, value in function.items()
    )


def _exact_keys(value: dict[str, Any]) -> list[str]:
    _refuse([key for key in value if key not in ("name", "arguments")])
    if "arguments" not in value:
        raise LiteralError("missing_arguments", 'a JSON call needs "arguments"')
    return []


def _mended_keys(value: dict[str, Any]) -> list[str]:
    """Return the repairs that the keys need."""
    others = [key for key in value if key != "name"]
    named = [key for key in others if key.lower() in ARGUMENT_KEYS]
    notes = [key for key in others if key.lower() in _NOTES]
    _refuse([key for key in others if key not in named and key not in notes] + named[1:])
    repairs = ["unknown_key"] if notes else []
    return repairs if named in ([], ["arguments"]) else [*repairs, "arguments_key"]


def _refuse(keys: list[str]) -> None:
    if keys:
        message = f'a JSON call holds "name" and "arguments" and not {", ".join(map(repr, keys))}'
        raise LiteralError("unknown_key", message)


def _unquoted(text: str) -> Any:
    try:
        return load_json(text)
    except LiteralError:
        return None

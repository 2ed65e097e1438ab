"""Read turns as other tools write them into canonical turns.

Formats whose rows carry their own conversation, and the exports' ways back, share these functions.

Guarantees:
- Content becomes a list of text parts and bare media placeholders, and tool arguments become objects.
- Keys of a message that are not known here stay as they are.
- Nothing is guessed: what cannot be read raises `RowError`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from dfkdata.common import data_uri
from dfkdata.common.tool_definitions import ARGUMENT_KEYS, DefinitionError, function_definitions
from dfkdata.rows.file_names import file_names
from dfkdata.rows.filled_nulls import without_null_keywords
from dfkdata.rows.loss_weight import FLAGS, canonical_weight, unscored
from dfkdata.rows.part_files import (
    COLUMNS,
    PART_HINT,
    PART_KINDS,
    check_turn,
    own_file,
    part_fault,
    part_kind,
)
from dfkdata.rows.reasoning import canonical_reasoning, holds_reasoning
from dfkdata.rows.record import Row, RowError

_MEDIA_COLUMNS = frozenset((*COLUMNS, *COLUMNS.values()))
_TAG = re.compile(r"<(image|video|audio)>")

SPEAKERS = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
SPEAKERS |= {"function_call": "tool_call", "observation": "tool", "tool": "tool"}
"""Speakers of ShareGPT rows and the roles that they mean."""


class Conversation(NamedTuple):
    """Hold canonical turns with their media.

    Attributes:
        messages: The turns.
        media: The files that the placeholders stand for, in order, by kind ("image", "video", "audio").
        warnings: What is wrong with turns that can be used all the same.
        is_text: Whether each turn is one text without any mark, so that nothing else has to be looked for.
    """

    messages: list[dict[str, Any]]
    media: dict[str, list[str]]
    warnings: tuple[RowError, ...] = ()
    is_text: bool = False


def conversation(messages: Any, listed_media: dict[str, list[str]], *, tags: bool) -> Conversation:
    """Return the canonical turns of a row.

    Args:
        messages: A list of {"role", "content", ...}, or the same as JSON text.
        listed_media: The media beside the turns, by kind ("image", ...), as `listed` gives them.
        tags: Whether `<image>`, `<video>` and `<audio>` in the texts of users and tools are placeholders.
            Anywhere else they stay text and give a warning, since trainers of such layouts count them in
            every turn.

    Raises:
        RowError: If the turns cannot be read.
    """
    if isinstance(messages, str):  # columnar files hold turns as JSON text
        messages = as_json(messages, "NO_TURNS", "messages")
    if not isinstance(messages, list) or not messages:
        raise RowError("NO_TURNS", "the row has no list of turns", path="messages", value=messages)
    waiting = {kind: iter(files) for kind, files in listed_media.items() if files}
    media: dict[str, list[str]] = {"image": [], "video": [], "audio": []}
    if waiting and not tags:
        messages = _placed(messages, listed_media)
    turns, marked = [], []
    for number, message in enumerate(messages):
        turn = _text_turn(message)
        if turn is None:
            turn = _turn(message, number, waiting, media, tags)
            marked.append((number, turn))
        turns.append(turn)
    if not marked and not waiting:
        return Conversation(turns, media, is_text=True)
    flagged = [(number, turn) for number, turn in marked if not FLAGS.isdisjoint(turn)]
    errors = [canonical_weight(turn, f"messages.{number}") for number, turn in flagged]
    warnings = [error for error in errors if error is not None]
    warnings += unscored(turns) if flagged else []
    for kind, left in waiting.items():
        rest = [*left]
        repeats = rest == media[kind] == listed_media[kind]  # a list that repeats the parts' own files
        media[kind] += [] if repeats else rest  # the counting rule reports files without a placeholder
    return Conversation(turns, media, (*warnings, *(_misplaced(marked) if tags else ())))


def _text_turn(message: Any) -> dict[str, Any] | None:
    """Return the turn of a message that is nothing but a role and one text in which no tag begins; else None.

    Most turns are so, and `_turn` takes six times as long."""
    if type(message) is not dict or len(message) != 2:
        return None
    role, text = message.get("role"), message.get("content")
    if type(text) is list and len(text) == 1 and type(text[0]) is dict:
        text = text[0].get("text") if len(text[0]) == 2 and text[0].get("type") == "text" else None
    elif not text:
        return None
    if type(role) is not str or type(text) is not str or "<" in text:
        return None
    turn = {"role": role, "content": [{"type": "text", "text": text}]}
    return turn if next(iter(message)) == "role" else dict(reversed(turn.items()))


def _misplaced(turns: list[tuple[int, dict[str, Any]]]) -> Iterator[RowError]:
    """Yield an error for each turn whose text holds a media tag that cannot be a placeholder there."""
    for number, turn in turns:
        for part in turn["content"]:
            if part["type"] == "text" and "<" in part["text"] and (tag := _TAG.search(part["text"])):
                reason = f"{tag.group()} in a turn of the role {turn['role']!r}"
                path, hint = f"messages.{number}.content", "reword it, or let it stay text: IMG_POSITION=warn"
                yield RowError("IMG_POSITION", reason, path=path, value=part["text"], hint=hint)


def _placed(messages: list[Any], listed_media: dict[str, list[str]]) -> list[Any]:
    """Put media beside turns of plain text into the first user turn, before its text, as TRL reads them."""
    strings = all(
        isinstance(message, dict) and not isinstance(message.get("content"), list) for message in messages
    )
    users = [number for number, message in enumerate(messages) if strings and message.get("role") == "user"]
    if not users:
        return messages
    first = messages[users[0]]
    bare = [{"type": kind} for kind, files in listed_media.items() for _ in files]
    changed = first | {"content": [*bare, {"type": "text", "text": first.get("content") or ""}]}
    return [*messages[: users[0]], changed, *messages[users[0] + 1 :]]


def _turn(
    message: Any, number: int, waiting: dict[str, Iterator[str]], media: dict[str, list[str]], tags: bool
) -> dict[str, Any]:
    if isinstance(message, str):  # columnar files hold each turn as JSON text
        message = as_json(message, "ROLE_UNKNOWN", f"messages.{number}")
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        hint = 'write {"role": ..., "content": ...}'
        raise RowError(
            "ROLE_UNKNOWN", "a turn without a role", path=f"messages.{number}", value=message, hint=hint
        )
    check_turn(message, number)
    turn = {key: value for key, value in message.items() if value is not None}
    parts = _parts(message.get("content"), number)
    if tags and turn["role"] in ("user", "tool"):
        parts = [piece for part in parts for piece in _untagged(part)]
    turn["content"] = [_part(part, number, waiting, media) for part in parts]
    if turn["role"] == "assistant" and holds_reasoning(turn):
        canonical_reasoning(turn, f"messages.{number}")
    if "tool_call_id" in turn:
        _check_call_id(turn["tool_call_id"], f"messages.{number}.tool_call_id")
    calls = turn.pop("tool_calls", None)
    if calls is not None and not isinstance(calls, list):
        path, hint = f"messages.{number}.tool_calls", "write a list of calls"
        raise RowError("TOOL_UNKNOWN", "tool_calls are no list", path=path, value=calls, hint=hint)
    if calls:
        turn["tool_calls"] = [
            _call(call, f"messages.{number}.tool_calls.{at}") for at, call in enumerate(calls)
        ]
    return turn


def _parts(content: Any, number: int) -> list[dict[str, Any]]:
    if content is None or content == "":
        return []
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if isinstance(content, dict):
        content = [content]
    if isinstance(content, list):
        parts = [{"type": "text", "text": part} if isinstance(part, str) else part for part in content]
        if all(isinstance(part, dict) for part in parts):
            return [{key: value for key, value in part.items() if value is not None} for part in parts]
    raise RowError(
        "NOT_TEXT",
        "content is neither text nor a list of parts",
        path=f"messages.{number}.content",
        value=content,
    )


def _untagged(part: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the pieces of a text part that is cut at its media tags."""
    text = part.get("text")
    if part.get("type") != "text" or not isinstance(text, str) or "<" not in text:
        yield part
        return
    for at, piece in enumerate(_TAG.split(text)):
        if at % 2:
            yield {"type": piece}
        elif piece:
            yield {"type": "text", "text": piece}


def _part(
    part: dict[str, Any], number: int, waiting: dict[str, Iterator[str]], media: dict[str, list[str]]
) -> dict[str, Any]:
    """Return a canonical part; the file of a media part goes to `media`, its own or the next one listed."""
    kind = part_kind(part)
    if (len(part) > 2 or "type" not in part) and (fault := part_fault(part)):
        path = f"messages.{number}.content"
        raise RowError("PART_UNKNOWN", fault, path=path, value=part, hint=PART_HINT)
    if kind in ("text", "input_text", "output_text"):
        if not isinstance(part.get("text"), str):
            path = f"messages.{number}.content"
            raise RowError("NOT_TEXT", "a text part without text", path=path, value=part)
        return {"type": "text", "text": part["text"]}
    if not isinstance(kind, str) or kind not in PART_KINDS:
        hint = f"known are text, {', '.join(PART_KINDS)}"
        raise RowError(
            "PART_UNKNOWN",
            f"a part of type {kind!r}",
            path=f"messages.{number}.content",
            value=part,
            hint=hint,
        )
    name = PART_KINDS[kind]
    file = _file(part, kind, number)
    if file is None:
        file = next(waiting.get(name, iter(())), None)
    if file is not None:
        media[name].append(file)
    return {"type": name}


def _file(part: dict[str, Any], kind: str, number: int) -> str | None:
    """Return the file that a media part names itself; None for a bare placeholder."""
    value = own_file(part, kind)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return data_uri.encode(value)
    path = f"messages.{number}.content"
    raise RowError(
        "IMG_LIST", f"a media part that holds {type(value).__name__}", path=path, value=repr(value)
    )


def without_bytes(value: Any) -> Any:
    """Return a raw row with embedded bytes as `data:` URIs, which every format reads back; JSON has no bytes."""
    if isinstance(value, bytes):
        return data_uri.encode(value)
    if isinstance(value, dict):
        return {key: without_bytes(inner) for key, inner in value.items()}
    return [without_bytes(inner) for inner in value] if isinstance(value, list) else value


def _call(call: Any, path: str) -> dict[str, Any]:
    """Return a tool call with its arguments as an object."""
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise RowError("TOOL_UNKNOWN", "a tool call without a name", path=path, value=call)
    arguments = function.get("arguments")
    if arguments is None:
        _check_no_other_arguments(function, f"{path}.function")
        arguments = {} if "arguments" not in function else None
    if isinstance(arguments, str):
        arguments = as_json(arguments, "TOOL_ARGS_NOT_OBJECT", f"{path}.function.arguments")
    if not isinstance(arguments, dict):
        path = f"{path}.function.arguments"
        raise RowError("TOOL_ARGS_NOT_OBJECT", "tool arguments are no object", path=path, value=arguments)
    canonical = {"type": "function", "function": {"name": function["name"], "arguments": arguments}}
    if call.get("id") is None:
        return canonical
    _check_call_id(call["id"], f"{path}.id")
    return {"id": call["id"], **canonical}


def _check_no_other_arguments(function: dict[str, Any], path: str) -> None:
    """Refuse a call whose arguments stand under another key, which would become a call without any."""
    for key, value in function.items():
        if key.lower() in ARGUMENT_KEYS and value is not None:
            reason = f"a tool call with {key!r} and without 'arguments'"
            raise RowError(
                "TOOL_ARGS_NOT_OBJECT",
                reason,
                path=f"{path}.{key}",
                value=value,
                hint="rename it to 'arguments'",
            )


def _check_call_id(name: Any, path: str) -> None:
    if not isinstance(name, str):
        raise RowError(
            "NOT_TEXT", "the id of a call is no text", path=path, value=name, hint="write a string"
        )


def as_json(text: str, code: str, path: str) -> Any:
    """Return the value of JSON `text`.

    Raises:
        RowError: With `code` and `path`, if it is not JSON.
    """
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise RowError(
            code, f"not JSON: {error}", path=path, value=text, hint="write a JSON value"
        ) from error


def tools(value: Any) -> list[dict[str, Any]] | None:
    """Return tool definitions from a list, from one definition, or from either as JSON text.

    Definitions in other forms (bare, MCP, Anthropic, Gemini) are put into OpenAI's; None stands for no tools.

    Raises:
        RowError: If a definition cannot be read or has no name.
    """
    if not value:
        return None
    try:
        key = value if isinstance(value, str) else msgspec.json.encode(value)
    except (TypeError, UnicodeEncodeError):  # refused below, or later, by name
        return _read_tools(value)
    if key not in _TOOLS:  # most rows of a file have the tools of the row before
        definitions = _read_tools(value)
        if len(_TOOLS) == _KNOWN_TOOLS:
            _TOOLS.clear()
        _TOOLS[key] = definitions
    known = _TOOLS[key]
    return None if known is None else [*known]


_TOOLS: dict[str | bytes, list[dict[str, Any]] | None] = {}
"""Tools as JSON -> their definitions, which nobody changes in place."""

_KNOWN_TOOLS = 64


def _read_tools(value: Any) -> list[dict[str, Any]] | None:
    if isinstance(value, str):
        value = as_json(value, "TOOLS_INVALID", "tools") if value.strip() else None
    if not value:
        return None
    items = [value] if isinstance(value, dict) else value
    if isinstance(items, list):
        items = [as_json(tool, "TOOLS_INVALID", "tools") if isinstance(tool, str) else tool for tool in items]
    if not isinstance(items, list) or not all(isinstance(tool, dict) for tool in items):
        raise RowError("TOOLS_INVALID", "tools are no list of definitions", path="tools", value=value)
    if not isinstance(value, str):  # JSON text was never a column of its own
        items = without_null_keywords(items)
    try:
        return [definition for tool in items for definition in function_definitions(tool)]
    except DefinitionError as error:
        hint = 'write {"type": "function", "function": {"name", "description", "parameters"}}'
        raise RowError("TOOLS_INVALID", str(error), path="tools", value=items, hint=hint) from error


def listed(row: Row) -> dict[str, list[str]]:
    """Return the media beside the turns by kind, from `images` or `image`, and so on.

    A single path counts as a list of one.

    Raises:
        RowError: If a value is neither a path nor embedded bytes.
    """
    media: dict[str, list[str]] = {"image": [], "video": [], "audio": []}
    if _MEDIA_COLUMNS.isdisjoint(row):
        return media
    for kind, plural in COLUMNS.items():
        value = row.get(plural) if row.get(plural) is not None else row.get(kind)
        media[kind] = [*file_names(value, plural)]
    return media


def system_turn(message: Any) -> Any:
    """Return the turn with the role `system` if OpenAI's `developer` wrote it, else the turn as it is."""
    if isinstance(message, dict) and message.get("role") == "developer":
        return message | {"role": "system"}
    return message

"""Turns as other tools write them -> canonical turns. Shared by the formats whose rows carry their own
conversation.

Promises: content becomes a list of text parts and bare media placeholders, tool arguments become objects, and
every key of a message that this does not know is kept as it is. What cannot be read raises `RowError`; nothing
is guessed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from dfkdata.rows.record import Row, RowError

KINDS = {"image": "images", "video": "videos", "audio": "audios"}
_TAG = re.compile(r"<(image|video|audio)>")
_PART_KIND = {
    **{kind: kind for kind in ("image", "video", "audio")},
    **{
        "image_url": "image",
        "video_url": "video",
        "input_image": "image",
        "input_audio": "audio",
        "audio_url": "audio",
    },
}


SPEAKERS = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
SPEAKERS |= {"function_call": "tool_call", "observation": "tool", "tool": "tool"}
"""Speakers of ShareGPT rows and the roles that they mean."""


class Conversation(NamedTuple):
    """Canonical turns, the media that their placeholders stand for in order, and what is wrong with turns
    that could be used all the same."""

    messages: list[dict[str, Any]]
    media: dict[str, list[str]]
    warnings: tuple[RowError, ...] = ()


def conversation(messages: Any, given: dict[str, list[str]], *, tags: bool) -> Conversation:
    """messages: a list of {"role", "content", ...}. given: media listed beside the turns, by kind ("image",
    ...).

    tags: `<image>`, `<video>` and `<audio>` in the texts of users and tools are placeholders; anywhere else
    they are text and a doubt, since trainers of such layouts count them in every turn."""
    if isinstance(messages, str):  # columnar files hold turns as JSON text
        messages = as_json(messages, "NO_TURNS", "messages")
    if not isinstance(messages, list) or not messages:
        raise RowError("NO_TURNS", "the row has no list of turns", path="messages", value=messages)
    waiting = {kind: iter(files) for kind, files in given.items()}
    media: dict[str, list[str]] = {kind: [] for kind in KINDS}
    if not tags:
        messages = _placed(messages, given)
    turns = [_turn(message, number, waiting, media, tags) for number, message in enumerate(messages)]
    for kind, left in waiting.items():
        media[kind] += left  # more files than placeholders: the counting rule tells
    return Conversation(turns, media, tuple(_misplaced(turns)) if tags else ())


def _misplaced(turns: list[dict[str, Any]]) -> Iterator[RowError]:
    """A fault for each turn whose text says a media tag where none can stand."""
    for number, turn in enumerate(turns):
        for part in turn["content"]:
            if part["type"] == "text" and (tag := _TAG.search(part["text"])):
                reason = f"{tag.group()} in a turn of the role {turn['role']!r}"
                path, hint = f"messages.{number}.content", "reword it, or let it stay text: IMG_POSITION=warn"
                yield RowError("IMG_POSITION", reason, path=path, value=part["text"], hint=hint)


def _placed(messages: list[Any], given: dict[str, list[str]]) -> list[Any]:
    """Media beside turns of plain text belong to the first user turn, before its text, as TRL reads them."""
    strings = all(
        isinstance(message, dict) and not isinstance(message.get("content"), list) for message in messages
    )
    users = [number for number, message in enumerate(messages) if strings and message.get("role") == "user"]
    if not users or not any(given.values()):
        return messages
    first = messages[users[0]]
    bare = [{"type": kind} for kind, files in given.items() for _ in files]
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
    turn = {key: value for key, value in message.items() if value is not None}
    parts = _parts(message.get("content"), number)
    if tags and turn["role"] in ("user", "tool"):
        parts = [piece for part in parts for piece in _untagged(part)]
    turn["content"] = [_part(part, number, waiting, media) for part in parts]
    _names_call(turn.get("tool_call_id", ""), f"messages.{number}.tool_call_id")
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
    """A text part cut at its media tags."""
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
    """One canonical part; a media part's file moves to `media`, or is taken from the files beside the
    turns."""
    kind = part.get("type") or next((key for key in ("text", *_PART_KIND) if key in part), None)
    if kind in ("text", "input_text", "output_text"):
        if not isinstance(part.get("text"), str):
            path = f"messages.{number}.content"
            raise RowError("NOT_TEXT", "a text part without text", path=path, value=part)
        return {"type": "text", "text": part["text"]}
    if not isinstance(kind, str) or kind not in _PART_KIND:
        hint = f"known are text, {', '.join(_PART_KIND)}"
        raise RowError(
            "PART_UNKNOWN",
            f"a part of type {kind!r}",
            path=f"messages.{number}.content",
            value=part,
            hint=hint,
        )
    name = _PART_KIND[kind]
    file = _file(part, kind, number)
    if file is None:
        file = next(waiting.get(name, iter(())), None)
    if file is not None:
        media[name].append(file)
    return {"type": name}


def _file(part: dict[str, Any], kind: str, number: int) -> str | None:
    """The file that a media part names itself; None for a bare placeholder."""
    value = next(
        (part[key] for key in (kind, _PART_KIND[kind], "path", "url", "base64", "data") if part.get(key)),
        None,
    )
    if isinstance(value, dict):
        if isinstance(value.get("data"), str):
            return f"data:{_PART_KIND[kind]}/{value.get('format', 'octet-stream')};base64,{value['data']}"
        value = value.get("url") or value.get("path") or value.get("bytes")
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return data_uri(value)
    path = f"messages.{number}.content"
    raise RowError(
        "IMG_LIST", f"a media part that holds {type(value).__name__}", path=path, value=repr(value)
    )


def data_uri(data: bytes) -> str:
    """Embedded bytes as the one kind of text that `Record.images` takes for them."""
    from base64 import b64encode

    return "data:application/octet-stream;base64," + b64encode(data).decode()


def _call(call: Any, path: str) -> dict[str, Any]:
    """A tool call with its arguments as an object."""
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise RowError("TOOL_UNKNOWN", "a tool call without a name", path=path, value=call)
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        arguments = as_json(arguments, "TOOL_ARGS_NOT_OBJECT", f"{path}.function.arguments")
    if not isinstance(arguments, dict):
        path = f"{path}.function.arguments"
        raise RowError("TOOL_ARGS_NOT_OBJECT", "tool arguments are no object", path=path, value=arguments)
    kept = {key: call[key] for key in ("id",) if call.get(key) is not None}
    _names_call(kept.get("id", ""), f"{path}.id")
    return kept | {"type": "function", "function": {"name": function["name"], "arguments": arguments}}


def _names_call(name: Any, path: str) -> None:
    """Raise `RowError` unless the id of a call is text."""
    if not isinstance(name, str):
        raise RowError(
            "NOT_TEXT", "the id of a call is no text", path=path, value=name, hint="write a string"
        )


def as_json(text: str, code: str, path: str) -> Any:
    """`text` read as JSON. Raises `RowError` with `code`."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise RowError(
            code, f"not JSON: {error}", path=path, value=text, hint="write a JSON value"
        ) from error


def tools(value: Any) -> list[dict[str, Any]] | None:
    """Tool definitions from a list, one definition, or either as JSON text; bare functions get their
    wrapper."""
    if isinstance(value, str):
        value = as_json(value, "TOOLS_INVALID", "tools") if value.strip() else None
    if not value:
        return None
    found = [value] if isinstance(value, dict) else value
    if isinstance(found, list):
        found = [as_json(tool, "TOOLS_INVALID", "tools") if isinstance(tool, str) else tool for tool in found]
    if not isinstance(found, list) or not all(isinstance(tool, dict) for tool in found):
        raise RowError("TOOLS_INVALID", "tools are no list of definitions", path="tools", value=value)
    wrapped = [tool if "function" in tool else {"type": "function", "function": tool} for tool in found]
    for tool in wrapped:
        if not isinstance(tool["function"], dict) or not isinstance(tool["function"].get("name"), str):
            raise RowError("TOOLS_INVALID", "a tool without a name", path="tools", value=tool)
    return wrapped


def listed(row: Row) -> dict[str, list[str]]:
    """The media beside the turns, by kind: `images` or `image`, and so on; a single path counts as a list of
    one."""
    found = {}
    for kind, plural in KINDS.items():
        value = row.get(plural) if row.get(plural) is not None else row.get(kind)
        values = [] if value is None else value if isinstance(value, list) else [value]
        found[kind] = [file_name(item, plural) for item in values]
    return found


def file_name(item: Any, column: str) -> str:
    """A file's path, or the `data:` URI of embedded bytes. Raises `RowError` for what is neither."""
    if isinstance(item, dict):
        item = item.get("bytes") or item.get("path") or item.get("url")
    if isinstance(item, bytes):
        return data_uri(item)
    if not isinstance(item, str) or not item:
        raise RowError(
            "IMG_LIST", f"{column} holds {type(item).__name__}, not paths", path=column, value=item
        )
    return item


def joined_calls(messages: list[Any], *, call: str, answers: tuple[str, ...]) -> list[Any]:
    """Turns of the role `call`, JSON text each, become the tool calls of one assistant turn; `answers` become
    `tool`."""
    turns: list[Any] = []
    for number, message in enumerate(messages):
        role = message.get("role") if isinstance(message, dict) else None
        if role == call:
            asked = as_json(str(message.get("content")), "TOOL_ARGS_NOT_OBJECT", f"messages.{number}.content")
            calls = asked if isinstance(asked, list) else [asked]
            if turns and isinstance(turns[-1], dict) and turns[-1].get("role") == "assistant":
                before = turns[-1].get("tool_calls") or []
                if not isinstance(before, list):
                    path = f"messages.{number - 1}.tool_calls"
                    raise RowError("TOOL_UNKNOWN", "tool_calls are no list", path=path, value=before)
                turns[-1] = turns[-1] | {"tool_calls": [*before, *calls]}
            else:
                turns.append({"role": "assistant", "content": "", "tool_calls": calls})
        elif role in answers:
            turns.append(message | {"role": "tool"})
        else:
            turns.append(message)
    return turns


def system_turn(message: Any) -> Any:
    """Return the turn with the role `system` if OpenAI's `developer` wrote it, else the turn as it is."""
    if isinstance(message, dict) and message.get("role") == "developer":
        return message | {"role": "system"}
    return message

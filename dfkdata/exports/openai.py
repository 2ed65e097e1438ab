"""OpenAI's fine-tuning form: text or parts with `image_url`, tool arguments as JSON text.

    {"messages": [{"role", "content", "weight"?: 0 | 1, "tool_calls"?: [{"id", "type", "function": {"name",
     "arguments": text}}]}], "tools"?}

An image's address is its path relative to the file; OpenAI's own service wants `--materialize embed`, which
writes `data:` URIs. Calls without an id get one from their position, and the answers that follow name it."""

from __future__ import annotations

from typing import Any

import msgspec

from dfkdata.exports._plain_text import check_no_template_options
from dfkdata.rows.chat_turns import conversation, system_turn, tools
from dfkdata.rows.record import Row, RowError


def row(row: Row) -> Row:
    """Return the row in OpenAI's form, which has no place for video and audio."""
    if row.get("videos") or row.get("audios"):
        raise RowError("LAYOUT_CANNOT", "video and audio have no place in this layout", path="messages")
    check_no_template_options(row, "OpenAI")
    images = iter(row["images"])
    turns: list[Row] = []
    for number, message in enumerate(row["messages"]):
        turns.append(_turn(message, number, images, turns))
    return {"messages": turns} | ({"tools": row["tools"]} if "tools" in row else {})


def _turn(message: Row, number: int, images: Any, before: list[Row]) -> Row:
    if "reasoning_content" in message:
        path, hint = (
            f"messages.{number}.reasoning_content",
            "use messages, swift, sharegpt or prompt_completion",
        )
        trace = message["reasoning_content"]
        raise RowError(
            "LAYOUT_CANNOT", "reasoning has no place in this layout", path=path, value=trace, hint=hint
        )
    if message.get("weight", 1) not in (0, 1):
        path, hint = f"messages.{number}.weight", "OpenAI weighs a turn with 0 or 1; use messages or swift"
        raise RowError(
            "LAYOUT_CANNOT", "a loss weight between", path=path, value=message["weight"], hint=hint
        )
    parts = [_part(part, images) for part in message["content"]]
    plain = all(part["type"] == "text" for part in parts)
    turn = message | {"content": "".join(part["text"] for part in parts) if plain else parts}
    if calls := message.get("tool_calls"):
        turn["content"] = turn["content"] or None
        turn["tool_calls"] = [_call(call, f"call_{number}_{at}") for at, call in enumerate(calls)]
    if message["role"] == "tool" and "tool_call_id" not in message:
        turn["tool_call_id"] = _open_call(before)
    return turn


def _part(part: Row, images: Any) -> Row:
    if part["type"] == "text":
        return part
    url = next(images, None)
    if part["type"] != "image" or url is None:
        reason, hint = f"a placeholder of the kind {part['type']} without an image", "name its file"
        raise RowError("LAYOUT_CANNOT", reason, path="messages", value=part, hint=hint)
    return {"type": "image_url", "image_url": {"url": url}}


def _call(call: Row, name: str) -> Row:
    function = call["function"]
    text = msgspec.json.encode(function["arguments"]).decode()
    inner = {"name": function["name"], "arguments": text}
    return {"id": call.get("id", name), "type": "function", "function": inner}


def _open_call(before: list[Row]) -> str:
    """Return the id of the first call that no tool turn has answered yet."""
    answered = {turn.get("tool_call_id") for turn in before}
    names = [call["id"] for turn in before for call in turn.get("tool_calls", ())]
    waiting = [name for name in names if name not in answered]
    if not waiting:
        raise RowError("ROLE_ORDER", "a tool turn that answers no call", path="messages")
    return str(waiting[0])


def inverse(row: Row) -> Row:
    """Return turns with parts, without the ids that `row` made up."""
    turns = [system_turn(message) for message in row["messages"]]
    read = conversation(turns, {}, tags=False)
    for turn in read.messages:
        for call in turn.get("tool_calls", ()):
            if call.get("id", "").startswith("call_"):
                del call["id"]
        if turn.get("tool_call_id", "").startswith("call_"):
            del turn["tool_call_id"]
    definitions = tools(row.get("tools"))
    back: Row = {"messages": read.messages, "images": read.media["image"]}
    return back | ({"tools": definitions} if definitions else {})


def check(row: Row) -> None:
    """Raise `RowError` unless arguments are JSON text, tool turns name calls, and users show images."""
    names: set[str] = set()
    for number, turn in enumerate(row["messages"]):
        path = f"messages.{number}"
        if isinstance(turn["content"], list) and turn["role"] != "user":
            raise RowError("IMG_POSITION", "parts outside a user turn", path=path, value=turn["content"])
        for call in turn.get("tool_calls", ()):
            names.add(call["id"])
            if not isinstance(call["function"]["arguments"], str):
                raise RowError("TOOL_ARGS_NOT_OBJECT", "arguments are no JSON text", path=path, value=call)
        if turn["role"] == "tool" and turn.get("tool_call_id") not in names:
            raise RowError("ROLE_ORDER", "a tool turn that names no call", path=path, value=turn)

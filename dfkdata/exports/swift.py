"""ms-swift and SiliconFlow: plain text with media tags.

    {"messages": [{"role", "content": text, "loss"?, "loss_scale"?}], "images"?: [...], "videos"?, "audios"?,
     "tools"?: JSON text, "chat_template_kwargs"?}

Tags stand only in user turns, in the order and number of the listed files; a row of text has no `images`.
Tool calls are turns of the role `tool_call` with JSON text, what the tool answered is `tool_response`. A turn's
weight is written as `loss` (0 or 1) or `loss_scale`, its reasoning as a think block before the text."""

from __future__ import annotations

import msgspec

from dfkdata.exports._plain_text import TAGS, call_text, check_tag_counts, media, tagged
from dfkdata.rows.call_turns import joined_calls
from dfkdata.rows.chat_turns import conversation, listed, tools
from dfkdata.rows.record import Row, RowError

TURNS_ONLY = True
_ROLES = ("system", "user", "assistant", "tool_call", "tool_response")


def row(row: Row) -> Row:
    """Return the row as plain text; a text that holds a tag raises `RowError`."""
    turns: list[Row] = []
    for number, message in enumerate(row["messages"]):
        turns += _turns(message, tagged(message, number))
    layout_row: Row = {"messages": turns} | media(row)
    if "tools" in row:
        layout_row["tools"] = msgspec.json.encode(row["tools"]).decode()
    if "chat_template_kwargs" in row:
        layout_row["chat_template_kwargs"] = row["chat_template_kwargs"]
    return layout_row


def _turns(message: Row, text: str) -> list[Row]:
    role = "tool_response" if message["role"] == "tool" else message["role"]
    flag = _loss_flag(message)
    calls = [
        {"role": "tool_call", "content": call_text(call)} | flag for call in message.get("tool_calls", ())
    ]
    return calls if calls and not text else [{"role": role, "content": text} | flag, *calls]


def _loss_flag(message: Row) -> Row:
    """Return ms-swift's spelling of a turn's weight."""
    weight = message.get("weight")
    if weight is None:
        return {}
    return {"loss": bool(weight)} if weight in (0, 1) else {"loss_scale": weight}


def inverse(row: Row) -> Row:
    """Return turns with parts."""
    joined = joined_calls(row["messages"], call="tool_call", answers=("tool_response",))
    read = conversation(joined, listed(row), tags=True)
    back: Row = {"messages": read.messages, "images": read.media["image"]}
    back |= {key: row[key] for key in ("chat_template_kwargs",) if key in row}
    back |= {f"{kind}s": read.media[kind] for kind in ("video", "audio") if read.media[kind]}
    definitions = tools(row.get("tools"))
    return back | ({"tools": definitions} if definitions else {})


def check(row: Row) -> None:
    """Raise `RowError` unless roles are known, contents text, and tags in user turns and as many as files."""
    for number, turn in enumerate(row["messages"]):
        if turn["role"] not in _ROLES or not isinstance(turn["content"], str):
            raise RowError("LAYOUT_CANNOT", "a turn of another kind", path=f"messages.{number}", value=turn)
        if turn["role"] not in ("user", "tool_response") and any(
            tag in turn["content"] for tag in TAGS.values()
        ):
            raise RowError(
                "IMG_POSITION", "a media tag outside a user turn", path=f"messages.{number}", value=turn
            )
    check_tag_counts([turn["content"] for turn in row["messages"]], row)

"""LLaMA-Factory's ShareGPT layout, with the `dataset_info.json` that declares the files.

    {"conversations": [{"from": "human", "value": "<image>..."}, {"from": "gpt", ...}], "system",
     "tools", "images"?}

LLaMA-Factory wants strict turns: human or observation, then gpt or function_call. It drops an assistant's
text beside a call and joins no observations, so rows with either raise `RowError`, as do rows with
loss weights, for which it has no place."""

from __future__ import annotations

import msgspec

from dfkdata.exports._plain_text import call_text, check_no_template_options, check_tag_counts, media, tagged
from dfkdata.rows.call_turns import joined_calls, loss_flags
from dfkdata.rows.chat_turns import SPEAKERS, conversation, listed, tools
from dfkdata.rows.record import Row, RowError

_NAMES = {"user": "human", "assistant": "gpt", "tool": "observation"}


def row(row: Row) -> Row:
    """Return the row as a conversation; a text with a tag, or beside a call, raises `RowError`."""
    check_no_template_options(row, "LLaMA-Factory")
    turns, system = [], ""
    for number, message in enumerate(row["messages"]):
        text = tagged(message, number)
        if message["role"] == "system":
            system = text
        else:
            turns.append(_turn(message, text, number))
    definitions = msgspec.json.encode(row["tools"]).decode() if "tools" in row else ""
    return {"conversations": turns, "system": system, "tools": definitions} | media(row)


def _turn(message: Row, text: str, number: int) -> Row:
    calls, weight = message.get("tool_calls"), message.get("weight", 1)
    if weight != 1:
        hint = "LLaMA-Factory trains on every answer of this layout; use messages, swift or openai"
        raise RowError(
            "LAYOUT_CANNOT",
            "a turn with a loss weight",
            path=f"messages.{number}.weight",
            value=weight,
            hint=hint,
        )
    flag = loss_flags(message)
    if not calls:
        return {"from": _NAMES[message["role"]], "value": text} | flag
    if text:
        hint = "LLaMA-Factory would drop the text; move it to a turn of its own"
        raise RowError(
            "LAYOUT_CANNOT", "text beside a tool call", path=f"messages.{number}", value=text, hint=hint
        )
    values = [call_text(call) for call in calls]
    return {
        "from": "function_call",
        "value": values[0] if len(values) == 1 else f"[{','.join(values)}]",
    } | flag


def inverse(row: Row) -> Row:
    """Return turns with parts."""
    turns = [
        {"role": SPEAKERS[turn["from"]], "content": turn["value"]} | loss_flags(turn)
        for turn in row["conversations"]
    ]
    turns = joined_calls(turns, call="tool_call", answers=())
    if row.get("system"):
        turns = [{"role": "system", "content": row["system"]}, *turns]
    read = conversation(turns, listed(row), tags=True)
    back: Row = {"messages": read.messages, "images": read.media["image"]}
    back |= {f"{kind}s": read.media[kind] for kind in ("video", "audio") if read.media[kind]}
    definitions = tools(row.get("tools"))
    return back | ({"tools": definitions} if definitions else {})


def check(row: Row) -> None:
    """Raise `RowError` unless odd turns ask, even turns answer, and there are as many tags as files."""
    turns = row["conversations"]
    for number, turn in enumerate(turns):
        allowed = ("gpt", "function_call") if number % 2 else ("human", "observation")
        if turn["from"] not in allowed:
            path, hint = (
                f"conversations.{number}",
                "turns alternate: human or observation, then gpt or function_call",
            )
            raise RowError("ROLE_ORDER", f"{turn['from']} out of turn", path=path, value=turn, hint=hint)
    if len(turns) % 2:
        raise RowError("ROLE_ORDER", "the conversation ends without an answer", path="conversations")
    check_tag_counts([turn["value"] for turn in turns], row)


def extra_files(columns: dict[str, set[str]]) -> dict[str, bytes]:
    """Return `dataset_info.json`, with one entry a split file; it names only the columns that its rows have.

    Args:
        columns: Split -> keys that its rows have.
    """
    names = {"messages": "conversations", "system": "system", "tools": "tools"}
    names |= {kind: kind for kind in ("images", "videos", "audios")}
    entries = {
        f"dfk_{split}": {
            "file_name": f"{split}.jsonl",
            "formatting": "sharegpt",
            "columns": {name: key for name, key in names.items() if key in keys},
        }
        for split, keys in columns.items()
    }
    return {"dataset_info.json": msgspec.json.format(msgspec.json.encode(entries), indent=2) + b"\n"}

"""Write canonical turns as the plain text with media tags that several trainers read."""

from __future__ import annotations

import msgspec

from dfkdata.rows.reasoning import think_block
from dfkdata.rows.record import Row, RowError

TAGS = {"image": "<image>", "video": "<video>", "audio": "<audio>"}


def bare(row: Row) -> Row:
    """Return the canonical row as a layout of plain text can hold it: text parts joined, no ids, no meta."""
    turns = [_bare_turn(message) for message in row["messages"]]
    columns = {
        key: row[key] for key in ("images", "videos", "audios", "tools", "chat_template_kwargs") if key in row
    }
    return {"messages": turns} | columns


def _bare_turn(message: Row) -> Row:
    turn = {key: value for key, value in message.items() if key != "tool_call_id"}
    turn["content"] = _joined(message["content"])
    if "tool_calls" in turn:
        turn["tool_calls"] = [{k: v for k, v in call.items() if k != "id"} for call in turn["tool_calls"]]
    return turn


def _joined(parts: list[Row]) -> list[Row]:
    joined: list[Row] = []
    for part in parts:
        if joined and part["type"] == joined[-1]["type"] == "text":
            joined[-1] = {"type": "text", "text": joined[-1]["text"] + part["text"]}
        elif part["type"] != "text" or part["text"]:
            joined.append(part)
    return joined


def tagged(message: Row, number: int) -> str:
    """Return the turn as one text with media tags, its reasoning as a think block before it.

    Raises:
        RowError: If the text itself holds a tag, which the layout would read as a picture.
    """
    pieces = []
    parts = message["content"]
    if trace := message.get("reasoning_content"):
        parts = [{"type": "text", "text": think_block(trace)}, *parts]
    for part in parts:
        if part["type"] != "text":
            pieces.append(TAGS[part["type"]])
            continue
        for tag in TAGS.values() if "<" in part["text"] else ():
            if tag in part["text"]:
                path, hint = (
                    f"messages.{number}",
                    "this layout reads it as a picture; reword it or use another layout",
                )
                raise RowError(
                    "IMG_LITERAL", f"the text says {tag}", path=path, value=part["text"], hint=hint
                )
        pieces.append(part["text"])
    return "".join(pieces)


def media(row: Row) -> Row:
    """Return the media columns that are not empty: these layouts want no `images` in a row of text."""
    return {key: row[key] for key in ("images", "videos", "audios") if row.get(key)}


def check_tag_counts(texts: list[str], row: Row) -> None:
    """Raise `RowError` unless `texts` hold each kind of tag as often as the row has files of that kind."""
    if not any("<" in text for text in texts) and not media(row):
        return
    for kind, tag in TAGS.items():
        tags, files = sum(text.count(tag) for text in texts), row.get(f"{kind}s", [])
        if tags != len(files):
            raise RowError(
                "IMG_COUNT", f"{tags} times {tag} for {len(files)} files", path=f"{kind}s", value=files
            )


def check_no_template_options(row: Row, trainer: str) -> None:
    """Raise `RowError` if a row asks for options of the chat template, for which `trainer`'s layout has no place."""
    if options := row.get("chat_template_kwargs"):
        reason, hint = f"{trainer} takes no chat_template_kwargs", "use messages, swift or prompt_completion"
        raise RowError("LAYOUT_CANNOT", reason, path="chat_template_kwargs", value=options, hint=hint)


def call_text(call: Row) -> str:
    """Return a call as JSON text {"name", "arguments"}."""
    function = call["function"]
    return msgspec.json.encode({"name": function["name"], "arguments": function["arguments"]}).decode()

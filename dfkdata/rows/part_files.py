"""Read the files that parts of a turn name themselves, beside those that a row lists.

Guarantees:
- Files stand in the order of their parts: a part that names its file shows that one, and a bare placeholder the next
  of the row's list. Conversion, training, evaluation and data sets of rows share this rule.
- A list that repeats the files of the parts counts once. Any other listed file that no placeholder is left for is an
  error where parts name files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dfkdata.common.errors import DataError
from dfkdata.rows.record import RowError

PART_KINDS = {
    **{kind: kind for kind in ("image", "video", "audio")},
    "image_url": "image",
    "video_url": "video",
    "input_image": "image",
    "input_audio": "audio",
    "audio_url": "audio",
}
"""Type of a part that shows a file -> what it shows."""

COLUMNS = {"image": "images", "video": "videos", "audio": "audios"}
"""What a part shows -> the row's list of such files."""


def part_kind(part: Mapping[str, Any]) -> Any:
    """Return the type of a part; of one without it the first key that is a type, None if there is none."""
    return part.get("type") or next((key for key in ("text", *PART_KINDS) if key in part), None)


def own_file(part: Mapping[str, Any], kind: str) -> Any:
    """Return what a media part holds itself: a path, an address, a `data:` URI, bytes or a picture; None if it is bare.

    Args:
        part: A part of a turn.
        kind: Its type, a key of `PART_KINDS`.
    """
    names = (kind, PART_KINDS[kind], "path", "url", "base64", "data")
    value = next((part[key] for key in names if key in part and not _is_nothing(part[key])), None)
    if isinstance(value, Mapping):
        if isinstance(value.get("data"), str):
            return f"data:{PART_KINDS[kind]}/{value.get('format', 'octet-stream')};base64,{value['data']}"
        return value.get("url") or value.get("path") or value.get("bytes")
    return value


def _is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, str | bytes | Mapping | list | int) and not value)


def part_fault(part: Mapping[str, Any]) -> str | None:
    """Return why a part says two things, of which a template shows one; None if it says one."""
    kind = part_kind(part)
    if kind in _TEXTS:
        held = next((key for key in PART_KINDS if not _is_nothing(part.get(key))), None)
        return f"a part of text that holds a file, too, under {held!r}" if held else None
    text = part.get("text")
    return f"a part that shows {kind} and holds text, too" if isinstance(text, str) and text.strip() else None


_TEXTS = ("text", "input_text", "output_text")

PART_HINT = "write two parts, one for the text and one for the file"


def turn_files(turn: Mapping[str, Any]) -> str | None:
    """Return the key under which a turn, and not a part of it, holds files; None if it holds none."""
    return next((key for key in (*COLUMNS.values(), *COLUMNS) if not _is_nothing(turn.get(key))), None)


TURN_HINT = "name the files in parts of the turn, or in the row's own list"


def check_turn(message: dict[str, Any], number: int) -> None:
    """Refuse what a turn holds beside its content and its calls, and would lose. Raises `RowError`."""
    if not _LOST.isdisjoint(message):
        if key := turn_files(message):
            reason = f"a turn that holds files itself, under {key!r}"
            raise RowError(
                "PART_UNKNOWN", reason, path=f"messages.{number}.{key}", value=message[key], hint=TURN_HINT
            )
        if (call := message.get("function_call")) is not None:
            hint = 'write "tool_calls": [{"type": "function", "function": {"name", "arguments"}}], and tools'
            path = f"messages.{number}.function_call"
            raise RowError("TOOL_UNKNOWN", "a call in OpenAI's older form", path=path, value=call, hint=hint)


_LOST = frozenset((*COLUMNS, *COLUMNS.values(), "function_call"))


def with_part_files(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row whose files all stand in its lists and whose media parts are bare; the row itself if it is so.

    Args:
        row: A row of the messages layout.

    Raises:
        DataError: Files are listed that no placeholder is left for, a part holds both text and a file, or a turn holds
            files beside its parts; it names the row.
    """
    _check_turns(row)
    if not any(own_file(part, kind) is not None for part, kind in _media_parts(row["messages"])):
        return row
    waiting = {kind: iter(row.get(column) or ()) for kind, column in COLUMNS.items()}
    files: dict[str, list[Any]] = {kind: [] for kind in COLUMNS}
    for part, kind in _media_parts(row["messages"]):
        shown = PART_KINDS[kind]
        file = own_file(part, kind)
        files[shown] += (
            [file] if file is not None else [one for one in [next(waiting[shown], None)] if one is not None]
        )
    for kind, left in waiting.items():
        rest = [*left]
        if rest and not _is_same(rest, files[kind]):
            column, named = COLUMNS[kind], len(files[kind])
            raise DataError(
                f"row {row.get('id')}: parts of its turns name {kind} files themselves, and {column} lists {len(rest)}"
                f" more than the {named} {kind} parts show ({rest[0]!r:.80}); name each file once, in a part or in"
                f" {column}"
            )
    lists = {column: files[kind] for kind, column in COLUMNS.items() if files[kind] or column in row}
    return row | lists | {"messages": [_bare(turn) for turn in row["messages"]]}


def _check_turns(row: dict[str, Any]) -> None:
    for number, turn in enumerate(row["messages"]):
        if not _TURN_KEYS.isdisjoint(turn) and (key := turn_files(turn)):
            raise DataError(
                f"row {row.get('id')}: messages[{number}].{key}: files of a turn are not read; {TURN_HINT}"
            )
        content = turn.get("content")
        for part in content if isinstance(content, list) else ():
            is_odd = isinstance(part, Mapping) and (len(part) > 2 or "type" not in part)
            if is_odd and (fault := part_fault(part)):
                raise DataError(f"row {row.get('id')}: messages[{number}].content: {fault}; {PART_HINT}")


_TURN_KEYS = frozenset((*COLUMNS, *COLUMNS.values()))


def _is_same(listed: list[Any], own: list[Any]) -> bool:
    """Return whether two lists hold the same files; a picture in memory is the same only as itself."""
    pairs = zip(listed, own, strict=False)
    same = all(one is other or (isinstance(one, str | bytes) and one == other) for one, other in pairs)
    return same and len(listed) == len(own)


def _media_parts(messages: list[Any]) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Yield each part that shows a file, with its type."""
    for turn in messages:
        content = turn.get("content")
        if not isinstance(content, list):
            continue
        for part in content:
            if isinstance(part, Mapping) and part.get("type") != "text":
                kind = part_kind(part)
                if isinstance(kind, str) and kind in PART_KINDS:
                    yield part, kind


def _bare(turn: Any) -> Any:
    content = turn.get("content")
    if not isinstance(content, list):
        return turn
    return turn | {"content": [_bare_part(part) for part in content]}


def _bare_part(part: Any) -> Any:
    kind = part_kind(part) if isinstance(part, Mapping) else None
    return {"type": PART_KINDS[kind]} if isinstance(kind, str) and kind in PART_KINDS else part

"""Make the record of a row that carries its own conversation, in whatever way the format spells turns."""

from __future__ import annotations

from msgspec.structs import replace

from dfkdata.formats import Row, group_key, key
from dfkdata.formats._fields import GROUP_KEYS
from dfkdata.rows.chat_turns import Conversation, as_json, conversation, listed, tools
from dfkdata.rows.filled_nulls import without_filled_nulls
from dfkdata.rows.loss_weight import ROW_FLAGS, row_flags
from dfkdata.rows.record import Record, RowError


def conversation_record(row: Row, source: str, turns: Conversation, *, keep: tuple[str, ...] = ()) -> Record:
    """Return the record of a row with turns; a canonical row's meta gives its group, gold and facts.

    Args:
        row: The raw row.
        source: Its "file:line".
        turns: Its canonical turns.
        keep: Columns that go into `meta` as they are.

    Raises:
        RowError: If tools or meta cannot be read.
    """
    definitions = tools(row["tools"]) if "tools" in row else None
    messages, dropped = turns.messages, list[RowError]()
    if not turns.is_text:
        messages, dropped = without_filled_nulls(messages, definitions)
    if not ROW_FLAGS.isdisjoint(row):
        dropped = [*dropped, *row_flags(row)]
    record = Record(
        id="",
        group="",
        source=source,
        messages=messages,
        images=tuple(turns.media["image"]),
        videos=tuple(turns.media["video"]),
        audios=tuple(turns.media["audio"]),
        tools=definitions,
        warnings=(*turns.warnings, *dropped),
    )
    return record if _BESIDE.isdisjoint(row) and row.keys().isdisjoint(keep) else _named(row, record, keep)


def _named(row: Row, record: Record, keep: tuple[str, ...]) -> Record:
    """Return the record with what other columns than turns, files and tools say."""
    name = key(row, "id")
    meta = _object(row, "meta")
    facts = {name: value for name, value in (meta or {}).items() if name not in ("group", "source", "gold")}
    facts |= {name: row[name] for name in keep if row.get(name) is not None}
    gold = (meta or {}).get("gold")
    return replace(
        record,
        id=name,
        keyed=bool(name),
        group=str((meta or {}).get("group") or group_key(row if meta is None else row | {"meta": meta})),
        chat_template_kwargs=template_options(row),
        gold=gold if isinstance(gold, dict) else None,
        meta=facts,
    )


_BESIDE = frozenset(("id", "meta", "chat_template_kwargs", *GROUP_KEYS))


def template_options(row: Row) -> Row | None:
    """Return what a row says to the chat template, without nulls; None for nothing. Raises `RowError`."""
    options = _object(row, "chat_template_kwargs") or {}
    return {key: value for key, value in options.items() if value is not None} or None


def _object(row: Row, column: str) -> Row | None:
    """Return an object, which columnar files hold as JSON text."""
    value = row.get(column)
    if isinstance(value, str):
        value = as_json(value, "NOT_OBJECT", column) if value else None
    if value is not None and not isinstance(value, dict):
        raise RowError("NOT_OBJECT", f"{column} is no object", path=column, value=value)
    return value


def messages_record(row: Row, source: str) -> Record:
    """Return the record of a row in the layout that the `messages` format describes."""
    return conversation_record(row, source, conversation(row.get("messages"), listed(row), tags=False))

"""A row that carries its own conversation -> record. Shared by the formats that differ only in how turns are
spelled."""

from __future__ import annotations

from dfkdata.formats import Row, group_key, key
from dfkdata.rows.chat_turns import Conversation, as_json, conversation, listed, tools
from dfkdata.rows.record import Record, RowError


def conversation_record(row: Row, source: str, found: Conversation, *, keep: tuple[str, ...] = ()) -> Record:
    """The record of a row with turns. keep: columns that go into `meta` as they are.

    A canonical row's own meta comes back: its group, gold and facts."""
    definitions = tools(row.get("tools"))
    name = key(row, "id")
    meta = row.get("meta")
    if isinstance(meta, str):  # columnar files hold it as JSON text
        meta = as_json(meta, "NOT_OBJECT", "meta") if meta else None
    if meta is not None and not isinstance(meta, dict):
        raise RowError("NOT_OBJECT", "meta is no object", path="meta", value=meta)
    facts = {name: value for name, value in (meta or {}).items() if name not in ("group", "source", "gold")}
    facts |= {name: row[name] for name in keep if row.get(name) is not None}
    gold = (meta or {}).get("gold")
    return Record(
        id=name,
        keyed=bool(name),
        group=str((meta or {}).get("group") or group_key(row if meta is None else row | {"meta": meta})),
        source=source,
        messages=found.messages,
        images=tuple(found.media["image"]),
        videos=tuple(found.media["video"]),
        audios=tuple(found.media["audio"]),
        tools=definitions,
        gold=gold if isinstance(gold, dict) else None,
        meta=facts,
        warnings=found.warnings,
    )


def messages_record(row: Row, source: str) -> Record:
    """Return the record of a row in the layout that the `messages` format describes."""
    return conversation_record(row, source, conversation(row.get("messages"), listed(row), tags=False))

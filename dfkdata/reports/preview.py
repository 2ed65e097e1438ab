"""Show people rows as turns, and what a schema asks for, before they convert."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from dfkdata import schemas, sources
from dfkdata.common import plugins
from dfkdata.conversion import detection, reader
from dfkdata.conversion.label_map import TargetWriter, read_labels, with_labels
from dfkdata.rows.record import Record, Reject, RowError
from dfkdata.validation.conversation import check_control_tokens, check_conversation
from dfkdata.validation.gold import bind_gold
from dfkdata.validation.rules import RuleReporter


def preview(
    input: sources.Input,
    format: str,
    *,
    schema: str | None = None,
    variant: str | None = None,
    images: str | Path | None = None,
    options: dict[str, Any] | None = None,
    delimiter: str | None = None,
    encoding: str | None = None,
    sheet: str | None = None,
    header_row: int | None = None,
    labels: str | Path | dict[Any, Any] | None = None,
    question: str | None = None,
) -> Iterator[str]:
    """Yield each row as text: its place, its turns and its images, or why it is a reject.

    Args:
        input: What to read, as in `dfkdata.read`.
        format: Its raw format; the first text says what "auto" took.
        schema: The output schema; None for the format's own.
        variant: Variant of the schema.
        images: Folder where image names start.
        options: The format's own options.
        delimiter: As in `dfkdata.read`.
        encoding: As in `dfkdata.read`.
        sheet: As in `dfkdata.read`.
        header_row: As in `dfkdata.read`.
        question: The question of rows that have none.
        labels: Spelling -> label, or a YAML file of that. Raw spellings are shown as labels.

    Raises:
        ConfigError: A name is unknown, or "auto" finds no format or two.
    """
    head = ""
    if detection.is_auto(format):
        tables = sources.TableOptions(encoding, delimiter, sheet, header_row)
        input, found = detection.detected(input, format, tables=tables)
        format = found.name
        head = f"read as {format}: {found.why}\n"
    module = plugins.load(detection.FAMILY, format)
    name = schema or module.SCHEMA
    if variant is None and schema is None:
        variant = getattr(module, "VARIANT", None)
    spelling = read_labels(labels)
    loaded = with_labels(schemas.load(name, variant) if name else None, spelling)
    store = TemporaryDirectory(prefix="dfk-preview-")
    items = reader.read(
        input,
        format,
        images=images,
        store=store.name,
        options=(options or {}) | ({} if question is None else {"ask": question}),
        delimiter=delimiter,
        encoding=encoding,
        sheet=sheet,
        header_row=header_row,
        schema=loaded,
    )
    return _all_shown(items, loaded, TargetWriter(loaded, spelling), store, head)


def _all_shown(
    items: Iterator[Record | Reject],
    schema: schemas.Schema | None,
    target: TargetWriter,
    store: TemporaryDirectory[str],
    head: str,
) -> Iterator[str]:
    """Yield the texts, the first behind `head`; embedded images and archives lie in `store` meanwhile."""
    with store as folder:
        for item in items:
            yield head + _shown(item, schema, target).replace(folder + os.sep, "embedded ")
            head = ""


def _shown(item: Record | Reject, schema: schemas.Schema | None, target: TargetWriter) -> str:
    if isinstance(item, Record):
        report = RuleReporter().for_row(item.source)
        try:
            record = bind_gold(item, schema, report) if schema is not None else item
            row = target.row(record, item.gold)
            check_conversation(row, report)
            check_control_tokens(msgspec.json.encode(row["messages"]), report)
        except RowError as error:
            item = error.reject(item.source, None)
        else:
            return _turns(row, item.source)
    hint = f"\n  → {item.hint}" if item.hint else ""
    return f"── {item.source}  {item.code}: {item.reason} {item.excerpt}{hint}"


def _turns(row: dict[str, Any], source: str) -> str:
    images = iter(row["images"])
    lines = [f"── {source}  id {row['id']}  group {row['meta']['group']}"]
    for message in row["messages"]:
        parts = [_part(part, images) for part in message["content"]]
        parts += [msgspec.json.encode(call["function"]).decode() for call in message.get("tool_calls", ())]
        lines.append(f"{message['role']}: " + "".join(parts).replace("\n", "\n    "))
    return "\n".join(lines)


def _part(part: dict[str, Any], images: Iterator[str]) -> str:
    if part["type"] == "text":
        return str(part["text"])
    return f"[{part['type']} {next(images, '?') if part['type'] == 'image' else ''}]"


def schema_facts(name: str, variant: str | None) -> dict[str, Any]:
    """Return a schema as plain data: variants, form, roles, JSON Schema and tools."""
    loaded = schemas.load(name, variant)
    variants = plugins.load(schemas.FAMILY, name).VARIANTS
    return {
        "name": loaded.name,
        "variant": loaded.variant,
        "variants": [*variants],
        "form": type(loaded.form).__name__,
        "roles": {field: type(role).__name__ for field, role in loaded.roles.items()},
        "json_schema": loaded.json_schema,
        "tools": loaded.tools,
    }

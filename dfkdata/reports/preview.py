"""Show people rows as turns, and what a schema asks for, before they convert."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, TypedDict, Unpack

import msgspec

from dfkdata import schemas, sources
from dfkdata.common import plugins
from dfkdata.conversion import detection, reader
from dfkdata.conversion.label_map import TargetWriter, read_labels, with_labels
from dfkdata.pages import Look
from dfkdata.pages.redaction import mask
from dfkdata.reports.row_part import PAGE, rows_part, script
from dfkdata.reports.row_text import row_texts
from dfkdata.rows.record import Record, Reject, RowError
from dfkdata.validation.conversation import check_control_tokens, check_conversation
from dfkdata.validation.gold import bind_gold
from dfkdata.validation.rules import RuleReporter


class PreviewOptions(TypedDict, total=False):
    """The options of `preview`."""

    schema: str | None
    variant: str | None
    images: str | Path | None
    options: dict[str, Any] | None
    delimiter: str | None
    encoding: str | None
    sheet: str | None
    header_row: int | None
    labels: str | Path | dict[Any, Any] | None
    question: str | None


class _Opened(NamedTuple):
    """What a preview reads; embedded images and archives lie in `store` meanwhile."""

    items: Iterator[Record | Reject]
    schema: schemas.Schema | None
    target: TargetWriter
    store: TemporaryDirectory[str]
    head: str


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
    redact: bool = False,
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
        redact: Whether personal data is masked, see `dfkdata.pages.redaction`.
        labels: Spelling -> label, or a YAML file of that. Raw spellings are shown as labels.

    Raises:
        ConfigError: A name is unknown, or "auto" finds no format or two.
    """
    opened = _opened(
        input, format, schema=schema, variant=variant, images=images, options=options, delimiter=delimiter,
        encoding=encoding, sheet=sheet, header_row=header_row, labels=labels, question=question,
    )  # fmt: skip
    return (mask(text) for text in _all_shown(opened)) if redact else _all_shown(opened)


def preview_page(
    input: sources.Input,
    format: str,
    path: Path,
    rows: int,
    *,
    lang: str = "en",
    redact: bool = False,
    **options: Unpack[PreviewOptions],
) -> Path:
    """Write the first rows as a page, with their pictures.

    Args:
        input: What to read, as in `dfkdata.read`.
        format: Its raw format, as in `preview`.
        path: HTML file to write.
        rows: How many rows to show.
        lang: Language of the page's words, "en" or "id".
        redact: Whether personal data is masked and pictures are blurred.
        **options: As in `preview`.

    Returns:
        `path`.

    Raises:
        ConfigError: A name is unknown, or "auto" finds no format or two.
    """
    opened = _opened(input, format, **options)
    look = Look(lang, redact=redact)
    with opened.store:
        items = [_row(item, opened) for item in islice(opened.items, rows)]
        good = [("", row) for row in items if isinstance(row, dict)]
        bad = [[item.source, item.code, item.reason, item.hint] for item in items if isinstance(item, Reject)]
        name = Path(str(input)).name if isinstance(input, str | Path) else "memory"
        body = look.render(
            "dfkdata.reports", "preview.html", title=look.w("data.preview", name=name), head=opened.head,
            line=look.w("data.preview_head", n=len(items), bad=len(bad)), bad=bad, page=PAGE,
            rows=rows_part(good, row_texts([row for _, row in good])),
        )  # fmt: skip
    title = look.w("data.preview", name=name)
    path.write_text(look.document(title, body, scripts=[script()]), encoding="utf-8")
    return path


def _opened(
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
) -> _Opened:
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
    return _Opened(items, loaded, TargetWriter(loaded, spelling), store, head)


def _all_shown(opened: _Opened) -> Iterator[str]:
    """Yield the texts, the first behind `head`."""
    head = opened.head
    with opened.store as folder:
        for item in opened.items:
            yield head + _shown(item, opened).replace(folder + os.sep, "embedded ")
            head = ""


def _row(item: Record | Reject, opened: _Opened) -> dict[str, Any] | Reject:
    """Return the row that is trained on, or why there is none."""
    if isinstance(item, Reject):
        return item
    report = RuleReporter().for_row(item.source)
    try:
        record = bind_gold(item, opened.schema, report) if opened.schema is not None else item
        row = opened.target.row(record, item.gold)
        check_conversation(row, report)
        check_control_tokens(msgspec.json.encode(row["messages"]), report)
    except RowError as error:
        return error.reject(item.source, None)
    return row


def _shown(item: Record | Reject, opened: _Opened) -> str:
    row = _row(item, opened)
    if isinstance(row, dict):
        return _turns(row, item.source)
    hint = f"\n  → {row.hint}" if row.hint else ""
    return f"── {row.source}  {row.code}: {row.reason} {row.excerpt}{hint}"


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

"""The shape that every raw format is read into: a record, or a reject with its reason.

How it works. A reader yields a `Record` or a `Reject` for every raw row, and nothing else: it may not drop a
row. Both are light frozen structs, because millions of them flow; what users write (schemas, configs) is
pydantic. `RowError` is how a helper deep inside a reader or a check says "this row cannot be used". It never
leaves the package: conversion turns it into a `Reject` with file, line and the whole raw row."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

Row = dict[str, Any]
"""A row as a source, a layout or a trainer holds it: column name -> value."""


class Record(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Hold one usable raw row.

    Attributes:
        id: A stable name, made of the source's own key or of the content, never of the row number or of names of
            files. A format may leave it (and the group) empty: then it is made of the turns, or of fields and
            gold, and of what the files hold.
        group: Rows that must stay in one split share it (link, post id, case id, picture); empty for a row
            that stands alone, which goes by its id.
        source: "file:line" of the raw row.
        fields: The prompt's inputs by name, text only (dfk_label: title, text; caption: caption).
        images: Absolute paths, in the order in which the prompt shows them.
        videos: The same for video files.
        audios: The same for audio files.
        gold: The answer as the schema's dict; None if the row is asked but not trained on.
        messages: The turns of a raw row that carries its own conversation; then `fields` and `gold` may be
            empty.
        tools: The tool definitions of such a row.
        chat_template_kwargs: Options of the chat template that such a row asks for, such as enable_thinking.
        meta: Facts to keep that no trainer needs (raw label, link, token counts).
        keyed: Whether the id is the source's own key, so that two rows of one id are a fault of the source.
        split: The split that the source itself (or the caller) fixed; None leaves it to the splitter.
        warnings: What the format found wrong with a row that can be used; the policies of these rules decide.

    Example:
        >>> from dfkdata import Record
        >>> record = Record(id="p1", group="post-7", source="posts.csv:2", fields={"title": "Banjir"})
        >>> record.fields["title"], record.images, record.gold
        ('Banjir', (), None)
    """

    id: str
    group: str
    source: str
    fields: dict[str, str] = {}
    images: tuple[str, ...] = ()
    videos: tuple[str, ...] = ()
    audios: tuple[str, ...] = ()
    gold: dict[str, Any] | None = None
    messages: list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    meta: dict[str, Any] = {}
    keyed: bool = False
    split: str | None = None
    warnings: tuple[RowError, ...] = ()


class Reject(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Hold one raw row that cannot be used, with everything needed to repair it and feed it back.

    Attributes:
        source: "file:line" of the raw row.
        code: The rule's name (LABEL_UNKNOWN, IMG_MISSING, ...).
        reason: What is wrong.
        path: The JSON path or column of the value at fault.
        excerpt: That value, shortened.
        hint: The way out.
        raw: The whole raw row.

    Example:
        >>> from dfkdata import Reject
        >>> reject = Reject(source="posts.csv:3", code="FIELD_EMPTY", reason="label is missing", path="label")
        >>> f"{reject.source}: {reject.code} {reject.reason}"
        'posts.csv:3: FIELD_EMPTY label is missing'
    """

    source: str
    code: str
    reason: str
    path: str = ""
    excerpt: str = ""
    hint: str = ""
    raw: Any = None


EXCERPT_CHARS = 120


class RowError(Exception):
    """Say why one row cannot be used; conversion turns it into a `Reject`.

    Args:
        code: The rule's name, one of `dfkdata.validation.rules.RULES`.
        reason: What is wrong, as a clause.
        path: The JSON path or column of the value at fault.
        value: That value; the reject shows its beginning.
        hint: The way out.
        partner: "file:line" of another row that the reason is about.

    Example:
        >>> from dfkdata.formats import RowError
        >>> error = RowError("FIELD_EMPTY", "stars is missing", path="stars", hint="give each review its stars")
        >>> error.reject("reviews.jsonl:3", {"body": "Nice."}).hint
        'give each review its stars'
    """

    def __init__(
        self, code: str, reason: str, *, path: str = "", value: Any = "", hint: str = "", partner: str = ""
    ) -> None:
        super().__init__(reason)
        self.code, self.reason, self.path, self.value, self.hint = code, reason, path, value, hint
        self.partner = partner

    def reject(self, source: str, raw: Any) -> Reject:
        """Return the value that is counted, shown and written to the quarantine file."""
        return Reject(
            source=source,
            code=self.code,
            reason=self.reason,
            path=self.path,
            excerpt=shorten(self.value),
            hint=self.hint,
            raw=raw,
        )


def shorten(value: Any) -> str:
    """Return `value` as one line of at most `EXCERPT_CHARS` characters."""
    text = value if isinstance(value, str) else repr(value)
    text = " ".join(text.split())
    return text if len(text) <= EXCERPT_CHARS else text[: EXCERPT_CHARS - 1] + "…"


class Scaffold(NamedTuple):
    """What an adapter must be asked with: system text and tool definitions."""

    system: str
    tools: list[dict[str, Any]]

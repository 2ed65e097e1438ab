"""The one shape that every raw format is read into.

A reader yields a `Record` or a `Reject` for every raw row, and nothing else: it may not drop a row. Both are
light frozen structs, because millions of them flow; what users write (schemas, configs) is pydantic.

`Fault` is how a helper deep inside a reader or a check says "this row cannot be used". It never leaves the
package: `reader` and `pipeline` turn it into a `Reject` with file, line and the whole raw row."""

from __future__ import annotations

from typing import Any

import msgspec

Row = dict[str, Any]
"""A row as a source, a layout or a trainer holds it: column name -> value."""


class Record(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One usable raw row.

    id: stable name from the source's own key or from content, never from the row number. A format may leave
    it (and the group) empty for a row that carries its own turns: then it is made of those.
    group: rows that must stay on one side of a split share it (link, post id, case id, picture); empty for a
    row that stands alone, which goes by its id.
    source: "file:line" of the raw row.
    fields: the prompt's inputs by name, text only (dfk_label: title, text; caption: caption).
    images: absolute paths, in the order in which the prompt shows them. videos, audios: the same.
    gold: the answer as the schema's dict; None where the row is asked but not taught.
    messages, tools: set where the raw row carries its own conversation; then `fields` and `gold` may be
    empty. meta: facts to keep that no trainer needs (raw label, link, token counts).
    keyed: the id is the source's own key, so two rows with one id are an error of the source.
    split: the side that the source itself (or the caller) fixed; None leaves it to the split rule.
    doubts: what the format found wrong with a row that could be used; the policies of these rules decide."""

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
    meta: dict[str, Any] = {}
    keyed: bool = False
    split: str | None = None
    doubts: tuple[Fault, ...] = ()


class Reject(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One raw row that cannot be used, with everything needed to repair it and feed it back.

    source: "file:line". code: the rule's name (LABEL_UNKNOWN, IMG_MISSING, ...). path: JSON path or column of
    the value at fault. excerpt: that value, shortened. hint: the way out. raw: the whole raw row."""

    source: str
    code: str
    reason: str
    path: str = ""
    excerpt: str = ""
    hint: str = ""
    raw: Any = None


EXCERPT_CHARS = 120


class Fault(Exception):
    """Why one row cannot be used; becomes a `Reject` before it leaves the package."""

    def __init__(self, code: str, reason: str, *, path: str = "", value: Any = "", hint: str = "") -> None:
        super().__init__(reason)
        self.code, self.reason, self.path, self.value, self.hint = code, reason, path, value, hint

    def reject(self, source: str, raw: Any) -> Reject:
        """The value that is counted, shown and written to the quarantine file."""
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
    """`value` as one line of at most `EXCERPT_CHARS` characters."""
    text = value if isinstance(value, str) else repr(value)
    text = " ".join(text.split())
    return text if len(text) <= EXCERPT_CHARS else text[: EXCERPT_CHARS - 1] + "…"

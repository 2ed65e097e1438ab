"""FAMILY: one raw layout a file.

A member turns one raw row into one record; files, encodings and image paths are not its business:

    SCHEMA: str | None              the output schema by default; None where rows carry their answers
    COLUMNS: tuple[frozenset, ...]  a table has all columns of one of these sets, else it is another format
    class Options(Config)           what a user may choose; every field has a default
    def record(row, source, options) -> Record      raises `RowError` for a row that cannot be used

`record` is pure. Its group is what the row itself says (`group_key`: link, post id, case id) or, where a
format knows one, another key of the source; left empty, `reader` takes the hash of the row's first picture,
else the name of its first video or audio, else the row's id. Image names go into `Record.images` as the row
has them (or as a `data:` URI for embedded bytes); `reader` resolves them inside the declared roots."""

from __future__ import annotations

from dfkdata.formats._fields import group_key, key, need, path_list, text
from dfkdata.rows.record import Record, Row, RowError

__all__ = ["Record", "Row", "RowError", "group_key", "key", "need", "path_list", "text"]

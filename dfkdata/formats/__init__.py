"""Raw layouts: one file a format turns one raw row into one record.

FAMILY. A member is named as users call it (`--from NAME`) and defines:

    SCHEMA: str | None              the output schema by default; None if rows carry their answers
    COLUMNS: tuple[frozenset, ...]  a table has all columns of one of these sets, else it is another format
    class Options(Config)           what a user may choose; every field has a default
    def record(row, source, options) -> Record      raises `RowError` for a row that cannot be used
    VARIANT: str                    optional: the schema's variant by default
    def missing(row) -> str         optional: what to do if a picture is not where this format looks for it
    def detect(row) -> Likeness | None      optional: how much a row looks like this format, for `--from auto`;
                                            without it, a row that has all columns of a set is likely

    def detect_files(names) -> Likeness | None  optional: the same for the names of an input's first files
    FILES: tuple[str, ...]          optional: how its rows lie in files; the first that fits is read
        "rows"      one after another in files (what counts if there is no FILES)
        "splits"    the same, in files and folders that are named as splits, with pictures beside them
        "pictures"  a folder of pictures: {"image", "label": the name of their folder}, or rows of metadata.*
        "samples"   WebDataset tars: {"__key__", "jpg": bytes, "txt", "json", ...}
    def expand(row) -> Iterator[Row]        optional: the rows that one raw document holds

Nothing else knows what a format looks like: `--from auto` asks the members, and so does the message about a
format that does not fit.

Files, encodings and image paths are not its business, and `record` does no I/O. The record's group is what
the row itself says (`group_key`: link, post id, case id) or another key of the source that the format knows.
If it stays empty, the reader takes the hash of the row's first picture, else that of its first video or audio,
else the row's id. A row without a key of its own leaves its id empty, and the reader makes one of the content: of
what files hold, not of their names, since two folders may hold different files of one name. Image names go into
`Record.images` as the row has them (or as a `data:` URI for embedded bytes); the reader resolves them inside the
declared roots. A complete member:

    from dfkdata.common.config import Config
    from dfkdata.formats import Record, Row, group_key, key, need

    SCHEMA = "answer"
    COLUMNS = (frozenset({"frage", "antwort"}),)


    class Options(Config):
        capitals: bool = False


    def record(row: Row, source: str, options: Options) -> Record:
        question = need(row, "frage", hint="write the question")
        return Record(
            id=key(row, "id"),
            group=group_key(row),
            source=source,
            fields={"question": question.upper() if options.capitals else question},
            gold={"answer": need(row, "antwort")},
        )
"""

from __future__ import annotations

from dfkdata.formats._fields import group_key, key, label, need, text
from dfkdata.formats._likeness import Fit, Likeness
from dfkdata.formats._likeness import likeness as likeness
from dfkdata.rows.file_names import path_list as path_list
from dfkdata.rows.record import Record, Row, RowError

#: Names that every member defines.
REQUIRED = ("SCHEMA", "COLUMNS", "Options", "record")

__all__ = ["Fit", "Likeness", "Record", "Row", "RowError", "group_key", "key", "label", "need", "text"]

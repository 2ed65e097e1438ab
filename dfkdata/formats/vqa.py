"""Questions about images with free answers: question, image, answer; columns can be named.

    {"question": "...", "image_id": path or bytes, "answer": "...", "case_id"?: rows of one case share a
    group, else rows of one picture}

An image may be a path, raw bytes, a `data:` URI, or {"bytes", "path"} as image columns of Parquet files hold
it. The prompt has the question first, then the image. `--question` asks rows without a question of their own, such
as pictures with captions (`-o answer=caption`)."""

from __future__ import annotations

from dfkdata.common.config import Config
from dfkdata.common.hashing import content_id
from dfkdata.formats import Fit, Likeness, Row, group_key, key, need, text
from dfkdata.rows.chat_turns import file_name
from dfkdata.rows.record import Record

SCHEMA: str | None = "answer"
COLUMNS = ()  # users name the columns, and a row that lacks one is rejected by name


class Options(Config):
    """question, answer, image, group: the columns; of several image columns the first present counts.
    ask: the question of rows that have none (`--question`)."""

    question: str = "question"
    answer: str = "answer"
    image: tuple[str, ...] | str = ("image", "image_id", "images")
    group: str = "case_id"
    ask: str = ""


def detect(row: Row) -> Likeness | None:
    """Return how much a row looks like a question about a picture."""
    image = next((name for name in Options().image if row.get(name) is not None), None)
    if image is None or not all(isinstance(row.get(name), str) for name in ("question", "answer")):
        return None
    return Likeness(Fit.LIKELY, f"columns question, {image}, answer")


def record(row: Row, source: str, options: Options) -> Record:
    """Return one question; an empty question or answer, or an unreadable image, raises `RowError`."""
    question = text(row, options.question) or options.ask or need(row, options.question)
    answer = need(row, options.answer)
    images = _images(row, options)
    group = key(row, options.group) or group_key(row)
    name = key(row, "id")
    content = content_id(question, answer, *images)
    return Record(
        id=name or content,
        keyed=bool(name),
        group=group or ("" if images else content_id(question)),
        source=source,
        fields={"question": question},
        images=images,
        gold={"answer": answer},
    )


def _images(row: Row, options: Options) -> tuple[str, ...]:
    names = (options.image,) if isinstance(options.image, str) else options.image
    column = next((name for name in names if row.get(name) is not None), None)
    if column is None:
        return ()
    value = row[column]
    return tuple(file_name(item, column) for item in (value if isinstance(value, list) else [value]))

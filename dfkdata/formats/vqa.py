"""Questions about images with free answers: question, image, answer; columns can be named.

    {"question": "...", "image_id": path or bytes, "answer": "...", "videos"?, "audios"?: paths,
    "case_id"?: rows of one case share a group, else rows of one picture}

An image may be a path, raw bytes, a `data:` URI, or {"bytes", "path"} as image columns of Parquet files hold
it. The prompt has the question first, then images, videos and audio. `--question` asks rows without a question of
their own, such as pictures with captions: their answer is `answer`, else `caption`, else `text`, unless a label
stands beside."""

from __future__ import annotations

from dfkdata.common.config import Config
from dfkdata.common.hashing import content_id
from dfkdata.formats import Fit, Likeness, Row, group_key, key, need, text
from dfkdata.rows.file_names import file_names
from dfkdata.rows.record import Record

SCHEMA: str | None = "answer"
COLUMNS = ()  # users name the columns, and a row that lacks one is rejected by name


_TELLING = {
    "label",
    "labels",
    "gold",
    "instruction",
    "prompt",
    "query",
    "messages",
    "conversations",
    "image_id",
}


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
    options = Options()
    image = next((name for name in options.image if row.get(name) is not None), None)
    answer = _answer_column(row, options)
    if image is None or not isinstance(row.get(answer), str) or "gold" in row:
        return None
    if isinstance(row.get("question"), str):
        return Likeness(Fit.LIKELY, f"columns question, {image}, {answer}")
    return Likeness(Fit.LIKELY, f"columns {image}, {answer} and no question") if answer != "answer" else None


def record(row: Row, source: str, options: Options) -> Record:
    """Return one question; an empty question or answer, or an unreadable image, raises `RowError`."""
    hint = (
        ""
        if options.question in row
        else "name its column with -o question=, or give one --question for all rows"
    )
    question = text(row, options.question) or options.ask or need(row, options.question, hint=hint)
    answer = need(row, _answer_column(row, options))
    images = _images(row, options)
    videos, audios = _files(row, ("videos", "video")), _files(row, ("audios", "audio"))
    group = key(row, options.group) or group_key(row)
    name = key(row, "id")
    has_files = bool(images or videos or audios)
    return Record(
        id=name or ("" if has_files else content_id(question, answer)),
        keyed=bool(name),
        group=group or ("" if has_files else content_id(question)),
        source=source,
        fields={"question": question},
        images=images,
        videos=videos,
        audios=audios,
        gold={"answer": answer},
    )


def _answer_column(row: Row, options: Options) -> str:
    """Return the column of the answer; one of other names counts only where nothing else is asked or told."""
    if options.answer in row or options.question in row or not _TELLING.isdisjoint(row):
        return options.answer
    return next((name for name in ("caption", "text") if row.get(name)), options.answer)


def _images(row: Row, options: Options) -> tuple[str, ...]:
    return _files(row, (options.image,) if isinstance(options.image, str) else options.image)


def _files(row: Row, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the files under the first of these columns that is there."""
    column = next((name for name in names if row.get(name) is not None), None)
    return file_names(row[column], column) if column is not None else ()

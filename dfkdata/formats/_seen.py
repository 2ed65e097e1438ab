"""Make the record of a picture, or a text, with a short answer; a question may be the same for all rows."""

from __future__ import annotations

from typing import Any

from dfkdata.common.config import Config
from dfkdata.common.hashing import content_id
from dfkdata.rows.record import Record, RowError


class Options(Config):
    """ask: the question of rows that have none (`--question`). field: the schema's field for the answer."""

    ask: str = ""
    field: str = "answer"


def seen(
    source: str,
    *,
    images: tuple[str, ...],
    videos: tuple[str, ...] = (),
    audios: tuple[str, ...] = (),
    question: str,
    answer: str,
    field: str,
    text: str = "",
    key: str = "",
    group: str = "",
    meta: dict[str, Any] | None = None,
    warnings: tuple[RowError, ...] = (),
) -> Record:
    """Return the record of an answer about pictures, a text, or both.

    Args:
        source: "file:line" of the row.
        images: Its pictures.
        videos: Its videos.
        audios: Its audio files.
        question: What is asked; empty asks with the pictures alone.
        answer: The answer.
        field: The schema's field that the answer is.
        text: A text that the question is about; it stands behind the question.
        key: The source's own key.
        group: Rows of one group stay in one split.
        meta: Facts to keep.
        warnings: What is wrong with a row that can be used.

    Raises:
        RowError: There is nothing to answer about.
    """
    asked = "\n\n".join(part for part in (question, text) if part)
    files = (*images, *videos, *audios)
    if not files and not asked:
        hint = "name the column of the picture or of the text"
        raise RowError("EMPTY_USER", "neither a picture nor a text", path="image", hint=hint)
    return Record(
        id=key or ("" if files else content_id(asked, answer)),
        keyed=bool(key),
        group=group or ("" if files else content_id(asked)),
        source=source,
        fields={"question": asked} | ({"text": text} if text else {}),
        images=images,
        videos=videos,
        audios=audios,
        gold={field: answer},
        meta=meta or {},
        warnings=warnings,
    )


def first_text(row: dict[str, Any], names: tuple[str, ...]) -> tuple[str, str]:
    """Return the first of these columns that holds text or a number, and its text; two empty texts for none."""
    for name in names:
        value = row.get(name)
        if isinstance(value, str) and value.strip():
            return name, value.strip()
        if isinstance(value, int | float) and not isinstance(value, bool):
            return name, str(int(value)) if isinstance(value, int) or value.is_integer() else str(value)
    return "", ""

"""WebDataset tars: files of one key are one sample.

    shard-000.tar: 000001.jpg, 000001.txt, 000001.json, 000002.jpg, ...

The input is a tar, a folder of shards, or a pattern. Pictures of a sample come in the order of their names and
are written to `media/`. The answer is the first of `answer` that is filled: a text (txt, caption, cls) or a key
of the JSON, written `json.caption`. A question is `json.question`, else `--question`. `train-000.tar` and
`val-000.tar` give the splits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from dfkdata.common import data_uri
from dfkdata.formats import Fit, Likeness, Record, Row, RowError, _seen

SCHEMA: str | None = "answer"
COLUMNS = ()  # samples are no tables
FILES = ("samples",)
_PICTURES = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff")


class Options(_seen.Options):
    """ask: the question of rows that have none (`--question`). field: the schema's field for the answer.
    answer, question: fields of a sample, or keys of its JSON; of several the first that is filled counts."""

    answer: tuple[str, ...] | str = (
        *("txt", "text", "caption", "cls"),
        *("json.answer", "json.caption", "json.text", "json.label", "json.cls"),
    )
    question: tuple[str, ...] | str = ("json.question", "json.prompt")


def detect(row: Row) -> Likeness | None:
    """Return how much a row looks like a sample."""
    return Likeness(Fit.MARKED, "samples with a key") if "__key__" in row else None


def detect_files(names: Sequence[str]) -> Likeness | None:
    """Return how much the names in a tar look like samples: pictures with texts of the same key."""
    found = [re.fullmatch(r"(.*\.(?:tar|tgz|tar\.gz)/(?:.*/|)[^.]+)[.]([^/]*)", name) for name in names]
    keys: dict[str, set[str]] = {}
    for match in found:
        if match is not None:
            keys.setdefault(match[1], set()).add(match[2].lower().rpartition(".")[2])
    shown = [kinds for kinds in keys.values() if kinds.intersection(_PICTURES)]
    with_text = [kinds for kinds in shown if kinds.intersection(("txt", "text", "caption", "cls", "json"))]
    return (
        Likeness(Fit.MARKED, "pictures and texts of one key in a tar")
        if 2 * len(with_text) > len(shown)
        else None
    )


def record(row: Row, source: str, options: Options) -> Record:
    """Return one sample; one without a picture or an answer raises `RowError`."""
    shown = [name for name in row if name.rpartition(".")[2] in _PICTURES]
    if not shown:
        fields = ", ".join(name for name in row if name != "__key__")
        raise RowError(
            "FIELD_EMPTY", f"no picture in the sample, only {fields}", path="jpg", hint="leave it out"
        )
    names = (options.answer,) if isinstance(options.answer, str) else options.answer
    _, answer = _first(row, names)
    if not answer:
        reason = f"no answer: none of {', '.join(names)} is filled"
        raise RowError(
            "FIELD_EMPTY", reason, path=names[0], value=_plain(row), hint="name the field with -o answer="
        )
    asked = (options.question,) if isinstance(options.question, str) else options.question
    return _seen.seen(
        source,
        images=tuple(_picture(row[name], name) for name in shown),
        question=_first(row, asked)[1] or options.ask,
        answer=answer,
        field=options.field,
        meta={"key": str(row["__key__"])} if row.get("__key__") else {},
    )


def _picture(value: Any, name: str) -> str:
    if isinstance(value, bytes):
        return data_uri.encode(value)
    if isinstance(value, str) and value:
        return value
    raise RowError("IMG_LIST", f"{name} holds {type(value).__name__}, no picture", path=name, value=value)


def _first(row: Row, names: tuple[str, ...]) -> tuple[str, str]:
    """Return the first of these fields that is filled, and its text."""
    for name in names:
        top, _, inner = name.partition(".")
        holder = row if name in row or not inner else row.get(top)
        if (
            isinstance(holder, dict)
            and (found := _seen.first_text(holder, (name if holder is row else inner,)))[1]
        ):
            return found
    return "", ""


def _plain(row: Row) -> Row:
    return {name: value for name, value in row.items() if not isinstance(value, bytes)}

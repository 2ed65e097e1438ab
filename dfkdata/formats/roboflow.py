"""Exports of Roboflow: its multimodal JSONL and its classification sets.

    _annotations.train.jsonl, train/annotations.jsonl   {"image": "a.jpg", "prefix": "What is it?", "suffix": "..."}
    train/_classes.csv                                  filename, and a column of 0 and 1 for each class
    train/kucing/a.jpg                                  folders of classes
    _annotations.train.jsonl (OpenAI)                   {"messages": [...]} whose pictures are addresses

The input is the unpacked folder, or its zip. Files and folders named train, valid and test give the splits;
pictures lie beside the file that names them. `--question` asks where the prefix is empty and for classes. A
picture of several classes is answered with all of them; addresses of pictures are refused, as nothing is
fetched while converting."""

from __future__ import annotations

from dfkdata.formats import Fit, Likeness, Record, Row, RowError, _seen, need, text
from dfkdata.formats._conversation_row import conversation_record
from dfkdata.rows.chat_turns import conversation, listed
from dfkdata.rows.file_names import file_name

SCHEMA: str | None = "answer"
COLUMNS = ()  # the classes are the columns
FILES = ("splits", "pictures")
Options = _seen.Options


def detect(row: Row) -> Likeness | None:
    """Return how much a row looks like Roboflow's: prefix and suffix of a picture, or a table of classes."""
    if {"image", "prefix", "suffix"} <= row.keys():
        return Likeness(Fit.MARKED, "columns image, prefix, suffix")
    if "filename" in row and len(row) > 2 and all(_is_flag(row[name]) for name in row if name != "filename"):
        return Likeness(Fit.MARKED, "a column filename, and classes with 0 and 1")
    return None


def _is_flag(value: object) -> bool:
    return str(value).strip() in ("0", "1")


def record(row: Row, source: str, options: _seen.Options) -> Record:
    """Return one picture with its answer; a picture of no class raises `RowError`."""
    if "messages" in row:
        return conversation_record(row, source, conversation(row["messages"], listed(row), tags=False))
    question, image = options.ask, row.get("image")
    if "suffix" in row or "prefix" in row:
        question, answer = text(row, "prefix") or options.ask, need(row, "suffix", hint="write the answer")
    elif "filename" in row:
        image, answer = row["filename"], _classes(row)
    else:
        answer = need(row, "label", hint="put the picture into a folder of its class")
    if not image:
        raise RowError(
            "FIELD_EMPTY", "no picture", path="image", value=row, hint="name the file of the picture"
        )
    return _seen.seen(
        source, images=(file_name(image, "image"),), question=question, answer=answer, field=options.field
    )


def _classes(row: Row) -> str:
    """Return the names of the classes that are marked."""
    flags = {name: str(value).strip() for name, value in row.items() if name != "filename"}
    if wrong := {name: value for name, value in flags.items() if value not in ("0", "1")}:
        name, value = next(iter(wrong.items()))
        raise RowError(
            "LABEL_UNKNOWN", f"{name} is neither 0 nor 1", path=name, value=value, hint="write 0 or 1"
        )
    classes = [name for name, value in flags.items() if value == "1"]
    if not classes:
        hint = "mark one, or leave it out"
        raise RowError("FIELD_EMPTY", "no class is marked", path="filename", value=row, hint=hint)
    return ", ".join(classes)

"""Labels of Label Studio, from its JSON, JSON_MIN or CSV export: choices, taxonomies and written texts.

    JSON      {"id": 7, "data": {"image": "/data/upload/1/ab-a.jpg", "text"?: ...}, "annotations": [{"completed_by",
               "was_cancelled", "ground_truth", "result": [{"from_name": "jenis", "type": "choices", "value":
               {"choices": ["fitnah"]}}, ...]}]}
    JSON_MIN  {"id": 7, "image": "...", "jenis": "fitnah" | {"choices": [...]}, "annotator": 1, "annotation_id": 9}

A task is a row. Annotations that were cancelled do not count, and where some are marked as ground truth only
those do. If annotators disagree the row goes by `LABEL_CONFLICT`: with `warn` the answer that most of them gave
counts, of equally many the first. Predictions of models are no answers.

`control` names the control (`from_name`) whose value is the answer; without it there must be one only. `gold`
fills several fields of a schema: `-o gold=label:jenis,analisis:alasan`. Several choices are joined with commas,
the levels of a taxonomy with " / ". Regions, relations and rankings are not read. `/data/upload/1/ab-a.jpg` is
`upload/1/ab-a.jpg` below `--images` (with `-o upload=name`: `ab-a.jpg`), and of `/data/local-files/?d=a/b.jpg`
the path `a/b.jpg` counts."""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal
from urllib.parse import unquote

from msgspec.structs import replace
from pydantic import field_validator

from dfkdata.formats import Fit, Likeness, Record, Row, RowError, _seen, key, text
from dfkdata.rows.chat_turns import as_json
from dfkdata.rows.file_names import file_names

SCHEMA: str | None = "answer"
COLUMNS = (frozenset({"annotation_id"}),)
_VALUES = ("choices", "taxonomy", "text", "rating", "number", "datetime")
_NOT_LABELS = {"id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement"}


class Options(_seen.Options):
    """ask: the question of rows that have none (`--question`). field: the schema's field for the answer.
    control: whose value is the answer. gold: FIELD:CONTROL pairs, in place of field and control.
    image, text: columns of the task's data. upload: where files of `/data/upload/` lie."""

    control: str = ""
    gold: str = ""
    image: tuple[str, ...] | str = ("image", "img", "images")
    text: str = "text"
    upload: Literal["path", "name"] = "path"

    @field_validator("gold")
    @classmethod
    def _is_pairs(cls, gold: str) -> str:
        if gold and not all(all(part.strip() for part in pair.partition(":")) for pair in gold.split(",")):
            raise ValueError("write FIELD:CONTROL pairs such as label:jenis,analisis:alasan")
        return gold


def detect(row: Row) -> Likeness | None:
    """Return how much a row looks like a task with annotations, or like a line of JSON_MIN."""
    if isinstance(row.get("data"), dict) and isinstance(row.get("annotations"), list):
        return Likeness(Fit.MARKED, "tasks with data and annotations")
    if "annotation_id" in row and {"annotator", "lead_time"} & row.keys():
        return Likeness(Fit.MARKED, "columns annotation_id and annotator")
    return None


def missing(row: Row) -> str:
    """Return what to do if a file that the server kept is not where its address says."""
    return (
        "-o upload=name looks for files of /data/upload/ by their names alone"
        if "/data/upload/" in str(row)
        else ""
    )


def record(row: Row, source: str, options: Options) -> Record:
    """Return one task with its answer; a task without a label that counts raises `RowError`."""
    is_task = isinstance(row.get("annotations"), list)
    data = row.get("data") if is_task else row
    if not isinstance(data, dict):
        raise RowError(
            "FIELD_EMPTY", "the task has no data", path="data", value=row, hint="export JSON or JSON_MIN"
        )
    files = {kind: _files(data, names, options) for kind, names in _columns(options).items()}
    shown = text(data, options.text)
    if not shown and not options.ask and not any(files.values()):
        has = ", ".join(name for name in data if name not in _NOT_LABELS) or "nothing"
        hint = f"the data has {has}; -o text= and -o image= name the columns to be shown"
        raise RowError("EMPTY_USER", "neither a text nor a file to show", path="data", value=data, hint=hint)
    labels = [_values(one) for one in _counted(row["annotations"])] if is_task else [_labels(data, options)]
    if is_task and not any(labels):
        raise _no_answer(row["annotations"])
    answers = [_gold(values, options) for values in labels]
    gold, warnings = _agreed(answers, row)
    made = _seen.seen(
        source,
        images=files["image"],
        videos=files["video"],
        audios=files["audio"],
        question=options.ask,
        text=shown,
        answer="",
        field=options.field,
        key=key(row, "id" if is_task or not row.get("annotation_id") else "annotation_id"),
        meta={"annotators": len(answers)} if len(answers) > 1 else {},
        warnings=warnings,
    )
    return replace(made, gold=gold, id=made.id if made.keyed else "")


def _columns(options: Options) -> dict[str, tuple[str, ...]]:
    images = (options.image,) if isinstance(options.image, str) else options.image
    return {"image": images, "video": ("video", "videos"), "audio": ("audio", "audios")}


def _files(data: Row, names: tuple[str, ...], options: Options) -> tuple[str, ...]:
    """Return the files under the first of these columns that is filled."""
    value = next((data[name] for name in names if data.get(name)), None)
    return tuple(_local(name, options) for name in file_names(value, names[0]))


def _no_answer(annotations: list[Any]) -> RowError:
    """Return the error about annotations that label regions, or relate or rank things, and answer nothing."""
    results = [
        result for one in _counted(annotations) for result in one["result"] if isinstance(result, dict)
    ]
    kinds = ", ".join(sorted({f"{one.get('type')}{' of a region' * _is_region(one)}" for one in results}))
    reason = (
        f"no answer: its annotations hold {kinds or 'nothing'} (regions, relations and rankings are not read)"
    )
    hint = (
        "read are choices, taxonomy, textarea, number, rating and datetime about the whole picture or text; label the"
        " task with one of them, or leave it out"
    )
    return RowError("FIELD_EMPTY", reason, path="annotations", hint=hint)


def _local(name: str, options: Options) -> str:
    """Return the path of a file that the server names by an address of its own."""
    _, found, path = name.partition("/data/local-files/?d=")
    if found:
        return unquote(path.partition("&")[0])
    _, found, path = name.partition("/data/upload/")
    if not found or "://" in name[:12]:
        return name
    path = unquote(path.partition("?")[0])
    return f"upload/{path}" if options.upload == "path" else path.rsplit("/")[-1]


def _counted(annotations: list[Any]) -> list[Row]:
    """Return the annotations that count. Raises `RowError` if none does."""
    given = [one for one in annotations if isinstance(one, dict) and not one.get("was_cancelled")]
    given = [one for one in given if isinstance(one.get("result"), list) and one["result"]]
    if not given:
        reason = f"none of {len(annotations)} annotations was finished" if annotations else "no annotation"
        hint = "label the task, or leave it out"
        raise RowError("FIELD_EMPTY", reason, path="annotations", hint=hint)
    return [one for one in given if one.get("ground_truth")] or given


def _values(annotation: Row) -> dict[str, str]:
    """Return control -> what it says, for one annotation."""
    found: dict[str, list[str]] = {}
    for result in annotation["result"]:
        value = result.get("value") if isinstance(result, dict) else None
        if not isinstance(value, dict) or not isinstance(result.get("from_name"), str):
            continue
        said = next((value[kind] for kind in _VALUES if kind in value), None)
        if said is not None and not _is_region(result):
            found.setdefault(result["from_name"], []).extend(_said(said))
    return {name: ", ".join(texts) for name, texts in found.items() if texts}


def _is_region(result: Row) -> bool:
    value = result.get("value")
    return isinstance(value, dict) and ("start" in value or "x" in value)


def _said(value: Any) -> list[str]:
    """Return the texts of a control's value; the levels of a taxonomy are one text."""
    if isinstance(value, list):
        return [
            " / ".join(str(step) for step in one) if isinstance(one, list) else str(one).strip()
            for one in value
            if one not in (None, "", [])
        ]
    return [str(value).strip()] if str(value).strip() else []


def _labels(row: Row, options: Options) -> dict[str, str]:
    """Return control -> what it says, for a line of JSON_MIN, which does not tell controls from data."""
    shown = {name for names in _columns(options).values() for name in names} | {options.text}
    found = {}
    for name in row:
        if name in _NOT_LABELS or name in shown:
            continue
        value = row[name]
        if isinstance(value, str) and value.startswith(('{"', "[[", "[{")):  # CSV holds several as JSON text
            value = as_json(value, "GOLD_INVALID", name)
        if isinstance(value, dict):
            value = next((value[kind] for kind in _VALUES if kind in value), None)
        is_region = isinstance(value, list) and any(isinstance(one, dict) for one in value)
        if value is not None and not is_region and (texts := _said(value)):
            found[name] = ", ".join(texts)
    return found


def _gold(values: dict[str, str], options: Options) -> dict[str, str]:
    """Return the gold that one annotator gives. Raises `RowError` for a missing or unnamed control."""
    if options.gold:
        pairs = [pair.partition(":") for pair in options.gold.split(",")]
        wanted = {field.strip(): control.strip() for field, _, control in pairs}
    elif options.control:
        wanted = {options.field: options.control}
    elif len(values) == 1:
        wanted = {options.field: next(iter(values))}
    else:
        names = ", ".join(values) or "none"
        hint = "name one with -o control=, or several with -o gold=FIELD:CONTROL,..."
        raise RowError(
            "FIELD_EMPTY", f"{len(values)} controls hold labels: {names}", path="annotations", hint=hint
        )
    if missing := [control for control in wanted.values() if control not in values]:
        reason, hint = f"{missing[0]} is not labelled", "label it, or leave the task out"
        raise RowError("FIELD_EMPTY", reason, path=missing[0], value=values, hint=hint)
    return {field: values[control] for field, control in wanted.items()}


def _agreed(answers: list[dict[str, str]], row: Row) -> tuple[dict[str, str], tuple[RowError, ...]]:
    """Return the answer that most annotators gave, and a warning if not all did.

    Written reasons may differ: only the first field is compared."""
    first = [next(iter(answer.values())) for answer in answers]
    most = Counter(first).most_common(1)[0][0]
    gold = answers[first.index(most)]
    if len(set(first)) == 1:
        return gold, ()
    counts = ", ".join(f"{label!r} by {number}" for label, number in Counter(first).items())
    hint = "decide which is right and mark it as ground truth, or LABEL_CONFLICT=warn takes what most said"
    return gold, (
        RowError("LABEL_CONFLICT", f"annotators disagree: {counts}", path="annotations", hint=hint),
    )

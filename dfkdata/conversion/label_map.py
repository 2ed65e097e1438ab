"""Spellings of labels that a user maps to the classes of a schema, and the source's own spelling as the target."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from dfkdata.common.errors import ConfigError
from dfkdata.common.plugins import suggestion
from dfkdata.rows.messages import Message, Nulls, answer_turn, text_part, training_row, write_text
from dfkdata.rows.record import Record, RowError
from dfkdata.schemas import JsonForm, Label, LabelSet, Schema, TextForm, ToolForm, own_key
from dfkdata.validation.gold import written_gold

RAW = "raw"
#: `RAW` in lower case, as SITA's second to fourth data set write their answers.
RAW_LOWER = "raw-lower"


def read_labels(labels: str | Path | Mapping[Any, Any] | None) -> str | dict[str, str] | None:
    """Return what `--labels` says: "raw" or "raw-lower", spelling -> class, or None.

    Args:
        labels: "raw", "raw-lower", a YAML file of `spelling: class` lines, or such a mapping. Class indexes are
            spellings, and what YAML would read as a boolean or null (No, yes, on, ~) is the word that stands there.

    Raises:
        ConfigError: The file cannot be read or is no mapping of texts and whole numbers to texts, or two of
            its spellings differ by nothing that counts.
    """
    if labels is None:
        return None
    if labels in (RAW, RAW_LOWER):
        return str(labels)
    where = "labels" if isinstance(labels, Mapping) else str(labels)
    mapping = labels if isinstance(labels, Mapping) else _file(Path(labels))
    if not isinstance(mapping, Mapping) or not mapping:
        raise ConfigError(f"--labels {where}: write lines such as `Hoaks: disinformasi`, or say raw")
    result: dict[str, str] = {}
    places: dict[str, str] = {}
    for spelling, label in mapping.items():
        if isinstance(spelling, bool) or not isinstance(spelling, str | int) or not isinstance(label, str):
            raise ConfigError(f"--labels {where}: {spelling!r}: {label!r} maps no text to a text; quote it")
        name = str(spelling)
        if not name.strip() or not label.strip():
            raise ConfigError(f"--labels {where}: {name!r}: {label!r} lacks a spelling or a class")
        other = places.setdefault(own_key(name), name)
        if other in result and result[other] != label:
            raise ConfigError(f"--labels {where}: {other!r} and {name!r} are one spelling with two classes")
        result[name] = label
    return result


def _file(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        hint = "give a YAML file of `spelling: class` lines, or the word raw"
        raise ConfigError(f"--labels {path}: cannot be read ({error}); {hint}") from error
    from dfkdata.common import yaml_loader  # its library is loaded when there is YAML to read

    return yaml_loader.parse_texts(text, str(path))


def with_labels(schema: Schema | None, labels: str | Mapping[str, str] | None) -> Schema | None:
    """Return the schema with the spellings of `labels`.

    Raises:
        ConfigError: The schema has no labels or not the class that a spelling is mapped to, or raw spellings
            are asked for in an answer that is no text.
    """
    if labels is None:
        return schema
    sets = [role.labels for role in schema.roles.values() if isinstance(role, Label)] if schema else []
    if schema is None or not sets:
        raise ConfigError("--labels: the rows have no schema with classes; name one with --schema")
    if isinstance(labels, str):
        if not isinstance(schema.form, TextForm):
            raise ConfigError(f"--labels {labels}: the schema {schema.name!r} is not answered as marked text")
        return schema
    return replace(schema, spellings={spelling: _class(label, sets) for spelling, label in labels.items()})


def _class(label: str, sets: list[LabelSet]) -> str:
    for labels in sets:
        resolved = labels.resolve(label)
        if resolved is not None:
            return resolved.label
    classes = [name for labels in sets for name in labels.canonical]
    raise ConfigError(f"--labels: {label!r} is none of {', '.join(classes)}{suggestion(label, classes)}")


class TargetWriter:
    """Write rows whose answers spell labels as `--labels` says: as the schema does, or as the source."""

    def __init__(self, schema: Schema | None, labels: Any, nulls: Nulls = "omit") -> None:
        """Take the schema of the answers, what `read_labels` returned, and what becomes of None slots."""
        self._schema, self._nulls, self._labels = schema, nulls, labels
        self._raw = _raw_target(schema) if schema is not None and labels in (RAW, RAW_LOWER) else None

    def row(self, record: Record, spelt: dict[str, Any] | None) -> dict[str, Any]:
        """Return a row of the messages layout.

        Args:
            record: The row, its gold bound to the schema.
            spelt: The gold as the source spells it; None without gold.

        Raises:
            RowError: GOLD_INVALID for an answer of the row's own that names another label than its gold, or
                in which no label can be written without changing something else.
        """
        row = training_row(record, self._schema, nulls=self._nulls)
        raw, gold = self._raw, record.gold
        if record.messages is not None:
            if self._schema is not None and self._labels is not None and gold is not None:
                row["messages"] = self._own_turns(record, record.messages, gold, self._schema)
        elif raw is not None and gold is not None and spelt is not None:
            names = (name for name, role in raw.roles.items() if isinstance(role, Label) and name in spelt)
            labels = {name: self._spelling(spelt[name]) for name in names}
            row["messages"][-1] = answer_turn(gold | labels, raw, nulls=self._nulls)
        return row

    def _own_turns(
        self, record: Record, turns: list[Message], gold: dict[str, Any], schema: Schema
    ) -> list[Message]:
        """Return the turns of a row, the labels of its last answer as `--labels` says and all else as it was."""
        said = written_gold(record, schema)
        if said is None:
            return turns
        labels: dict[str, Any] = {}
        for name, role in schema.roles.items():
            if not isinstance(role, Label):
                continue
            value = said.get(name)
            if _class_named(value, role) != gold.get(name):
                reason = f"the answer names another {name} than the row's gold, {gold.get(name)!r}"
                hint = "decide which is right; without --labels the answer stays as it is"
                raise RowError("GOLD_INVALID", reason, path=f"gold.{name}", value=value, hint=hint)
            if isinstance(value, str | int) and not isinstance(value, bool):
                labels[name] = self._spelling(value) if self._raw else _printed(gold[name], schema)
        if all(said[name] == label for name, label in labels.items()):
            return turns
        return [*turns[:-1], _respelt(turns, said, labels, schema)]

    def _spelling(self, value: Any) -> str:
        """Return a label as the source spells it, without blanks around it."""
        label = str(value).strip()
        return label.lower() if self._labels == RAW_LOWER else label


def _class_named(value: Any, role: Label) -> Any:
    """Return the class that a value of an answer names; None if it names none; what is no spelling as it is."""
    if not isinstance(value, str | int) or isinstance(value, bool):
        return value
    resolved = role.labels.resolve(str(value))
    return resolved.label if resolved is not None else None


def _printed(label: str, schema: Schema) -> str:
    """Return a class as the answers of a schema spell it."""
    return dict(schema.form.printed).get(label, label) if isinstance(schema.form, TextForm) else label


def _respelt(turns: list[Message], said: dict[str, Any], labels: dict[str, Any], schema: Schema) -> Message:
    """Return the last turn with other labels. Raises `RowError` if something else would change with them."""
    turn = turns[-1]
    if isinstance(schema.form, ToolForm):
        calls = [*turn["tool_calls"]]
        at = next(n for n, call in enumerate(calls) if call["function"]["name"] == schema.form.name)
        function = {**calls[at]["function"], "arguments": said | labels}
        return {**turn, "tool_calls": [*calls[:at], {**calls[at], "function": function}, *calls[at + 1 :]]}
    parts = turn["content"]
    text = parts[0].get("text") if len(parts) == 1 else None
    for write in _writers(schema.form):
        if write(said) == text:
            return {**turn, "content": [text_part(write(said | labels))]}
    reason = "the answer cannot be written with another label and otherwise as it is"
    hint = "write it as one text part, JSON on one line; without --labels the answer stays as it is"
    raise RowError("GOLD_INVALID", reason, path=f"messages.{len(turns) - 1}", value=turn, hint=hint)


def _writers(form: TextForm | JsonForm) -> list[Callable[[dict[str, Any]], str]]:
    """Return the ways in which an answer may have been written as text."""
    if isinstance(form, TextForm):
        return [partial(write_text, form=replace(form, printed=()))]
    field, dumps = form.field, (_compact, json.dumps, partial(json.dumps, ensure_ascii=False))
    return [lambda gold, dump=dump: dump(gold if field is None else gold[field]) for dump in dumps]  # type: ignore[misc]


def _compact(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _raw_target(schema: Schema) -> Schema:
    """Return the schema whose answers print labels as the gold spells them."""
    form = schema.form
    return replace(schema, form=replace(form, printed=())) if isinstance(form, TextForm) else schema


def unsettled(record: Record, schema: Schema | None) -> tuple[RowError, ...]:
    """Return the warnings of a record, without conflicts of labels that the user's own spellings settle.

    A format does not know them: beside the label `Fitnah` a column may hold the class index 3."""
    if schema is None or not schema.spellings or record.gold is None:
        return record.warnings
    return tuple(error for error in record.warnings if not _is_settled(error, record.gold, schema))


def _is_settled(error: RowError, gold: Mapping[str, Any], schema: Schema) -> bool:
    roles = ((name, role) for name, role in schema.roles.items() if isinstance(role, Label) and name in gold)
    for name, role in roles if error.code == "LABEL_CONFLICT" else ():
        column, label = role.labels.resolve(str(error.value)), role.labels.resolve(str(gold[name]))
        if column is not None and label is not None and column.label == label.label:
            return True
    return False

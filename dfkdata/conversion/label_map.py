"""Spellings of labels that a user maps to the classes of a schema, and the source's own spelling as the target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dfkdata.common import yaml_loader
from dfkdata.common.errors import ConfigError
from dfkdata.common.plugins import suggestion
from dfkdata.rows.messages import Nulls, answer_turn, training_row
from dfkdata.rows.record import Record, RowError
from dfkdata.schemas import Label, LabelSet, Schema, TextForm, fold_spelling

RAW = "raw"
#: `RAW` in lower case, as SITA's second to fourth data set write their answers.
RAW_LOWER = "raw-lower"


def read_labels(labels: str | Path | Mapping[Any, Any] | None) -> str | dict[str, str] | None:
    """Return what `--labels` says: "raw" or "raw-lower", spelling -> class, or None.

    Args:
        labels: "raw", "raw-lower", a YAML file of `spelling: class` lines, or such a mapping. Class indexes are
            spellings.

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
        other = places.setdefault(fold_spelling(name), name)
        if other != name and result[other] != label:
            raise ConfigError(f"--labels {where}: {other!r} and {name!r} are one spelling with two classes")
        result[name] = label
    return result


def _file(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        hint = "give a YAML file of `spelling: class` lines, or the word raw"
        raise ConfigError(f"--labels {path}: cannot be read ({error}); {hint}") from error
    return yaml_loader.parse(text, str(path))


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
        self._schema, self._nulls = schema, nulls
        self._raw = _raw_target(schema) if schema is not None and labels in (RAW, RAW_LOWER) else None
        self._lower = labels == RAW_LOWER

    def row(self, record: Record, spelt: dict[str, Any] | None) -> dict[str, Any]:
        """Return a row of the messages layout.

        Args:
            record: The row, its gold bound to the schema.
            spelt: The gold as the source spells it; None without gold.
        """
        row = training_row(record, self._schema, nulls=self._nulls)
        raw, gold = self._raw, record.gold
        if raw is not None and gold is not None and spelt is not None and record.messages is None:
            names = (name for name, role in raw.roles.items() if isinstance(role, Label) and name in spelt)
            labels = {name: str(spelt[name]).strip() for name in names}
            labels = {name: label.lower() if self._lower else label for name, label in labels.items()}
            row["messages"][-1] = answer_turn(gold | labels, raw, nulls=self._nulls)
        return row


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

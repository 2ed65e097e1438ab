"""Read the values of columns as the features of the `datasets` library mean them.

How it works. Its files and objects hold a class as a number and the names in the features, and a picture as
bytes or as a path that means a file of this machine. `reader` walks the features once and returns a function
for the rows; columns without either cost nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Change = Callable[[Any], Any]


def reader(features: Any, *, files: bool = False) -> Callable[[dict[str, Any]], dict[str, Any]] | None:
    """Return a function that gives a raw row its class names; None if no column holds classes or pictures.

    Args:
        features: The features as plain data, as `Features.to_dict` gives them and Parquet files keep them.
        files: Whether pictures that are named by a path are read: those of an object in memory, whose paths
            its owner chose.
    """
    return _change(features, files) if isinstance(features, Mapping) else None


def of_schema(metadata: Mapping[bytes, bytes] | None) -> Any:
    """Return the features that the schema of an Arrow or Parquet file keeps; None if there are none."""
    try:
        return json.loads((metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return None


def holds_pictures(features: Any) -> bool:
    """Return whether a column, however deep, holds pictures."""
    if isinstance(features, Mapping):
        return features.get("_type") == "Image" or any(map(holds_pictures, features.values()))
    return isinstance(features, list) and any(map(holds_pictures, features))


def _change(feature: Any, files: bool) -> Change | None:
    """Return what has to be done to a value of a feature; None for nothing."""
    if isinstance(feature, list) and feature:
        return _each(_change(feature[0], files))
    if not isinstance(feature, Mapping):
        return None
    match feature.get("_type"):
        case "ClassLabel":
            return _class_name(feature.get("names"))
        case "Image":
            return _with_bytes if files else None
        case "List" | "LargeList" | "Sequence":
            return _each(_change(feature.get("feature"), files))
        case str():
            return None
    inner = {name: change for name, one in feature.items() if (change := _change(one, files)) is not None}
    return _fields(inner) if inner else None


def _each(change: Change | None) -> Change | None:
    if change is None:
        return None

    def changed(value: Any) -> Any:
        if isinstance(value, Mapping):  # a `Sequence` of fields is kept as fields of lists
            return changed_fields(value)
        return [change(one) for one in value] if isinstance(value, list) else value

    def changed_fields(value: Mapping[str, Any]) -> Any:
        columns = {name: column for name, column in value.items() if isinstance(column, list)}
        rows = [change(dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=False)]
        return {**value, **{name: [row[name] for row in rows] for name in columns}}

    return changed


def _fields(changes: dict[str, Change]) -> Change:
    def changed(value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {**value, **{name: change(value[name]) for name, change in changes.items() if name in value}}

    return changed


def _class_name(names: Any) -> Change | None:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return None

    def changed(value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int):
            return value
        return names[value] if 0 <= value < len(names) else None if value == -1 else value

    return changed


def _with_bytes(value: Any) -> Any:
    """Return the picture with its bytes if it is a file of this machine."""
    if isinstance(value, Mapping) and not value.get("bytes") and isinstance(value.get("path"), str):
        path = Path(value["path"])
        try:
            return {"bytes": path.read_bytes(), "path": value["path"]}
        except (OSError, ValueError):  # an address, or a file that is gone: the row's reject names it
            return value
    return value

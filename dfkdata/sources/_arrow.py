"""Read what the `datasets` library holds: objects in memory, and folders that `save_to_disk` wrote."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dfkdata.common import limits
from dfkdata.common.errors import DataError, missing_package
from dfkdata.rows.record import RowError
from dfkdata.sources import _features
from dfkdata.sources._files import plain
from dfkdata.sources._rejects import SourcedRow, as_row, check_encodable, unencodable

SAVED = ("state.json", "dataset_info.json", "dataset_dict.json")
"""Files that `save_to_disk` writes beside the rows."""


def saved_splits(folder: Path) -> dict[str, Path] | None:
    """Return split -> folder of a saved `DatasetDict`; None if the folder is not one.

    Raises:
        DataError: Its list of splits cannot be read, or a split is missing.
    """
    path = folder / "dataset_dict.json"
    if not path.is_file():
        return None
    try:
        names = [str(name) for name in json.loads(path.read_text(encoding="utf-8"))["splits"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); save the data set again") from error
    places = {name: folder / name for name in names}
    for name, place in places.items():
        if place.parent != folder or not is_saved(place):
            raise DataError(f"{path}: the split {name!r} is not there; save the data set again")
    return places


def is_saved(folder: Path) -> bool:
    """Return whether a folder holds one data set that `save_to_disk` wrote."""
    return all((folder / name).is_file() for name in SAVED[:2])


def saved_files(folder: Path) -> list[Path]:
    """Return the files of a saved data set in the order of its rows.

    Raises:
        DataError: The list of files cannot be read, or a file is missing.
    """
    path = folder / "state.json"
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        files = [folder / Path(entry["filename"]).name for entry in state["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); save the data set again") from error
    if gone := [file.name for file in files if not file.is_file()]:
        raise DataError(f"{path}: the file {gone[0]!r} is not there; save the data set again")
    return files


def arrow_rows(path: Path, name: str) -> Iterator[SourcedRow]:
    """Yield the rows of an Arrow file, with class names where its features have them."""
    try:
        import pyarrow
    except ImportError as error:
        raise missing_package("reading Arrow files", "pyarrow", "parquet") from error
    try:
        with pyarrow.memory_map(str(path)) as file:
            try:
                batches = pyarrow.ipc.open_stream(file)
            except pyarrow.ArrowInvalid:
                whole = pyarrow.ipc.open_file(file)
                batches, schema = (
                    (whole.get_batch(at) for at in range(whole.num_record_batches)),
                    whole.schema,
                )
            else:
                schema = batches.schema
            read = _features.reader(_features.of_schema(schema.metadata))
            number, size, most = 0, 0, limits.most_unpacked(path.stat().st_size)
            for batch in batches:
                size += batch.nbytes
                limits.check_unpacked(size, most, str(path))
                for start in range(0, batch.num_rows, 256):
                    for row in batch.slice(start, 256).to_pylist():
                        number += 1
                        yield plain(read(row) if read is not None else row), f"{name}:{number}"
    except (pyarrow.ArrowInvalid, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a whole Arrow file ({error}); save it again") from error


def memory_rows(rows: Iterable[Any], name: str) -> Iterator[SourcedRow]:
    """Yield rows in memory, such as a `datasets.Dataset`: mappings whose pictures may be Pillow images."""
    for number, row in enumerate(_values(rows), start=1):
        source = f"{name}:{number}"
        try:
            value = plain(row)
            check_encodable(value)
        except RecursionError:
            yield RowError("ROW_NOT_OBJECT", "the row is nested too deeply").reject(source, None), source
            continue
        except UnicodeEncodeError as error:
            yield unencodable(source, value, error), source
            continue
        yield as_row(value, source), source


def _values(rows: Iterable[Any]) -> Iterator[Any]:
    """Yield rows in memory; those of a `datasets.Dataset` with class names, and pictures as they were stored."""
    features: Any = getattr(rows, "features", None)
    described = features.to_dict() if hasattr(features, "to_dict") else None
    if described is None:
        return iter(rows)
    raw = _stored(rows) if _features.holds_pictures(described) else None
    read = _features.reader(described, files=raw is not None)
    found = iter(rows) if raw is None else raw
    return found if read is None else map(read, found)


def _stored(rows: Any) -> Iterator[Any] | None:
    """Return the rows of a data set with pictures not decoded; None if it is not one that stores them so.

    Decoding would turn each picture into another file. A transform of the user's counts, though."""
    format = getattr(rows, "format", None)
    if not isinstance(format, dict) or format.get("type") is not None:
        return None
    if list(format.get("columns") or ()) != list(rows.column_names):
        return None
    if "Json" in str(rows.features):
        return None
    tables = rows.with_format("arrow").iter(batch_size=64)
    return (row for table in tables for row in table.to_pylist())

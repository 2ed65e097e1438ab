"""Export samples as a table for other tools: Parquet, CSV or JSONL, one row a sample.

Guarantees:

- Every column has one type in every file, whatever the answers hold: dicts (gold, value, lenient,
  label_probs, slices) are JSON texts; lists stay lists in Parquet and become JSON texts in CSV.
- No cell of a CSV is a formula (`dfkdata.common.csv_files`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from dfkdata.common.csv_files import write_csv
from dfkdata.common.errors import ConfigError, missing_package
from dfkeval.types import Sample

SUFFIXES = (".parquet", ".csv", ".jsonl")
_JSON = ("gold", "value", "lenient", "label_probs", "slices")
_LISTS = ("repairs", "problems", "images")
_INTEGERS = ("n_prompt_tokens", "n_output_tokens", "repeat", "gold_tokens")
_FLOATS = ("seconds", "first_token_seconds", "gold_nll", "confidence")
#: Column -> attribute of a sample; columns are called as in samples.jsonl.
_ATTRIBUTES = dict(zip(Sample.__struct_encode_fields__, Sample.__struct_fields__, strict=True)) | {
    "confidence": "confidence"
}
_FIELDS = tuple(_ATTRIBUTES)


def write_samples(samples: Sequence[Sample], path: str | Path) -> Path:
    """Write samples to a file in the format of its ending, and return its path.

    Args:
        samples: Graded answers.
        path: A file that ends in .parquet, .csv or .jsonl.

    Raises:
        ConfigError: The ending is another one, pyarrow is missing, or the file cannot be written.
    """
    place = Path(path)
    if place.suffix not in SUFFIXES:
        raise ConfigError(f"{place}: the ending must be one of {', '.join(SUFFIXES)}")
    try:
        match place.suffix:
            case ".parquet":
                _parquet(samples, place)
            case ".csv":
                _csv(samples, place)
            case _:
                encoder = msgspec.json.Encoder()
                place.write_bytes(b"".join(encoder.encode(sample) + b"\n" for sample in samples))
    except OSError as error:
        raise ConfigError(f"{place}: cannot be written ({error.strerror or error})") from error
    return place


def row(sample: Sample) -> dict[str, Any]:
    """Return one sample as flat values."""
    values = {column: getattr(sample, name) for column, name in _ATTRIBUTES.items()}
    for name in _JSON:
        values[name] = None if values[name] is None else msgspec.json.encode(values[name]).decode()
    for name in _LISTS:
        values[name] = list(values[name])
    return values


def _parquet(samples: Sequence[Sample], path: Path) -> None:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise missing_package("samples as Parquet", "pyarrow", "parquet") from error
    kinds = dict.fromkeys(_FIELDS, pyarrow.string())
    kinds |= dict.fromkeys(_LISTS, pyarrow.list_(pyarrow.string()))
    kinds |= dict.fromkeys(_INTEGERS, pyarrow.int64()) | dict.fromkeys(_FLOATS, pyarrow.float64())
    schema = pyarrow.schema(list(kinds.items()))
    table = pyarrow.Table.from_pylist([row(sample) for sample in samples], schema=schema)
    pyarrow.parquet.write_table(table, path, compression="zstd")


def _csv(samples: Sequence[Sample], path: Path) -> None:
    def cells(sample: Sample) -> list[Any]:
        flat = row(sample)
        return [
            msgspec.json.encode(flat[name]).decode() if name in _LISTS else flat[name] for name in _FIELDS
        ]

    write_csv(path, _FIELDS, map(cells, samples))

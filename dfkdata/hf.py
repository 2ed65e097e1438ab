"""Training rows as a `datasets.Dataset` and as Parquet, without a loss.

Strategy: the schema is written out and never inferred, since inference fills missing keys of parts with null
(chat templates then render text as an image), looks at the first rows only, and turns texts that look like
JSON into values. `Json` stands on whole objects (a turn, a tool, meta) and never on a node that can be a
string. Limits of the library's JSON: floats keep ten decimals, and integers from 2**64 on come back as text;
rows that hold such numbers are refused here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import file_digest
from pathlib import Path
from typing import Any

from dfkdata.errors import ConfigError, DataError, DfkError, missing_package
from dfkdata.rows import load_rows

Rows = str | Path | Iterable[dict[str, Any]]
"""A JSONL file of the messages layout, or such rows (image paths absolute)."""


def features(*, images: bool = True) -> Any:
    """The columns: id, messages, images, tools, meta. images: pictures, or else their paths as text.

    Raises `ConfigError` where `datasets` is missing or too old (4.7 brought `Json`)."""
    datasets = _datasets()
    picture = datasets.Image() if images else datasets.Value("string")
    return datasets.Features(
        {
            "id": datasets.Value("string"),
            "messages": datasets.List(datasets.Json()),
            "images": datasets.List(picture),
            "tools": datasets.List(datasets.Json()),
            "meta": datasets.Json(),
        }
    )


def to_hf(rows: Rows, *, images: bool = True, embed: bool = False) -> Any:
    """The rows as a `datasets.Dataset` with explicit `features`.

    images: decode pictures on access, else leave paths. embed: put the pictures' bytes into the data set.
    Raises `ConfigError` where `datasets` is missing, `DataError` for rows that it cannot hold."""
    datasets = _datasets()
    wanted = features(images=images)
    if isinstance(rows, str | Path):
        with Path(rows).open("rb") as file:
            content = file_digest(file, "sha256").hexdigest()
        how = {
            "path": str(rows),
            "content": content,
            "embed": embed,
        }  # the content is part of the cache's key
        try:
            return datasets.Dataset.from_generator(_from_file, features=wanted, gen_kwargs=how)
        except datasets.exceptions.DatasetGenerationError as error:
            if isinstance(error.__cause__, DfkError):
                raise error.__cause__ from None
            raise
    return datasets.Dataset.from_list([_row(row, embed) for row in rows], features=wanted)


def write_parquet(rows: Rows, path: str | Path, *, embed: bool = True) -> int:
    """Write the rows as one Parquet file; the number of rows. embed: with the pictures' bytes, so that it can
    travel."""
    found = to_hf(rows, images=embed, embed=embed)
    found.to_parquet(str(path))
    return len(found)


def push_to_hub(
    rows: Rows, repo: str, *, split: str = "train", private: bool = True, token: str | None = None
) -> str:
    """Upload the rows with their pictures as the split of a data set "ORG/NAME"; its address.

    The token goes to the library's own client and is written nowhere."""
    found = to_hf(rows, embed=True)
    found.push_to_hub(repo, split=split, private=private, token=token)
    return f"hf://datasets/{repo}"


def _datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise missing_package("a datasets.Dataset", "datasets", "hub") from error
    if not hasattr(datasets, "Json"):
        raise ConfigError(f'datasets {datasets.__version__} has no Json: pip install "dfk[hub]"')
    return datasets


def _from_file(path: str, content: str, embed: bool) -> Iterator[dict[str, Any]]:
    for row in load_rows(path):
        yield _row(row, embed)


def _row(row: dict[str, Any], embed: bool) -> dict[str, Any]:
    for key in ("messages", "tools", "meta"):
        _check_numbers(row.get(key), f"{row.get('id')}: {key}")
    images = row.get("images") or []
    return {
        "id": str(row["id"]),
        "messages": row["messages"],
        "images": [_embedded(image) for image in images] if embed else images,
        "tools": row.get("tools") or [],
        "meta": row.get("meta") or {},
    }


def _embedded(path: str) -> dict[str, Any]:
    try:
        return {"bytes": Path(path).read_bytes(), "path": Path(path).name}
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def _check_numbers(value: Any, where: str) -> None:
    """Raise `DataError` for a number that the library would change."""
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            _check_numbers(inner, where)
    elif isinstance(value, float) and round(value, 10) != value:
        raise DataError(
            f"{where} holds {value!r}, of which datasets keeps ten decimals; round it or write it as text"
        )
    elif isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise DataError(f"{where} holds {value}, which datasets turns into text; write it as text yourself")

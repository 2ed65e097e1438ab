"""Hand training rows to Hugging Face `datasets` and to Parquet without loss.

How it works. The features are written out and never inferred, since inference fills missing keys of parts
with null (chat templates then render text as an image), looks at the first rows only, and turns texts that
look like JSON into values. `Json` stands on whole objects (a turn, a tool, meta) and never on a node that can
be a string. The library's JSON keeps ten decimals of a float and gives integers from 2**64 on back as text,
so rows that hold such numbers raise `DataError`."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from dfkdata.common import data_uri
from dfkdata.common.errors import ConfigError, DataError, DfkError, missing_package
from dfkdata.common.files import open_regular
from dfkdata.common.hashing import file_sha256
from dfkdata.rows.messages import load_rows, shown_tools
from dfkdata.rows.part_files import with_part_files

Rows = str | Path | Iterable[dict[str, Any]]
"""A JSONL file of the messages layout, or such rows (image paths absolute)."""


def features(*, images: bool = True, more: tuple[str, ...] = ()) -> Any:
    """Return the columns as `datasets.Features`: id, messages, images, tools, meta.

    Args:
        images: Whether images are pictures; else they are their paths as text.
        more: "videos" and "audios" if rows have such files, whose paths are text; "chat_template_kwargs".

    Raises:
        ConfigError: If `datasets` is missing or too old (4.7 brought `Json`).
    """
    datasets = _datasets()
    picture = datasets.Image() if images else datasets.Value("string")
    paths = {name: datasets.List(datasets.Value("string")) for name in more if name in _FILES}
    options = {name: datasets.Json() for name in more if name not in _FILES}
    return datasets.Features(
        {
            "id": datasets.Value("string"),
            "messages": datasets.List(datasets.Json()),
            "images": datasets.List(picture),
            "tools": datasets.List(datasets.Json()),
            "meta": datasets.Json(),
        }
        | paths
        | options
    )


def to_dataset(rows: Rows, *, images: bool = True, embed: bool = False) -> Any:
    """Return the rows as a `datasets.Dataset` with explicit `features`.

    Args:
        rows: A JSONL file of the messages layout, or such rows.
        images: Whether pictures are decoded on access; else the paths stay.
        embed: Whether the pictures' bytes go into the data set. Videos and audios stay paths, so rows with
            such files cannot be embedded.

    Raises:
        ConfigError: If `datasets` is missing or too old.
        DataError: If `datasets` cannot hold a row.
    """
    datasets = _datasets()
    source = rows if isinstance(rows, str | Path) else [*rows]
    more = _more(source)
    columns, how = features(images=images, more=more), _How(images, embed, more)
    if isinstance(source, str | Path):
        # The content is part of the cache's key.
        arguments = {"path": str(source), "_content": file_sha256(source), "how": how}
        try:
            return datasets.Dataset.from_generator(_from_file, features=columns, gen_kwargs=arguments)
        except datasets.exceptions.DatasetGenerationError as error:
            if isinstance(error.__cause__, DfkError):
                raise error.__cause__ from None
            raise
    return datasets.Dataset.from_list([_row(row, how) for row in source], features=columns)


def write_parquet(rows: Rows, path: str | Path, *, embed: bool = True) -> int:
    """Write the rows as one Parquet file and return their number.

    Args:
        rows: As for `to_dataset`.
        path: The file to write.
        embed: Whether the file holds the pictures' bytes, so that it can travel.
    """
    dataset = to_dataset(rows, images=embed, embed=embed)
    dataset.to_parquet(str(path))
    return len(dataset)


def push_to_hub(
    rows: Rows, repo: str, *, split: str = "train", private: bool = True, token: str | None = None
) -> str:
    """Upload the rows with their pictures as one split of a data set on the Hub, and return its address.

    Args:
        rows: As for `to_dataset`.
        repo: The data set, "ORG/NAME".
        split: The split that the rows become.
        private: Whether a new data set is private.
        token: Goes to the library's own client and is written nowhere.
    """
    dataset = to_dataset(rows, embed=True)
    dataset.push_to_hub(repo, split=split, private=private, token=token)
    return f"hf://datasets/{repo}"


def _datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise missing_package("a datasets.Dataset", "datasets", "hub") from error
    if not hasattr(datasets, "Json"):
        raise ConfigError(f'datasets {datasets.__version__} has no Json: pip install "dfk[hub]"')
    return datasets


class _How(NamedTuple):
    """The options of `to_dataset`, and the extra columns that `features` gets."""

    images: bool
    embed: bool
    more: tuple[str, ...]


_FILES = ("videos", "audios")
_OTHERS = (*_FILES, "chat_template_kwargs")


def _more(rows: str | Path | list[dict[str, Any]]) -> tuple[str, ...]:
    """Return the columns of `_OTHERS` that some row has; keys inside JSON strings have escaped quotes."""
    if not isinstance(rows, str | Path):
        return tuple(name for name in _OTHERS if any(row.get(name) for row in rows))
    columns: set[str] = set()
    with Path(rows).open("rb") as lines:
        for line in lines:
            columns |= {
                name.decode() for name in re.findall(rb'"(videos|audios|chat_template_kwargs)"\s*:', line)
            }
    return tuple(name for name in _OTHERS if name in columns)


def _from_file(path: str, _content: str, how: _How) -> Iterator[dict[str, Any]]:
    for row in load_rows(path):
        yield _row(row, how)


def _row(row: dict[str, Any], how: _How) -> dict[str, Any]:
    if "id" not in row:
        raise DataError(f"row {row!r:.200}: has no `id`; give each row a text of its own")
    row = with_part_files(row)
    for key in ("messages", "tools", "meta"):
        _check_numbers(row.get(key), f"{row.get('id')}: {key}")
    images = row.get("images") or []
    if how.embed and any(row.get(name) for name in how.more if name in _FILES):
        raise DataError(
            f"{row.get('id')} has videos or audios, and only pictures are embedded; leave embed out,"
            " or leave such rows out"
        )
    return {
        "id": str(row["id"]),
        "messages": row["messages"],
        "images": [_named_picture(image, how, row["id"]) for image in images],
        "tools": shown_tools(row.get("tools"), f"row {row['id']}") or [],
        "meta": row.get("meta") or {},
    } | {name: row.get(name) or ([] if name in _FILES else {}) for name in how.more}


def _named_picture(image: Any, how: _How, row_id: Any) -> str | dict[str, Any]:
    try:
        return _picture(image, how)
    except DataError as error:
        raise DataError(f"row {row_id}: {error}") from error


def _picture(image: Any, how: _How) -> str | dict[str, Any]:
    """Return a path, or a picture's bytes; of what is embedded the bytes if pictures are wanted."""
    if not isinstance(image, str | Path):
        if not (how.images or how.embed):
            raise DataError(f"a picture of type {type(image).__name__} has no path; leave images=False out")
        return {"bytes": image if isinstance(image, bytes) else _saved(image), "path": None}
    path = str(image)
    if data_uri.is_data_uri(path) and (how.images or how.embed):
        try:
            return {"bytes": data_uri.decode(path), "path": None}
        except data_uri.DataUriError as error:
            raise DataError(f"{path[:64]}: {error}") from error
    if not how.embed:  # in one shape, since Arrow holds no list of texts and objects
        return {"bytes": None, "path": path} if how.images else path
    try:
        with open_regular(Path(path)) as file:
            content = file.read()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    _check_picture(content, path)
    return {"bytes": content, "path": Path(path).name}


def _check_picture(content: bytes, path: str) -> None:
    """Raise `DataError` for a file that is no picture: what a row names must not carry other files along."""
    from PIL import Image, UnidentifiedImageError

    try:
        Image.open(io.BytesIO(content)).close()
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: is no picture that can be read ({error})") from error


def _saved(image: Any) -> bytes:
    """Return a Pillow image as a PNG; anything else raises `DataError`."""
    if not hasattr(image, "getpixel"):
        kind = type(image).__name__
        raise DataError(f"{kind} is no picture; give a path, a data: URI, bytes or a Pillow image")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


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

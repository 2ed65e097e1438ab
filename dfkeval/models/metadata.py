"""Read and write `dfk.json`, which lies next to every adapter and merged model that the project writes.

How it works: an adapter works only with the prompt, tools, template, pixels and base that it was trained
with, and none of them is in the adapter's own files. Training writes them here; evaluation and prediction
read them and refuse a mismatch."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec

from dfkdata.common.errors import ConfigError, DataError
from dfkdata.common.json_files import write_json

NAME = "dfk.json"


class BaseRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The base model of an adapter.

    Args:
        name: Its name, for people.
        shapes_sha256: Hash of its parameter names and shapes, for the check; None if it has no such record.
    """

    name: str
    shapes_sha256: str | None = None


class ModelMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """What an adapter or a merged model was trained with.

    Args:
        format: Version of the file.
        schema: Output schema of the rows; None for rows without one.
        form: Variant of the schema.
        system_prompt: System text of the rows.
        tools: Tools of the rows.
        template_sha256: Hash of the chat template.
        max_pixels: Largest area of an image in pixels.
        thinking: Whether the template opened a think block.
        reasoning_effort: How much the rows told the model to think; None where they do not say, or differ.
        base: The base model.
        quantized: How the base was quantised in training ("nf4", "nf4+loftq"); None if it was not.
    """

    format: int = 1
    schema: str | None = None
    form: str | None = None
    system_prompt: str | None = None
    tools: list[dict[str, Any]] | None = None
    template_sha256: str | None = None
    max_pixels: int | None = None
    thinking: bool = False
    reasoning_effort: str | None = None
    base: BaseRecord | None = None
    quantized: str | None = None


def write(folder: Path, metadata: ModelMetadata) -> Path:
    """Write `folder/dfk.json` and return its path."""
    path = folder / NAME
    write_json(path, metadata)
    return path


def read(folder: Path) -> ModelMetadata | None:
    """Return the `dfk.json` in a folder; None if there is none. Raises `DataError` for a file of another
    kind."""
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        metadata = msgspec.json.decode(path.read_bytes(), type=ModelMetadata)
    except msgspec.MsgspecError as error:
        raise DataError(f"{path}: not a model card of this project ({error})") from error
    if metadata.format != 1:
        raise DataError(
            f"{path}: format {metadata.format} is newer than this version of dfk reads (1); upgrade dfk"
        )
    return metadata


def folder_of(model: str | Path | None, adapter: str | Path | None) -> Path | None:
    """Return the folder that may hold a model's `dfk.json`: the adapter's, else the model's own; None for a
    Hub name."""
    if adapter is not None:
        return Path(adapter)
    return Path(model) if model is not None and Path(model).is_dir() else None


def text_sha256(text: str) -> str:
    """Return the hash under which templates are recorded."""
    return hashlib.sha256(text.encode()).hexdigest()


def shapes_sha256(shapes: dict[str, tuple[int, ...]]) -> str:
    """Return the hash of a model's parameter names and shapes, which does not depend on order, dtype or
    values."""
    lines = sorted(f"{name}:{','.join(map(str, shape))}" for name, shape in shapes.items())
    return text_sha256("\n".join(lines))


def check_matches(trained: ModelMetadata, where: str, requested: dict[str, Any]) -> None:
    """Compare what is requested with what was trained.

    Args:
        trained: What was trained.
        where: Path of its `dfk.json`, for the message.
        requested: Field of `ModelMetadata` -> value; None and a missing field are not compared.

    Raises:
        ConfigError: They differ; the message lists every difference.
    """
    faults = [
        f"{name} was {getattr(trained, name)!r:.120} in training and is {value!r:.120} here"
        for name, value in requested.items()
        if value is not None and getattr(trained, name) is not None and getattr(trained, name) != value
    ]
    if faults:
        raise ConfigError(f"{where} does not fit this run: " + "; ".join(faults))

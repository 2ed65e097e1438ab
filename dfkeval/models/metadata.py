"""`dfk.json`: the note that lies next to every adapter and merged model that the project writes.

Strategy: an adapter works only with the prompt, tools, template, pixels and base it was trained with, and
none of them is in the adapter's own files. Training writes them here; evaluation and prediction read them
and refuse a mismatch."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec

from dfkdata.common.errors import ConfigError, DataError

NAME = "dfk.json"


class Base(msgspec.Struct, frozen=True, kw_only=True):
    """The base model: its name, for people, and the hash of its parameter names and shapes, for the check."""

    name: str
    shapes_sha256: str | None = None


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """What an adapter was trained with. schema: None for an adapter of rows without a schema. quantized: how
    the base was quantised in training ("nf4", "nf4+loftq"), None for not at all."""

    format: int = 1
    schema: str | None = None
    form: str | None = None
    system_prompt: str | None = None
    tools: list[dict[str, Any]] | None = None
    template_sha256: str | None = None
    max_pixels: int | None = None
    thinking: bool = False
    base: Base | None = None
    quantized: str | None = None


def write(folder: Path, card: Card) -> Path:
    """Write `folder/dfk.json`; returns its path."""
    path = folder / NAME
    path.write_bytes(msgspec.json.format(msgspec.json.encode(card), indent=2) + b"\n")
    return path


def read(folder: Path) -> Card | None:
    """The card in `folder`, None if there is none. Raises `DataError` for a file that is no card."""
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        card = msgspec.json.decode(path.read_bytes(), type=Card)
    except msgspec.MsgspecError as error:
        raise DataError(f"{path}: not a model card of this project ({error})") from error
    if card.format != 1:
        raise DataError(
            f"{path}: format {card.format} is newer than this version of dfk reads (1); upgrade dfk"
        )
    return card


def folder_of(model: str | Path | None, adapter: str | Path | None) -> Path | None:
    """Where the note of a model lies: beside its adapter, else in the model's own folder; None for a hub
    name."""
    if adapter is not None:
        return Path(adapter)
    return Path(model) if model is not None and Path(model).is_dir() else None


def text_sha256(text: str) -> str:
    """The hash under which templates are recorded."""
    return hashlib.sha256(text.encode()).hexdigest()


def shapes_sha256(shapes: dict[str, tuple[int, ...]]) -> str:
    """Hash of a model's parameter names and shapes; independent of order, dtype and values."""
    lines = sorted(f"{name}:{','.join(map(str, shape))}" for name, shape in shapes.items())
    return text_sha256("\n".join(lines))


def refuse_mismatch(card: Card, where: str, asked: dict[str, Any]) -> None:
    """Compare what is asked for with what was trained. Raises `ConfigError` listing every difference.

    asked: card field -> value; None and absent mean "not asked for"."""
    faults = [
        f"{name} was {getattr(card, name)!r:.120} in training and is {value!r:.120} here"
        for name, value in asked.items()
        if value is not None and getattr(card, name) is not None and getattr(card, name) != value
    ]
    if faults:
        raise ConfigError(f"{where} does not fit this run: " + "; ".join(faults))

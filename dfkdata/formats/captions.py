"""Captions with their gold structure, one JSON object a row.

    {"caption": "A long table.", "gold": {"subjects": [...], "actions": [...], "setting": "indoor"},
     "id"?: key of the row, "image_id"?: key of the picture, "image"?: path or bytes}

Rows of one picture share a group: `image_id`, else a link, post id or case id, else the picture itself, else
the row's key, else the caption. A row may have a caption, an image or both. The caption is kept as
`meta.text`, which the answer must be grounded in."""

from __future__ import annotations

from typing import Any

import msgspec

from dfkdata.common.config import Config
from dfkdata.common.hashing import content_id
from dfkdata.formats import Fit, Likeness, Row, group_key, key, text
from dfkdata.rows.file_names import file_name
from dfkdata.rows.record import Record, RowError

SCHEMA: str | None = "caption"
COLUMNS = (frozenset({"caption"}), frozenset({"image"}))


class Options(Config):
    """caption, gold, image: the keys under which a row holds them."""

    caption: str = "caption"
    gold: str = "gold"
    image: str = "image"


def detect(row: Row) -> Likeness | None:
    """Return how much a row looks like a caption or a picture with its structure."""
    gold, shown = row.get("gold"), [name for name in ("caption", "image") if row.get(name)]
    structure = isinstance(gold, dict) or (isinstance(gold, str) and gold.lstrip().startswith("{"))
    return Likeness(Fit.LIKELY, f"{shown[0]} with an object under gold") if shown and structure else None


def record(row: Row, source: str, options: Options) -> Record:
    """Return one caption; a row with neither caption nor image, or without gold, raises `RowError`."""
    caption, image = text(row, options.caption), row.get(options.image)
    image = file_name(image, options.image) if isinstance(image, dict | bytes) else text(row, options.image)
    if not caption and not image:
        raise RowError(
            "EMPTY_USER", "neither a caption nor an image", path=options.caption, hint="give one of them"
        )
    gold = _gold(row, options.gold)
    name, picture = key(row, "id"), key(row, "image_id")
    content = content_id(caption, "", msgspec.json.encode(gold, order="sorted").decode())
    return Record(
        id=name or ("" if image else content),
        keyed=bool(name),
        group=picture or group_key(row) or ("" if image or name else content_id(caption)),
        source=source,
        fields={"caption": caption},
        images=(image,) if image else (),
        gold=gold,
        meta={"text": caption} if caption else {},
    )


def _gold(row: Row, name: str) -> dict[str, Any]:
    value = row.get(name)
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except msgspec.DecodeError as error:
            hint = "write the structure as a JSON object"
            raise RowError(
                "GOLD_INVALID", f"{name} is not JSON: {error}", path=name, value=value, hint=hint
            ) from error
    if not isinstance(value, dict):
        hint = "give the structure as a JSON object"
        raise RowError("GOLD_INVALID", f"{name} is missing or no object", path=name, value=value, hint=hint)
    return value

"""Find the splits that an input itself names, by names of files, of folders, or of splits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from dfkdata.common.errors import ConfigError
from dfkdata.rows.split_names import fold, folded, split_in, split_word
from dfkdata.sources._part import Part


def by_name(parts: list[Part], where: str) -> list[Part]:
    """Return parts with the splits that their names say, and with pictures beside their files."""
    placed = [replace(part, split=split_in(part.name)) if part.path is not None else part for part in parts]
    placed = [part if part.path is None else replace(part, root=part.path.parent) for part in placed]
    return own_names(placed, where)


def own_names(parts: list[Part], where: str) -> list[Part]:
    """Return parts with splits by name; two words for one split are refused, and training alone is no split.

    Raises `ConfigError`."""
    words = sorted({split_word(part.name) for part in parts if part.split is not None})
    if not set(folded(words, where).values()) - {"train"}:
        return [replace(part, split=None) for part in parts]
    return parts


def own_splits(names: Iterable[str], where: str) -> dict[str, str | None]:
    """Return name -> our name for the splits of one input; a training split alone leaves the split open."""
    splits: dict[str, str | None] = {**folded(names, where)}
    return dict.fromkeys(splits) if [*splits.values()] == ["train"] else splits


def hub_splits(names: Iterable[str], where: str) -> dict[str, str | None]:
    """Return name -> our name for the splits of a data set on the Hub; they stay open if one has another name."""
    known = sorted({*names} - {""})
    if any(fold(name) is None for name in known):
        return {}
    try:
        return own_splits(known, where)
    except ConfigError as error:
        raise ConfigError(f"{error} with --hub-split") from error

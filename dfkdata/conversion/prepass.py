"""Look at all rows before the first is written: for a random sample, a stratified split, and posts with two labels
that are to be rejected."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from dfkdata import sources
from dfkdata.common.errors import ConfigError
from dfkdata.conversion import reader, selection, splits
from dfkdata.conversion.options import ConvertOptions
from dfkdata.conversion.post_labels import Contradictions, PostKeys, PostLabels
from dfkdata.rows.record import Record, Reject, RowError
from dfkdata.schemas import Label, Schema


class Prepass(NamedTuple):
    """Hold what the first pass found.

    Attributes:
        chosen: Places (from 0) of the rows to take among those that fulfil the conditions; None for all.
        splitter: Divides them.
        matching: How many rows fulfilled the conditions; None if no look was needed.
    """

    chosen: Container[int] | None
    splitter: splits.Splitter
    matching: int | None = None


def look(
    options: ConvertOptions,
    schema: Schema | None,
    parts: Iterable[sources.Part],
    pairs: Callable[[sources.Part], Iterator[reader.Pair]],
    matches: Callable[[Any], bool],
    splitter: splits.HashSplit,
) -> Prepass:
    """Read all rows if the options ask for a sample or for strata.

    Args:
        options: The options of the conversion.
        schema: Its schema.
        parts: What to read.
        pairs: Reads a part.
        matches: Whether a raw row fulfils the conditions.
        splitter: The split without strata.

    Raises:
        ConfigError: The rows can be read only once, or no row has the field to stratify by.
    """
    first = range(options.limit) if options.limit is not None and not options.sample else None
    if not options.sample and options.stratify is None:
        return Prepass(first, splitter)
    parts = list(parts)
    require_second_reading(parts, "a sample or a stratified split")
    rows = (pair for part in parts for pair in pairs(part) if matches(pair[0]))
    strata = [_group_and_stratum(options, schema, raw, item) for raw, item in rows]
    chosen: Container[int] | None = first
    if options.sample and options.limit is not None:
        chosen = selection.sample((stratum for _, stratum in strata), options.limit, options.seed)
    if options.stratify is None:
        return Prepass(chosen, splitter, len(strata))
    if {stratum for _, stratum in strata} - {""} == {"None"}:
        raise ConfigError(f"no row has a value {options.stratify!r} to stratify by")
    grouped = (pair for at, pair in enumerate(strata) if pair[0] and (chosen is None or at in chosen))
    return Prepass(
        chosen, splits.StratifiedSplit(splitter, grouped, options.validation, options.test), len(strata)
    )


def require_second_reading(parts: Iterable[sources.Part], what: str) -> None:
    """Raise `ConfigError` if rows can be read only once, though `what` reads them twice."""
    if any(iter(part.memory) is part.memory for part in parts if part.path is None):
        raise ConfigError(f"{what} reads the rows twice; give a list, not an iterator")


def contradictions(
    parts: Sequence[sources.Part],
    pairs: Callable[[sources.Part], Iterator[reader.Pair]],
    takes: Callable[[Any], bool],
    post_of: Callable[[sources.Part, Any, Record], PostKeys | None],
) -> Contradictions:
    """Return the posts to which the rows that can be used give two labels.

    Args:
        parts: What to read.
        pairs: Reads a part.
        takes: Whether a raw row takes part.
        post_of: What tells the post and the labels of a row; raises `RowError` for one that cannot be used.

    Raises:
        ConfigError: The rows can be read only once.
    """
    require_second_reading(parts, "--rule TWO_LABELS=quarantine")
    posts, number = PostLabels(), 0
    for part in parts:
        for raw, item in pairs(part):
            if not takes(raw) or isinstance(item, Reject):
                continue
            try:
                keys = post_of(part, raw, item)
            except (RowError, UnicodeEncodeError):
                continue
            if keys is not None:
                posts.add(number, item.source, keys)
                number += 1
    return posts.contradictions()


def _group_and_stratum(
    options: ConvertOptions, schema: Schema | None, raw: Any, item: Record | Reject
) -> tuple[str, str]:
    """Return the group (empty without one) and the stratum of a row; both empty if it cannot be read."""
    if isinstance(item, Reject):
        return "", ""
    group = reader.group_of(item) if options.group_by is None else selection.text(raw, options.group_by) or ""
    return group, "" if options.stratify is None else _stratum(options.stratify, schema, raw, item)


def _stratum(field: str, schema: Schema | None, raw: Any, record: Record) -> str:
    value = (record.gold or {}).get(field)
    role = schema.roles.get(field) if schema is not None else None
    if isinstance(role, Label) and isinstance(value, str) and (resolved := role.labels.resolve(value)):
        return resolved.label
    return str(value if value is not None else selection.lookup(raw, field))

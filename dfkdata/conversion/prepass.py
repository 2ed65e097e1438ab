"""What needs a look at all rows before the first is written: a sample at random, and a stratified split."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from typing import Any, NamedTuple

from dfkdata import sources
from dfkdata.common.errors import ConfigError
from dfkdata.conversion import reader, selection, splits
from dfkdata.conversion.options import ConvertOptions
from dfkdata.rows.record import Record, Reject
from dfkdata.schemas import Label, Schema


class Found(NamedTuple):
    """chosen: places (from 0) of the rows to take, among those that fulfil the conditions; None for all.
    side: the rule that divides them. met: how many rows fulfilled the conditions,
    where they were looked at."""

    chosen: Container[int] | None
    side: splits.Splitter
    met: int | None = None


def look(
    plan: ConvertOptions,
    schema: Schema | None,
    parts: Iterable[sources.Part],
    pairs: Callable[[sources.Part], Iterator[reader.Pair]],
    meant: Callable[[Any], bool],
    side: splits.HashSplit,
) -> Found:
    """Read all rows where a sample or strata are asked for.

    pairs: reads a part. meant: whether a raw row fulfils the conditions. side: the rule without strata.
    Raises `ConfigError` for rows that can be read only once."""
    first = range(plan.limit) if plan.limit is not None and not plan.sample else None
    if not plan.sample and plan.stratify is None:
        return Found(first, side)
    parts = list(parts)
    if any(iter(part.memory) is part.memory for part in parts if part.path is None):
        raise ConfigError("a sample or a stratified split reads the rows twice; give a list, not an iterator")
    rows = (pair for part in parts for pair in pairs(part) if meant(pair[0]))
    strata = [_group_and_stratum(plan, schema, raw, item) for raw, item in rows]
    chosen: Container[int] | None = first
    if plan.sample and plan.limit is not None:
        chosen = selection.sample((stratum for _, stratum in strata), plan.limit, plan.seed)
    if plan.stratify is None:
        return Found(chosen, side, len(strata))
    if {stratum for _, stratum in strata} - {""} == {"None"}:
        raise ConfigError(f"no row has a value {plan.stratify!r} to stratify by")
    grouped = (pair for at, pair in enumerate(strata) if pair[0] and (chosen is None or at in chosen))
    return Found(chosen, splits.StratifiedSplit(side, grouped, plan.validation, plan.test), len(strata))


def _group_and_stratum(
    plan: ConvertOptions, schema: Schema | None, raw: Any, item: Record | Reject
) -> tuple[str, str]:
    """Both empty for a row that cannot be read, the group for one that lacks what to group by."""
    if isinstance(item, Reject):
        return "", ""
    group = reader.group_of(item) if plan.group_by is None else selection.text(raw, plan.group_by) or ""
    return group, "" if plan.stratify is None else _stratum(plan.stratify, schema, raw, item)


def _stratum(field: str, schema: Schema | None, raw: Any, record: Record) -> str:
    value = (record.gold or {}).get(field)
    role = schema.roles.get(field) if schema is not None else None
    if isinstance(role, Label) and isinstance(value, str) and (resolved := role.labels.resolve(value)):
        return resolved.label
    return str(value if value is not None else selection.lookup(raw, field))

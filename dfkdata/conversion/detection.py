"""Find the raw format of an input by its first rows: `--from auto`, and the hint about a format that does not fit.

How it works. Every member of the family says how much a row looks like it. A format fits if it can read at
least half of the rows that any format knows. Of those that fit, the one with the strongest sign is taken:
one row is enough for a sign that no other format writes, half of the rows for the others.

Guarantees: at most `ROWS` rows are looked at, equal inputs give equal answers, and two formats that fit
equally well and would read the rows differently are an error that names both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import msgspec

from dfkdata import sources
from dfkdata.common import plugins
from dfkdata.common.errors import ConfigError, DataError, DfkError
from dfkdata.formats import Fit, Likeness, likeness
from dfkdata.rows.record import RowError, shorten

FAMILY = "dfkdata.formats"
AUTO = "auto"
ROWS = 32
_PARTS = 8
_NAMES = 1000


@dataclass(frozen=True)
class Detected:
    """Hold the format that rows look like.

    Attributes:
        name: Its name.
        why: What was seen, as a clause.
    """

    name: str
    why: str


def is_auto(format: str) -> bool:
    """Return whether a format is to be found: "auto", or "auto,shop.reviews" with members of your own."""
    return format.split(",", maxsplit=1)[0] == AUTO


def detected(
    input: sources.Input,
    format: str,
    *,
    tables: sources.TableOptions | None = None,
    config: str | None = None,
    split: str | None = None,
) -> tuple[sources.Input, Detected]:
    """Return the input, of which no row is lost, and the format that it looks like.

    Args:
        input: As for `sources.parts`.
        format: "auto", or "auto," with dotted names of members outside this repository behind it.
        tables: How tables are written.
        config: As for `sources.parts`.
        split: As for `sources.parts`.

    Raises:
        ConfigError: No format fits, or two fit equally well.
        DataError: A file cannot be read.
    """
    members = _members([name.strip() for name in format.split(",")[1:] if name.strip()])
    by_files = _by_files(input, members)
    if by_files is not None:
        return input, by_files
    columns = [columns for _, member in members for columns in member.COLUMNS]
    input, rows = _first_rows(input, columns, tables, config, split)
    shown = str(input) if isinstance(input, str | Path) else "rows in memory"
    if not rows:
        raise ConfigError(f"{shown}: it has no row that shows its format; name the format with --from")
    best = _best(rows, members)
    if len(best) == 1:
        return input, best[0]
    if not best:
        has, known = shorten(", ".join(rows[0])), ", ".join(name for name, _ in members)
        raise ConfigError(f"{shown}: no format fits (the first row has {has}); name one with --from: {known}")
    choices = " or ".join(f"{one.name} ({one.why})" for one in best)
    raise ConfigError(f"{shown}: could be {choices}; name one with --from")


def other_format(rows: Sequence[Any], format: str, inputs: Iterable[sources.Input] = ()) -> Detected | None:
    """Return the format that rows look like more than they look like `format`; None if there is not one.

    Args:
        rows: Raw rows.
        format: The format that was named.
        inputs: Where they come from; names of files count before rows.
    """
    by_files = [found for one in inputs if (found := _by_files(one, _members(()))) is not None]
    if by_files:
        return by_files[0] if by_files[0].name != format else None
    known = [row for row in rows if isinstance(row, dict)][:ROWS]
    extra = [format] if format not in plugins.names(FAMILY) else []
    best = _best(known, _members(extra)) if known else []
    return best[0] if len(best) == 1 and best[0].name != format else None


@contextmanager
def advising(
    inputs: Iterable[sources.Input], format: str, about: type[DfkError] = DfkError
) -> Iterator[None]:
    """Add to an error about files which format they look like, if it is another than `format`.

    Args:
        inputs: What is read.
        format: The format that was named.
        about: The errors to add to.
    """
    try:
        yield
    except about as error:
        advice = next((found for input in inputs if (found := _advice(input, format))), "")
        if advice and advice not in str(error):
            advised = type(error)(f"{error}{advice}")
            for note in getattr(error, "__notes__", ()):
                advised.add_note(note)
            raise advised from error
        raise


def _advice(input: sources.Input, format: str) -> str:
    if not isinstance(input, str | Path) or str(input).startswith(sources.HUB):
        return ""
    try:
        _, found = detected(input, AUTO)
    except (ConfigError, DataError):
        return ""
    return "" if found.name == format else _looks_like(found)


def _looks_like(found: Detected) -> str:
    return f"; it looks like the format {found.name!r} ({found.why}): --from {found.name}"


def suggestion(rows: Sequence[Any], format: str) -> str:
    """Return `"; it looks like the format X (why): --from X"`, or an empty string."""
    other = other_format(rows, format)
    return _looks_like(other) if other is not None else ""


def _members(extra: Iterable[str]) -> list[tuple[str, ModuleType]]:
    return [(name, plugins.load(FAMILY, name)) for name in (*plugins.names(FAMILY), *extra)]


def _by_files(input: sources.Input, members: Sequence[tuple[str, ModuleType]]) -> Detected | None:
    """Return the format that the names of the first files show; None if they show none."""
    asked = [(name, member.detect_files) for name, member in members if hasattr(member, "detect_files")]
    names = sources.names(input, _NAMES)
    found = [(name, like) for name, detect in asked if names and (like := detect(names)) is not None]
    return Detected(found[0][0], found[0][1].why) if len(found) == 1 else None


def _first_rows(
    input: sources.Input,
    columns: Sequence[frozenset[str]],
    tables: sources.TableOptions | None,
    config: str | None,
    split: str | None,
) -> tuple[sources.Input, list[sources.Row]]:
    """Return the input and its first rows; what was taken from an iterator is put back before it."""
    looked: sources.Input = input
    if isinstance(input, Mapping):
        pairs = {name: _looked(rows) for name, rows in input.items()}
        looked, input = (
            {name: one for name, (one, _) in pairs.items()},
            {name: rest for name, (_, rest) in pairs.items()},
        )
    elif not isinstance(input, str | Path):
        looked, input = _looked(input)
    with TemporaryDirectory(prefix="dfk-detect-") as store:
        parts = sources.parts(
            looked, store=Path(store), config=config, split=split, tables=tables, data_only=True
        )[:_PARTS]
        share = ROWS // len(parts)
        rows = [row for part in parts for row in _some(sources.rows(part, columns), share)]
    return input, rows


def _looked(rows: Iterable[Any]) -> tuple[Iterable[Any], Iterable[Any]]:
    """Return rows to look at and the rows to convert: the same, unless they can be taken only once."""
    if isinstance(rows, str | Path) or not isinstance(rows, Iterator):
        return rows, rows
    first = list(islice(rows, ROWS))
    return first, chain(first, rows)


def _some(rows: Iterable[sources.SourcedRow], number: int) -> list[sources.Row]:
    """Return the first rows; at most as many pieces that are none are passed over."""
    return [row for row, _ in islice(rows, number) if isinstance(row, dict)]


def _best(rows: Sequence[sources.Row], members: Sequence[tuple[str, ModuleType]]) -> list[Detected]:
    """Return the format that fits best; several if they fit equally well and read the rows differently."""
    seen = {name: [likeness(member, row) for row in rows] for name, member in members}
    known = sum(any(found[at] is not None for found in seen.values()) for at in range(len(rows)))
    fits = {name: fit for name, found in seen.items() if (fit := _fit(found, known)) is not None}
    top = max((fit for fit, _ in fits.values()), default=None)
    best = {name: Detected(name, why) for name, (fit, why) in fits.items() if fit == top}
    modules = dict(members)
    readings = {_reading(modules[name], rows): one for name, one in reversed(best.items())}
    return list(reversed(readings.values()))


def _fit(found: Sequence[Likeness | None], known: int) -> tuple[Fit, str] | None:
    """Return how well a format fits all rows, and its most frequent sign of that strength."""
    signs = [one for one in found if one is not None]
    if not signs or 2 * len(signs) < known:
        return None
    marked = any(sign.fit == Fit.MARKED for sign in signs)
    fit = (
        Fit.MARKED
        if marked
        else max(
            fit for fit in Fit if fit == Fit.POSSIBLE or 2 * sum(sign.fit >= fit for sign in signs) >= known
        )
    )
    whys = Counter(sign.why for sign in signs if sign.fit >= fit) or Counter(sign.why for sign in signs)
    return fit, whys.most_common(1)[0][0]


def _reading(member: ModuleType, rows: Sequence[sources.Row]) -> bytes:
    """Return what a format makes of rows, as bytes: formats that read them alike are no choice."""
    options = member.Options()
    made: list[tuple[Any, ...] | None] = []
    for row in rows:
        try:
            record = member.record(row, "", options)
        except RowError:
            made.append(None)
        else:
            made.append((record.fields, record.images, record.gold, record.messages, record.tools))
    return msgspec.json.encode([member.SCHEMA, getattr(member, "VARIANT", None), made])

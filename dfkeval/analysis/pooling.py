"""Several runs of one model, such as other seeds, as one result: means, their intervals, and the spread.

Rows are aligned as in a comparison: only rows that all runs were asked alike count, the rest are counted by
reason."""

from __future__ import annotations

from dataclasses import dataclass, field

from dfkeval.analysis import statistics
from dfkeval.analysis.comparison import Side, align_all, rows_of, runs_of, settings_differ, side_name


@dataclass(frozen=True)
class Pool:
    """name: of the runs together. runs: their names. n: rows that all have. values: metric name -> mean with
    its interval and the runs' spread. left_out: reason -> rows. notes: what could not be pooled."""

    name: str
    runs: tuple[str, ...]
    n: int
    values: dict[str, statistics.Pooled]
    left_out: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def pool(side: Side) -> Pool:
    """The runs of `side` (as in `compare`) as one result.

    Raises `ConfigError` when they answer different schemas, `DataError` for a directory that is no run."""
    runs = runs_of(side, same_schema=True)
    first = runs[0]
    places, left_out = align_all(runs)
    groups = [first.samples[place].group for place in places[0]]
    values: dict[str, statistics.Pooled] = {}
    notes: list[str] = []
    for name in [name for name in first.measured if all(name in run.measured for run in runs)]:
        tables = [run.measured[name][1] for run in runs]
        note = next(filter(None, (settings_differ(name, tables[0], other) for other in tables[1:])), "")
        if note:
            notes.append(note)
            continue
        found = statistics.pooled(
            first.measured[name][0],
            [rows_of(table, kept) for table, kept in zip(tables, places, strict=True)],
            groups,
            resamples=first.config.resamples,
            confidence=first.config.confidence,
            seed=statistics.stream(first.config.seed, "bootstrap"),
        )
        values |= {f"{name}.{key}": value for key, value in found.items()}
    return Pool(side_name(runs), tuple(run.name for run in runs), len(groups), values, left_out, tuple(notes))

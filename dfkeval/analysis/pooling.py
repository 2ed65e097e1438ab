"""Pool several runs of one model, such as other seeds, into means with intervals, and the spread of the runs.

Rows are aligned as in a comparison: only rows that all runs were shown alike count; the others are counted by
reason."""

from __future__ import annotations

from dataclasses import dataclass, field

from dfkeval.analysis import bootstrap, statistics
from dfkeval.analysis.comparison import RunGroup, align_all, group_name, rows_of, runs_of, settings_differ


@dataclass(frozen=True)
class Pool:
    """Several runs as one result.

    Attributes:
        name: Name of the runs together.
        runs: Their names.
        n: Number of rows that all have.
        values: Value name -> mean with its interval and the runs' spread.
        left_out: Reason -> number of rows that are not comparable.
        notes: What could not be pooled, in words.
    """

    name: str
    runs: tuple[str, ...]
    n: int
    values: dict[str, statistics.Pooled]
    left_out: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def pool(group: RunGroup) -> Pool:
    """Pool the runs of a group.

    Args:
        group: As in `compare`.

    Returns:
        Means over the runs, on the rows that all have.

    Raises:
        ConfigError: The runs answer different schemas, or one is named twice.
        DataError: A folder holds no scored run.
    """
    runs = runs_of(group, same_schema=True)
    first = runs[0]
    places, left_out = align_all(runs)
    groups = [first.samples[place].group for place in places[0]]
    values: dict[str, statistics.Pooled] = {}
    notes: list[str] = []
    for name in [name for name in first.measured if all(name in run.measured for run in runs)]:
        tables = [run.measured[name][1] for run in runs]
        note = next(
            filter(
                None,
                (settings_differ(name, first.measured[name][0], tables[0], other) for other in tables[1:]),
            ),
            "",
        )
        if note:
            notes.append(note)
            continue
        means = statistics.pooled(
            first.measured[name][0],
            [rows_of(table, rows) for table, rows in zip(tables, places, strict=True)],
            groups,
            resamples=first.config.resamples,
            confidence=first.config.confidence,
            seed=bootstrap.stream(first.config.seed, "bootstrap"),
        )
        values |= {f"{name}.{key}": value for key, value in means.items()}
    return Pool(
        group_name(runs), tuple(run.name for run in runs), len(groups), values, left_out, tuple(notes)
    )

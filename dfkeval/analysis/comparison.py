"""Compare runs on the same rows: paired differences with intervals and tests, and the samples that changed.

How it works: rows are aligned by id. A row counts only if both runs were shown the same (prompt, tools,
image bytes) and compared with the same gold; the others are counted by reason. Runs that rendered with
another template or at other image sizes were not shown the same, so none of their rows are comparable, and a
metric with other settings is left out with a note. Each of the two may be a group of runs of one model
(other seeds): their means are compared on the rows that all runs have."""

from __future__ import annotations

import dataclasses
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace

from dfkdata.common.errors import ConfigError
from dfkdata.common.stored_lines import MadeSequence
from dfkeval.analysis import bootstrap, statistics
from dfkeval.analysis.statistics import Difference
from dfkeval.metrics import Measured, Metric
from dfkeval.models.identity import AnswerIdentity
from dfkeval.runs.directory import CONFIG
from dfkeval.runs.run import Run, load_run
from dfkeval.types import Sample

#: Shown first, in this order; p values are corrected for looking at these.
HEADLINES = (
    "validity.schema_valid", "validity.non_empty", "labels.accuracy", "labels.macro_f1", "fields.f1",
    "fields.exact", "grounding.rate", "coverage.rate", "bertscore.f1", "rouge.f1", "answers.f1",
    "keywords.phrase_f1", "calibration.ece", "loss.loss",
)  # fmt: skip


@dataclass(frozen=True)
class Change:
    """A sample whose outcome or strictly decoded answer differs between two runs."""

    id: str
    before: Sample
    after: Sample


@dataclass(frozen=True)
class Comparison:
    """Run b against run a on their common rows.

    Attributes:
        a: Name of the first run, or of the first group of runs.
        b: Name of the second.
        n: Number of common rows.
        differences: Value name -> b minus a, with interval and test.
        left_out: Reason -> number of rows that are not comparable.
        notes: What could not be compared, in words.
        changed: Samples whose strictly decoded answer differs; empty for groups of several runs.

    Example:
        >>> from dfkeval import Comparison
        >>> from dfkeval.analysis.statistics import Difference
        >>> change = Difference(0.2, 0.1, 0.3, 50, p=0.001, p_holm=0.002)
        >>> Comparison("base", "tuned", 50, {"labels.accuracy": change}).verdict("labels.accuracy")
        'better'
    """

    a: str
    b: str
    n: int
    differences: dict[str, Difference]
    left_out: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    changed: Sequence[Change] = ()

    def detectable(self, name: str) -> float | None:
        """Return the smallest true difference that these rows would show with 80 % power; None if unknown."""
        change = self.differences[name]
        return statistics.detectable(change.low, change.high)

    def verdict(self, name: str) -> str:
        """Return what the difference of one value means (see `Difference.verdict`)."""
        return self.differences[name].verdict


#: Fact by which two runs show the same row differently -> the reason in the report.
_SHOWN = {"template_sha256": "other chat template", "pixels": "other image size"}

#: A run, its folder, several of these, or a folder of runs; several are runs of one model.
RunGroup = Run | str | Path | Sequence[Run | str | Path]


def compare(
    a: RunGroup,
    b: RunGroup,
    *,
    resamples: int | None = None,
    confidence: float | None = None,
    seed: int | None = None,
) -> Comparison:
    """Compare run b with run a on their common rows.

    Args:
        a: A run, its folder, several of these, or a folder of runs. Several are runs of one model, such as
            other seeds, and count as one by their means.
        b: The same, for the second.
        resamples: Number of bootstrap resamples; None takes run a's.
        confidence: Coverage of the intervals; None takes run a's.
        seed: Seed of the resamples; None takes run a's.

    Returns:
        The differences b minus a.

    Raises:
        ConfigError: The runs answer different schemas, or one side names a run twice.
        DataError: A folder holds no scored run.

    Example:
        >>> import json
        >>> from pathlib import Path
        >>> from dfkeval import EvalConfig, compare, evaluate
        >>> rows = [{"id": name, "messages": [{"role": "user", "content": f"The capital of {name}?"}],
        ...          "meta": {"schema": "answer", "gold": {"answer": gold}}}
        ...         for name, gold in [("Indonesia", "Jakarta"), ("Japan", "Tokyo")]]
        >>> _ = Path("rows.jsonl").write_text("\\n".join(map(json.dumps, rows)))
        >>> for run, text in [("base", "Paris"), ("tuned", "Tokyo")]:
        ...     answers = [json.dumps({"id": row["id"], "text": text}) for row in rows]
        ...     _ = Path(f"{run}.jsonl").write_text("\\n".join(answers))
        ...     backend = {"kind": "scripted", "completions": f"{run}.jsonl"}
        ...     _ = evaluate(EvalConfig(data="rows.jsonl", backend=backend, metrics=["answers"]), run)
        >>> found = compare("base", "tuned")
        >>> found.n, found.differences["answers.exact"].value
        (2, 0.5)
    """
    return compare_all(a, [b], resamples=resamples, confidence=confidence, seed=seed)[0]


def compare_all(
    a: RunGroup,
    others: Sequence[RunGroup],
    *,
    resamples: int | None = None,
    confidence: float | None = None,
    seed: int | None = None,
) -> list[Comparison]:
    """Compare each of `others` with `a` (see `compare`); p values are corrected over the headline values of
    all."""
    first = runs_of(a)
    pairs = [_compare(first, runs_of(other), resamples, confidence, seed) for other in others]
    return _corrected(pairs)


def _compare(
    left: list[Run], right: list[Run], resamples: int | None, confidence: float | None, seed: int | None
) -> Comparison:
    first = left[0]
    _check_schema([*left, *right])
    places, left_out = align_all([*left, *right])
    groups = [first.samples[place].group for place in places[0]]
    values: dict[str, Difference] = {}
    notes: list[str] = []
    for name in first.measured:
        if not all(name in run.measured for run in [*left, *right]):
            continue
        tables = [run.measured[name][1] for run in [*left, *right]]
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
        rows = [rows_of(table, aligned) for table, aligned in zip(tables, places, strict=True)]
        differences = statistics.difference(
            first.measured[name][0],
            rows[: len(left)],
            rows[len(left) :],
            groups,
            resamples=resamples or first.config.resamples,
            confidence=confidence or first.config.confidence,
            seed=bootstrap.stream(first.config.seed if seed is None else seed, "bootstrap"),
        )
        values |= {f"{name}.{key}": value for key, value in differences.items()}
    notes += _unanswered([*left, *right], places)
    changed = _changed(left[0], right[0], places) if len(left) == len(right) == 1 else ()
    return Comparison(
        group_name(left), group_name(right), len(groups), values, left_out, tuple(notes), changed
    )


def _changed(a: Run, b: Run, places: Sequence[Sequence[int]]) -> Sequence[Change]:
    """Return the answers that changed; their samples are read when they are asked for."""

    first, second, (befores, afters) = a.samples, b.samples, places  # not the runs, which hold their metrics

    def change(at: int) -> Change:
        before, after = first[befores[at]], second[afters[at]]
        return Change(before.id, before, after)

    changes = MadeSequence(change, range(len(places[0])))
    return MadeSequence(change, array("Q", (at for at, pair in enumerate(changes) if _differ(pair))))


def _differ(pair: Change) -> bool:
    x, y = pair.before, pair.after
    return x.answered and y.answered and (x.value != y.value or x.outcome != y.outcome)


def _unanswered(runs: Sequence[Run], places: Sequence[Sequence[int]]) -> list[str]:
    """Return a note on the common rows that count in no value because a request failed; none without any."""
    rows = zip(*places, strict=True)
    lost = sum(not all(run.samples[at].answered for run, at in zip(runs, row, strict=True)) for row in rows)
    return [f"{lost} of the common rows got no answer in a run, and are in no value"] if lost else []


def _check_schema(runs: Sequence[Run]) -> None:
    first = runs[0]
    for other in runs:
        if other.schema.name != first.schema.name:
            raise ConfigError(
                f"{first.name} answers schema {first.schema.name!r}, {other.name} {other.schema.name!r}"
            )


def runs_of(group: RunGroup, *, same_schema: bool = False) -> list[Run]:
    """Return the runs of a group.

    Args:
        group: A run, its folder, several of these, or a folder of runs.
        same_schema: Whether all must answer the same schema.

    Raises:
        ConfigError: There are none, one of them stands there twice, or they answer different schemas.
        DataError: A folder holds no scored run.
    """
    runs = _runs_of(group)
    if not runs:
        raise ConfigError("compare: a group without runs; name one run or more")
    for folder, count in Counter(run.folder.resolve() for run in runs).items():
        if count > 1:
            raise ConfigError(
                f"{folder}: named {count} times on one side; a run that counts twice says nothing of the spread, "
                "so name each run once"
            )
    if same_schema:
        _check_schema(runs)
    return runs


def _runs_of(group: RunGroup) -> list[Run]:
    if isinstance(group, Run):
        return [group]
    if isinstance(group, str | Path):
        folder = Path(group)
        inner = (
            [] if (folder / CONFIG).exists() else sorted(path.parent for path in folder.glob(f"*/{CONFIG}"))
        )
        return [load_run(path) for path in inner or [folder]]
    return [run for member in group for run in _runs_of(member)]


def group_name(runs: Sequence[Run]) -> str:
    """Return the run's name; for several runs in one folder the folder's, with their number."""
    if len(runs) == 1:
        return runs[0].name
    parents = {run.folder.parent for run in runs}
    name = parents.pop().name if len(parents) == 1 else runs[0].name
    return f"{name} ({len(runs)} runs)"


def align(a: Run, b: Run) -> tuple[list[tuple[int, int]], dict[str, int]]:
    """Return the places of the comparable rows in both runs, and the number of the others by reason."""
    places, left_out = align_all([a, b])
    return list(zip(*places, strict=True)), left_out


def align_all(runs: Sequence[Run]) -> tuple[Sequence[Sequence[int]], dict[str, int]]:
    """Align the rows of several runs.

    Returns:
        For each run the places of the rows that are comparable in all runs, in the first run's order; and the
        number of the other rows by the first reason against them.
    """
    first, others = runs[0], runs[1:]
    tables = [{sample.id: index for index, sample in enumerate(run.samples)} for run in others]
    known = {sample.id for sample in first.samples}
    left_out: Counter[str] = Counter()
    for run, table in zip(others, tables, strict=True):
        left_out[f"only in {run.name}"] += len(table.keys() - known)
    settings = [_other_setting(first, run) for run in others]
    places = [array("Q") for _ in runs]
    for index, sample in enumerate(first.samples):
        reason, aligned = "", [index]
        for run, table, setting in zip(others, tables, settings, strict=True):
            place = table.get(sample.id)
            if place is None:
                reason = reason or f"only in {first.name}"
                continue
            reason = reason or setting or _other_row(sample, run.samples[place])
            aligned.append(place)
        if reason:
            left_out[reason] += 1
            continue
        for column, place in zip(places, aligned, strict=True):
            column.append(place)
    return places, {reason: count for reason, count in sorted(left_out.items()) if count}


def _other_setting(a: Run, b: Run) -> str:
    """Return why no row of the two runs can be compared; empty if they can. Unknown facts count as equal."""
    left, right = (AnswerIdentity.of(run.environment.get("backend")) for run in (a, b))
    fact = left.shown_differently(right)
    return "" if fact is None else _SHOWN.get(fact, f"other {fact}")


def _other_row(a: Sample, b: Sample) -> str:
    if a.key != b.key:
        return "other prompt or images"
    return "other gold" if a.gold != b.gold else ""


def settings_differ(name: str, metric: Metric, a: Measured, b: Measured) -> str:
    """Return why the numbers of one metric cannot be compared (`Metric.settings`); empty if they can."""
    one, other = ({key: run.details.get(key) for key in metric.settings} for run in (a, b))
    if one == other:
        return ""
    return f"{name} is not compared: one run used {_short(one)}, the other {_short(other)}"


def _short(facts: dict[str, Any]) -> str:
    shown = ", ".join(f"{key} {str(value)[:40]}" for key, value in facts.items() if value is not None)
    return shown or "the defaults"


def rows_of(measured: Measured, places: Sequence[int]) -> Measured:
    """Return the chosen rows of a metric's table."""
    rows = np.asarray(places, dtype=np.int64)
    if np.array_equal(rows, np.arange(len(measured.scored))):
        return measured
    return Measured(measured.columns, measured.values[rows], measured.scored[rows], measured.details)


def _corrected(pairs: Sequence[Comparison]) -> list[Comparison]:
    """Return the comparisons with Holm's correction over the headline values of all of them."""
    raw = {
        f"{place} {name}": pair.differences[name].p
        for place, pair in enumerate(pairs)
        for name in HEADLINES
        if name in pair.differences
    }
    p = statistics.holm(raw)
    return [
        dataclasses.replace(
            pair,
            differences={
                name: replace(value, p_holm=p.get(f"{place} {name}"))
                for name, value in pair.differences.items()
            },
        )
        for place, pair in enumerate(pairs)
    ]


COLUMNS = (
    "metric", "run", "against", "value", "value_against", "difference", "low", "high", "p", "p_holm", "test",
    "n", "verdict", "detectable",
)  # fmt: skip


def table(pairs: Sequence[Comparison]) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    """Return `COLUMNS` and one row for each difference, headline values first."""
    rows: list[tuple[object, ...]] = []
    for pair in pairs:
        first = [name for name in HEADLINES if name in pair.differences]
        for name in [*first, *(name for name in pair.differences if name not in first)]:
            d = pair.differences[name]
            rows.append(
                (name, pair.b, pair.a, d.b, d.a, d.value, d.low, d.high, d.p, d.p_holm, d.test, d.n,
                 d.verdict, pair.detectable(name))
            )  # fmt: skip
    return COLUMNS, rows

"""Two runs on the same rows: paired differences with intervals and tests, and the samples that changed.

Strategy: rows are aligned by id. A row counts only if both runs were shown the same (prompt, tools, image
bytes) and compared with the same gold; the rest are counted by reason. Runs that rendered with another
template or at other image sizes were not asked the same, so none of their rows are comparable, and a metric
with other settings is left out with a note. A side may be several runs of one model (other seeds): their
means are compared on the rows that all runs have."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from dfkdata.common.errors import ConfigError
from dfkeval.analysis import statistics
from dfkeval.analysis.statistics import Difference
from dfkeval.metrics import Measured
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
    """A sample whose outcome or strictly decoded answer differs between the runs."""

    id: str
    before: Sample
    after: Sample


@dataclass(frozen=True)
class Comparison:
    """a, b: names of the runs. differences: metric name -> b minus a on the `n` common rows. left_out:
    reason -> rows.

    notes: what could not be compared, in words. changed: samples whose strictly decoded answer differs."""

    a: str
    b: str
    n: int
    differences: dict[str, Difference]
    left_out: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    changed: tuple[Change, ...] = ()

    def detectable(self, name: str) -> float | None:
        """Smallest true difference that these rows would show with 80 % power; None without an interval."""
        change = self.differences[name]
        return statistics.detectable(change.low, change.high)

    def verdict(self, name: str) -> str:
        """What the difference of one value means (`stats.Difference.verdict`)."""
        return self.differences[name].verdict


#: Fact by which two runs show the same row differently -> the reason in the report.
_SHOWN = {"template_sha256": "other chat template", "pixels": "other image size"}

Side = Run | str | Path | Sequence[Run | str | Path]


def compare(
    a: Side,
    b: Side,
    *,
    resamples: int | None = None,
    confidence: float | None = None,
    seed: int | None = None,
) -> Comparison:
    """Run b against run a on their common rows. resamples, confidence, seed: run a's where not given.

    A side is a run, its folder, several of these, or a folder of runs: repeats of one model. Raises
    `ConfigError` when the runs answer different schemas, and `DataError` for a directory that is no run."""
    return compare_all(a, [b], resamples=resamples, confidence=confidence, seed=seed)[0]


def compare_all(
    a: Side,
    others: Sequence[Side],
    *,
    resamples: int | None = None,
    confidence: float | None = None,
    seed: int | None = None,
) -> list[Comparison]:
    """Each of `others` against `a`, as `compare`; p values are corrected over the headline values of all."""
    first = runs_of(a)
    found = [_compare(first, runs_of(other), resamples, confidence, seed) for other in others]
    return _corrected(found)


def _compare(
    left: list[Run], right: list[Run], resamples: int | None, confidence: float | None, seed: int | None
) -> Comparison:
    first = left[0]
    _refuse_other_schema([*left, *right])
    places, left_out = align_all([*left, *right])
    groups = [first.samples[place].group for place in places[0]]
    found: dict[str, Difference] = {}
    notes: list[str] = []
    for name in first.measured:
        if not all(name in run.measured for run in [*left, *right]):
            continue
        tables = [run.measured[name][1] for run in [*left, *right]]
        note = next(filter(None, (settings_differ(name, tables[0], other) for other in tables[1:])), "")
        if note:
            notes.append(note)
            continue
        rows = [rows_of(table, kept) for table, kept in zip(tables, places, strict=True)]
        differences = statistics.difference(
            first.measured[name][0],
            rows[: len(left)],
            rows[len(left) :],
            groups,
            resamples=resamples or first.config.resamples,
            confidence=confidence or first.config.confidence,
            seed=statistics.stream(first.config.seed if seed is None else seed, "bootstrap"),
        )
        found |= {f"{name}.{key}": value for key, value in differences.items()}
    notes += _unanswered([*left, *right], places)
    changed = _changed(left[0], right[0], places) if len(left) == len(right) == 1 else ()
    return Comparison(side_name(left), side_name(right), len(groups), found, left_out, tuple(notes), changed)


def _changed(a: Run, b: Run, places: Sequence[list[int]]) -> tuple[Change, ...]:
    pairs = [(a.samples[x], b.samples[y]) for x, y in zip(*places, strict=True)]
    both = [(x, y) for x, y in pairs if x.answered and y.answered]
    return tuple(Change(x.id, x, y) for x, y in both if x.value != y.value or x.outcome != y.outcome)


def _unanswered(runs: Sequence[Run], places: Sequence[list[int]]) -> list[str]:
    """A note on the common rows that are in no value, because a request failed; none without any."""
    rows = zip(*places, strict=True)
    lost = sum(not all(run.samples[at].answered for run, at in zip(runs, row, strict=True)) for row in rows)
    return [f"{lost} of the common rows got no answer in a run, and are in no value"] if lost else []


def _refuse_other_schema(runs: Sequence[Run]) -> None:
    first = runs[0]
    for other in runs:
        if other.schema.name != first.schema.name:
            raise ConfigError(
                f"{first.name} answers schema {first.schema.name!r}, {other.name} {other.schema.name!r}"
            )


def runs_of(side: Side, *, same_schema: bool = False) -> list[Run]:
    """The runs of one side. Raises `ConfigError` for none, or for several schemas where they must be the
    same, and `DataError` for a folder that holds no run."""
    found = _runs_of(side)
    if not found:
        raise ConfigError("compare: a side without runs; name one run or more")
    if same_schema:
        _refuse_other_schema(found)
    return found


def _runs_of(side: Side) -> list[Run]:
    if isinstance(side, Run):
        return [side]
    if isinstance(side, str | Path):
        folder = Path(side)
        inner = (
            [] if (folder / CONFIG).exists() else sorted(path.parent for path in folder.glob(f"*/{CONFIG}"))
        )
        return [load_run(path) for path in inner or [folder]]
    return [run for each in side for run in _runs_of(each)]


def side_name(side: Sequence[Run]) -> str:
    """The run's name; of several runs in one folder that folder's, with their number."""
    if len(side) == 1:
        return side[0].name
    parents = {run.folder.parent for run in side}
    name = parents.pop().name if len(parents) == 1 else side[0].name
    return f"{name} ({len(side)} runs)"


def align(a: Run, b: Run) -> tuple[list[tuple[int, int]], dict[str, int]]:
    """Places of the comparable rows in both runs, and the number of the others by reason."""
    places, left_out = align_all([a, b])
    return list(zip(*places, strict=True)), left_out


def align_all(runs: Sequence[Run]) -> tuple[list[list[int]], dict[str, int]]:
    """For each run the places of the rows that are comparable with the first run's in all of them, in the
    first run's order, and the number of the other rows by the first reason against them."""
    first, others = runs[0], runs[1:]
    tables = [{sample.id: index for index, sample in enumerate(run.samples)} for run in others]
    known = {sample.id for sample in first.samples}
    left_out: Counter[str] = Counter()
    for run, table in zip(others, tables, strict=True):
        left_out[f"only in {run.name}"] += len(table.keys() - known)
    settings = [_other_setting(first, run) for run in others]
    places: list[list[int]] = [[] for _ in runs]
    for index, sample in enumerate(first.samples):
        reason, found = "", [index]
        for run, table, setting in zip(others, tables, settings, strict=True):
            place = table.get(sample.id)
            if place is None:
                reason = reason or f"only in {first.name}"
                continue
            reason = reason or setting or _other_row(sample, run.samples[place])
            found.append(place)
        if reason:
            left_out[reason] += 1
            continue
        for kept, place in zip(places, found, strict=True):
            kept.append(place)
    return places, {reason: count for reason, count in sorted(left_out.items()) if count}


def _other_setting(a: Run, b: Run) -> str:
    """Why no row of the two runs can be compared; empty when they can. Unknown settings are taken as
    equal."""
    left, right = (AnswerIdentity.of(run.environment.get("backend")) for run in (a, b))
    fact = left.shown_differently(right)
    return "" if fact is None else _SHOWN.get(fact, f"other {fact}")


def _other_row(a: Sample, b: Sample) -> str:
    if a.key != b.key:
        return "other prompt or images"
    return "other gold" if a.gold != b.gold else ""


def settings_differ(name: str, a: Measured, b: Measured) -> str:
    """Why the numbers of one metric do not belong on one scale; empty when they do."""
    keys = (
        "model", "weights_sha256", "layer", "idf", "dtype", "threshold", "windows", "evaluator", "normalize",
    )  # fmt: skip
    sides = [{key: run.details.get(key) for key in keys} for run in (a, b)]
    if sides[0] == sides[1]:
        return ""
    return f"{name} is not compared: one run used {_short(sides[0])}, the other {_short(sides[1])}"


def _short(facts: dict[str, Any]) -> str:
    return ", ".join(f"{key} {str(value)[:40]}" for key, value in facts.items() if value is not None)


def rows_of(measured: Measured, places: list[int]) -> Measured:
    """The chosen rows of a metric's table."""
    return Measured(measured.columns, measured.values[places], measured.scored[places], measured.details)


def _corrected(found: Sequence[Comparison]) -> list[Comparison]:
    """The same comparisons with Holm's correction over the headline values of all of them."""
    raw = {
        f"{place} {name}": each.differences[name].p
        for place, each in enumerate(found)
        for name in HEADLINES
        if name in each.differences
    }
    p = statistics.holm(raw)
    return [
        dataclasses.replace(
            each,
            differences={
                name: replace(value, p_holm=p.get(f"{place} {name}"))
                for name, value in each.differences.items()
            },
        )
        for place, each in enumerate(found)
    ]


COLUMNS = (
    "metric", "run", "against", "value", "value_against", "difference", "low", "high", "p", "p_holm", "test",
    "n", "verdict", "detectable",
)  # fmt: skip


def table(found: Sequence[Comparison]) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    """(`COLUMNS`, one row for each difference), headline values first."""
    rows: list[tuple[object, ...]] = []
    for each in found:
        first = [name for name in HEADLINES if name in each.differences]
        for name in [*first, *(name for name in each.differences if name not in first)]:
            d = each.differences[name]
            rows.append(
                (name, each.b, each.a, d.b, d.a, d.value, d.low, d.high, d.p, d.p_holm, d.test, d.n,
                 d.verdict, each.detectable(name))
            )  # fmt: skip
    return COLUMNS, rows

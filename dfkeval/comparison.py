"""Two runs on the same rows: paired differences with intervals and tests, and the samples that changed.

Strategy: rows are aligned by id. A row counts only if both runs were shown the same (prompt, tools, image
bytes) and compared with the same gold; the rest are counted by reason. Runs that rendered with another
template or at other image sizes were not asked the same, so none of their rows are comparable, and a metric
with other settings is left out with a note."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from dfkdata.errors import ConfigError
from dfkeval import stats
from dfkeval.harness import Run, load_run
from dfkeval.metrics import Measured
from dfkeval.samples import Sample
from dfkeval.stats import Difference

#: Shown first, in this order; p values are corrected for looking at these.
HEADLINES = (
    "validity.schema_valid", "validity.non_empty", "labels.accuracy", "labels.macro_f1", "fields.f1",
    "fields.exact", "grounding.rate", "coverage.rate", "bertscore.f1", "rouge.f1",
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
        return stats.detectable(change.low, change.high)

    def verdict(self, name: str) -> str:
        """ "better", "worse" or "no difference shown", by whether the interval excludes 0; "n/a" without
        one."""
        change = self.differences[name]
        if change.low is None or change.high is None:
            return "n/a"
        if change.low > 0:
            return "better"
        return "worse" if change.high < 0 else "no difference shown"


def compare(
    a: Run | str | Path,
    b: Run | str | Path,
    *,
    resamples: int | None = None,
    confidence: float | None = None,
    seed: int | None = None,
) -> Comparison:
    """Run b against run a on their common rows. resamples, confidence, seed: run a's where not given.

    Raises `ConfigError` when the runs answer different schemas, and `DataError` for a directory that is no
    run."""
    first, second = _run(a), _run(b)
    if first.schema.name != second.schema.name:
        raise ConfigError(
            f"{first.name} answers schema {first.schema.name!r}, {second.name} {second.schema.name!r}"
        )
    pairs, left_out = align(first, second)
    places = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    groups = [first.samples[place].group for place in places[0]]
    found: dict[str, Difference] = {}
    notes: list[str] = []
    for name in [name for name in first.measured if name in second.measured]:
        metric, left = first.measured[name]
        right = second.measured[name][1]
        note = settings_differ(name, left, right)
        if note:
            notes.append(note)
            continue
        differences = stats.difference(
            metric,
            _rows(left, places[0]),
            _rows(right, places[1]),
            groups,
            resamples=resamples or first.config.resamples,
            confidence=confidence or first.config.confidence,
            seed=stats.stream(first.config.seed if seed is None else seed, "bootstrap"),
        )
        found |= {f"{name}.{key}": value for key, value in differences.items()}
    changed = tuple(
        Change(first.samples[x].id, first.samples[x], second.samples[y])
        for x, y in pairs
        if first.samples[x].value != second.samples[y].value
        or first.samples[x].outcome != second.samples[y].outcome
    )
    return Comparison(first.name, second.name, len(pairs), _corrected(found), left_out, tuple(notes), changed)


def _run(run: Run | str | Path) -> Run:
    return run if isinstance(run, Run) else load_run(run)


def align(a: Run, b: Run) -> tuple[list[tuple[int, int]], dict[str, int]]:
    """Places of the comparable rows in both runs, and the number of the others by reason."""
    place = {sample.id: index for index, sample in enumerate(b.samples)}
    left_out: Counter[str] = Counter()
    left_out[f"only in {b.name}"] = len(place.keys() - {sample.id for sample in a.samples})
    setting = _other_setting(a, b)
    pairs = []
    for index, sample in enumerate(a.samples):
        reason = f"only in {a.name}"
        if sample.id in place:
            reason = setting or _other_row(sample, b.samples[place[sample.id]])
        if reason:
            left_out[reason] += 1
        else:
            pairs.append((index, place[sample.id]))
    return pairs, {reason: count for reason, count in sorted(left_out.items()) if count}


def _other_setting(a: Run, b: Run) -> str:
    """Why no row of the two runs can be compared; empty when they can. Unknown settings are taken as
    equal."""
    facts = [run.environment.get("backend", {}) for run in (a, b)]
    for key, reason in (("template_sha256", "other chat template"), ("pixels", "other image size")):
        known = [fact[key] for fact in facts if fact.get(key) is not None]
        if len(known) == 2 and known[0] != known[1]:
            return reason
    return ""


def _other_row(a: Sample, b: Sample) -> str:
    if a.key != b.key:
        return "other prompt or images"
    return "other gold" if a.gold != b.gold else ""


def settings_differ(name: str, a: Measured, b: Measured) -> str:
    """Why the numbers of one metric do not belong on one scale; empty when they do."""
    keys = ("model", "weights_sha256", "layer", "idf", "dtype")
    sides = [{key: run.details.get(key) for key in keys} for run in (a, b)]
    if sides[0] == sides[1]:
        return ""
    return f"{name} is not compared: one run used {_short(sides[0])}, the other {_short(sides[1])}"


def _short(facts: dict[str, Any]) -> str:
    return ", ".join(f"{key} {str(value)[:40]}" for key, value in facts.items() if value is not None)


def _rows(measured: Measured, places: list[int]) -> Measured:
    return Measured(measured.columns, measured.values[places], measured.scored[places], measured.details)


def _corrected(found: dict[str, Difference]) -> dict[str, Difference]:
    """The same differences with Holm's correction over the headline values."""
    p = stats.holm({name: found[name].p for name in HEADLINES if name in found})
    return {name: replace(difference, p_holm=p.get(name)) for name, difference in found.items()}

"""FAMILY: one metric a file.

A member gives METRIC, a `Metric` of two functions:

    measure(samples, scoring) -> Measured   every sample, failures included; (N, K) sufficient statistics
    reduce(sums, columns) -> {name: (R,)}   weighted column sums (R, K) -> values; NaN: nothing was scored

Ten thousand resamples, clusters and weights are then one matrix product, and a failed answer cannot leave
the mean: it has a row of its own in `values`. Rows where `scored` is False (no gold, no source text,
request failed) are all zero, add nothing to any sum, and are not in `n`. A metric asks the schema for roles
and never names a field."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfkdata.common import plugins
from dfkdata.common.config import Config
from dfkdata.common.errors import ConfigError
from dfkdata.schemas import Role, Schema
from dfkeval.types import Sample

FAMILY = "dfkeval.metrics"

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Scoring:
    """What a metric may know besides the samples. options: the member's own settings by member name."""

    schema: Schema
    options: Mapping[str, Config] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """columns: K names. values: (N, K). scored: (N,), whether the sample is in `n`. details: facts for the
    report."""

    columns: tuple[str, ...]
    values: Floats
    scored: Bools
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Metric:
    """needs: at least one of these roles must be in the schema; empty for any schema.

    binary: value name -> column that is 0 or 1 for each sample; runs are compared on it by McNemar's test.

    reproduces: the tool whose published numbers it repeats, with that tool's own treatment of failures.

    lower_is_better: value names where a smaller number is the better one. likelihoods: it needs the
    likelihood of the gold answers, which the harness then asks for (`dfkeval.evaluation.likelihood`).

    counted: value name, or its part before the first dot -> column that is 1 for each row the value is made
    of, where these are not all scored rows; it is the value's `n`.

    unbounded: endings of the names of values that are no shares, and may leave [0, 1]."""

    measure: Callable[[Sequence[Sample], Scoring], Measured]
    reduce: Callable[[Floats, tuple[str, ...]], dict[str, Floats]]
    needs: tuple[type[Role], ...] = ()
    binary: Mapping[str, str] = field(default_factory=dict)
    reproduces: str = ""
    lower_is_better: tuple[str, ...] = ()
    likelihoods: bool = False
    counted: Mapping[str, str] = field(default_factory=dict)
    unbounded: tuple[str, ...] = ()

    def is_share(self, name: str) -> bool:
        """Whether a value lies in [0, 1] for whatever is measured."""
        return not name.endswith(self.unbounded)


def load(name: str) -> Metric:
    """The metric of member `name`, or of a dotted module outside. Raises `ConfigError` with the choices."""
    module = plugins.load(FAMILY, name)
    metric = getattr(module, "METRIC", None)
    if not isinstance(metric, Metric):
        raise ConfigError(f"metric {name!r}: the module has no METRIC of type dfkeval.metrics.Metric")
    return metric


def check(name: str, metric: Metric, schema: Schema) -> None:
    """Raises `ConfigError` when the schema has no field that this metric could judge."""
    if metric.needs and not fields_of(schema, metric.needs):
        wanted = " or ".join(kind.__name__ for kind in metric.needs)
        raise ConfigError(
            f"metric {name!r} needs a field with the role {wanted}; schema {schema.name!r} has none"
        )


def fields_of(schema: Schema, kinds: tuple[type[Role], ...]) -> list[str]:
    """Names of the fields that play one of `kinds`, in field order."""
    return [name for name, role in schema.roles.items() if isinstance(role, kinds)]


def column(sums: Floats, columns: tuple[str, ...], name: str) -> Floats:
    """(R, K) -> (R,): one column of the sums by its name."""
    found: Floats = sums[:, columns.index(name)]
    return found


def ratio(top: Floats, bottom: Floats) -> Floats:
    """top / bottom, NaN where bottom is 0: nothing was scored, which is not the same as a score of 0."""
    out = np.full(np.broadcast(top, bottom).shape, np.nan)
    np.divide(top, bottom, out=out, where=bottom != 0)
    return out


def f1(hit: Floats, wrong: Floats, missed: Floats) -> Floats:
    """2·hit / (2·hit + wrong + missed), NaN where there was nothing to find and nothing was said."""
    return ratio(2 * hit, 2 * hit + wrong + missed)

"""FAMILY: metrics, one a file.

A member has `METRIC`, a `Metric` of two functions, and may have `Options`, a `dfkdata.common.config.Config`
that users fill in under `metric_options: {NAME: ...}`; `scoring.options_of(NAME, Options)` returns them.

    measure(samples, scoring) -> Measured   one row of sufficient statistics for every sample, failures
    included reduce(sums, columns) -> {name: (R,)}   weighted sums of the columns, (R, K), to values

This is a whole member; saved as `long_answers.py` it is used as `metrics: [long_answers]`:

    >>> import numpy as np
    >>> from dfkdata.common.config import Config
    >>> from dfkeval.metrics import Measured, Metric, column, ratio
    >>> class Options(Config):
    ...     least: int = 100
    >>> def measure(samples, scoring):
    ...     least = scoring.options_of("long_answers", Options).least
    ...     rows = [[sample.answered, sample.answered and len(sample.text) >= least] for sample in samples]
    ...     values = np.array(rows, dtype=float).reshape(len(rows), 2)
    ...     return Measured(("n", "long"), values, values[:, 0] > 0)
    >>> def reduce(sums, columns):
    ...     return {"rate": ratio(column(sums, columns, "long"), column(sums, columns, "n"))}
    >>> METRIC = Metric(measure, reduce, binary={"rate": "long"})

Guarantees that every member keeps:

- A failed answer has a row of its own in `values`, so it cannot leave the mean.
- A sample that is not scored (no gold, no source text, request failed) has a row of zeros: it adds nothing
  to any sum and is not counted in `n`.
- `reduce` knows the sums alone, so that ten thousand resamples are one matrix product.
- A metric asks the schema for roles and never names a field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dfkdata.common import plugins
from dfkdata.common.config import Config, bind
from dfkdata.common.errors import ConfigError
from dfkdata.schemas import Schema
from dfkeval.metrics._contract import Bools as Bools
from dfkeval.metrics._contract import Floats as Floats
from dfkeval.metrics._contract import Measured, Metric, Scoring, column, f1, fields_of, ratio
from dfkeval.metrics._contract import options_of as options_of

__all__ = ["Measured", "Metric", "Scoring", "column", "f1", "fields_of", "ratio"]

FAMILY = "dfkeval.metrics"


def load(name: str) -> Metric:
    """Return the metric of member `name`, or of a dotted module outside. Raises `ConfigError` with the
    choices."""
    metric = getattr(plugins.load(FAMILY, name), "METRIC", None)
    if not isinstance(metric, Metric):
        raise ConfigError(f"metric {name!r}: the module has no METRIC of type dfkeval.metrics.Metric")
    return metric


def check(name: str, metric: Metric, schema: Schema) -> None:
    """Raise `ConfigError` if the schema has no field that this metric could score."""
    if metric.needs and not fields_of(schema, metric.needs):
        roles = " or ".join(kind.__name__ for kind in metric.needs)
        raise ConfigError(
            f"metric {name!r} needs a field with the role {roles}; schema {schema.name!r} has none"
        )


def options_class(name: str) -> type[Config] | None:
    """Return the `Options` of member `name`; None if it has none. Raises `ConfigError` as `load`."""
    options = getattr(plugins.load(FAMILY, name), "Options", None)
    return options if isinstance(options, type) and issubclass(options, Config) else None


def bind_options(name: str, values: Mapping[str, Any], where: str) -> Config:
    """Return the options of member `name` with these values.

    Raises:
        ConfigError: The member has no options, a key is unknown, or a value does not fit; `where` names the
            place."""
    options = options_class(name)
    if options is None:
        raise ConfigError(f"{where}: metric {name!r} has no options")
    return bind(dict(values), options, where)

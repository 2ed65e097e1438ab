"""What a metric is made of; `dfkeval.metrics` exports it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfkdata.common.config import C, Config
from dfkdata.common.errors import ConfigError
from dfkdata.schemas import Label, Role, Schema
from dfkeval.types import Sample

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Scoring:
    """What a metric may know besides the samples.

    Attributes:
        schema: The schema of the answers; a metric asks it for roles and never names a field.
        options: Member name -> its options; a member without an entry has its defaults.

    Example:
        >>> from dfkdata import schemas
        >>> from dfkeval.metrics import Scoring
        >>> from dfkeval.metrics.grounding import Options
        >>> Scoring(schemas.load("caption")).options_of("grounding", Options).language
        'en'
    """

    schema: Schema
    options: Mapping[str, Config] = field(default_factory=dict)

    def options_of(self, member: str, kind: type[C]) -> C:
        """Return the options of a member (see `options_of`)."""
        return options_of(self.options, member, kind)


def options_of(options: Mapping[str, Config], member: str, kind: type[C]) -> C:
    """Return the options of a metric, its defaults if none are configured.

    Args:
        options: Member name -> its options.
        member: Name of the metric, such as "bertscore".
        kind: The member's `Options`.

    Raises:
        ConfigError: The options are of another class."""
    chosen = options.get(member)
    if chosen is None:
        return kind()
    if not isinstance(chosen, kind):
        raise ConfigError(f"{member}: options are {type(chosen).__qualname__}, not {kind.__module__}.Options")
    return chosen


@dataclass(frozen=True)
class Measured:
    """The sufficient statistics of a metric, one row a sample.

    Attributes:
        columns: Names of the K columns.
        values: Numbers of shape (N, K); a row that is not scored is all zero.
        scored: Booleans of shape (N,): whether the sample counts in `n`.
        details: Facts for the report, JSON types only; what two runs must share to be compared is here
            too.

    Example:
        >>> import numpy as np
        >>> from dfkeval.metrics import Measured
        >>> values = np.array([[1.0, 1.0], [0.0, 0.0]])
        >>> Measured(("n", "hit"), values, values[:, 0] > 0).scored.tolist()
        [True, False]
    """

    columns: tuple[str, ...]
    values: Floats
    scored: Bools
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Metric:
    """A metric: two functions, and what is known about its values.

    Attributes:
        measure: Samples and scoring -> sufficient statistics of every sample, failures included.
        reduce: Weighted sums of the columns, of shape (R, K), and the columns' names -> value name -> (R,)
            numbers; NaN means that nothing was scored.
        needs: At least one of these roles must be in the schema; empty for any schema.
        binary: Value name -> column that is 0 or 1 for each sample. Runs are compared on it by McNemar's
            test.
        reproduces: The tool whose published numbers it repeats, with that tool's own treatment of failures.
        lower_is_better: Names of the values of which a smaller number is the better one.
        likelihoods: Whether it needs the likelihood of the gold answers, which an evaluation then computes.
        counted: Value name, or its part before the first dot -> column that is 1 for each row that the value
            is made of, if these are not all scored rows; their number is the value's `n`.
        unbounded: Endings of the names of values that are no shares and may leave [0, 1].
        averages: Value name -> pattern of the values that it is the plain mean of, such as "f1.*": its interval
            then knows that the rows of a rare class weigh more.
        settings: Names of the details that two runs must share for their values to be compared.

    Example:
        >>> import numpy as np
        >>> from dfkeval.metrics import Measured, Metric, column, ratio
        >>> def measure(samples, scoring):
        ...     values = np.array([[sample.answered, len(sample.text) < 80] for sample in samples], dtype=float)
        ...     return Measured(("n", "short"), values, values[:, 0] > 0)
        >>> def reduce(sums, columns):
        ...     return {"rate": ratio(column(sums, columns, "short"), column(sums, columns, "n"))}
        >>> Metric(measure, reduce, binary={"rate": "short"}).is_share("rate")
        True
    """

    measure: Callable[[Sequence[Sample], Scoring], Measured]
    reduce: Callable[[Floats, tuple[str, ...]], dict[str, Floats]]
    needs: tuple[type[Role], ...] = ()
    binary: Mapping[str, str] = field(default_factory=dict)
    reproduces: str = ""
    lower_is_better: tuple[str, ...] = ()
    likelihoods: bool = False
    counted: Mapping[str, str] = field(default_factory=dict)
    unbounded: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    averages: Mapping[str, str] = field(default_factory=dict)

    def is_share(self, name: str) -> bool:
        """Return whether the value lies in [0, 1] for whatever is measured."""
        return not name.endswith(self.unbounded)


def fields_of(schema: Schema, kinds: tuple[type[Role], ...]) -> list[str]:
    """Return the names of the fields that play one of several roles.

    Args:
        schema: The schema of the answers.
        kinds: Classes of roles, such as `dfkdata.schemas.Label`.

    Returns:
        The names in the order of the fields.

    Example:
        >>> from dfkdata import schemas
        >>> from dfkdata.schemas import Label
        >>> from dfkeval.metrics import fields_of
        >>> fields_of(schemas.load("dfk_label"), (Label,))
        ['label']
    """
    return [name for name, role in schema.roles.items() if isinstance(role, kinds)]


def column(sums: Floats, columns: tuple[str, ...], name: str) -> Floats:
    """Return one column of the sums by its name.

    Args:
        sums: Sums of shape (R, K).
        columns: Names of the K columns.
        name: One of them.

    Returns:
        The column, of shape (R,).

    Example:
        >>> import numpy as np
        >>> from dfkeval.metrics import column
        >>> column(np.array([[4.0, 3.0]]), ("n", "hit"), "hit").tolist()
        [3.0]
    """
    values: Floats = sums[:, columns.index(name)]
    return values


def ratio(top: Floats, bottom: Floats) -> Floats:
    """Divide, and return NaN if the divisor is 0: nothing was scored, which is not the same as a score of 0.

    Args:
        top: Numbers of shape (R,).
        bottom: Divisors of shape (R,).

    Returns:
        Quotients of shape (R,).

    Example:
        >>> import numpy as np
        >>> from dfkeval.metrics import ratio
        >>> ratio(np.array([3.0, 0.0]), np.array([4.0, 0.0])).tolist()
        [0.75, nan]
    """
    out = np.full(np.broadcast(top, bottom).shape, np.nan)
    np.divide(top, bottom, out=out, where=bottom != 0)
    return out


def f1(hit: Floats, wrong: Floats, missed: Floats) -> Floats:
    """Compute F1 from counts: 2·hit / (2·hit + wrong + missed).

    Args:
        hit: Number of things that are in gold and answer, of shape (R,).
        wrong: Number of things in the answer alone.
        missed: Number of things in the gold alone.

    Returns:
        Numbers of shape (R,); NaN if there was nothing to find and nothing was answered.

    Example:
        >>> import numpy as np
        >>> from dfkeval.metrics import f1
        >>> f1(np.array([2.0]), np.array([1.0]), np.array([1.0])).round(3).tolist()
        [0.667]
    """
    return ratio(2 * hit, 2 * hit + wrong + missed)


def slug(label: str) -> str:
    """Return the label as part of a value's name."""
    return label.lower().replace(" ", "_")


def canonical(value: Mapping[str, object] | None, field: str, role: object) -> str | None:
    """Return the canonical label of an answer; None for none or one outside the set."""
    text = None if value is None else value.get(field)
    if not isinstance(text, str) or not isinstance(role, Label):
        return None
    resolved = role.labels.resolve(text)
    return resolved.label if resolved else None

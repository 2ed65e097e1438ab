"""A number of an evaluation with its interval: of one run, of several as one, and of two that are compared."""

from __future__ import annotations

import msgspec

CONFIDENCE = 0.95


class Estimate(msgspec.Struct, frozen=True):
    """A value of a metric with its interval.

    Attributes:
        value: None if nothing was scored.
        low: Lower bound of the interval; None without one.
        high: Upper bound.
        n: Number of samples that were scored.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int


class Pooled(msgspec.Struct, frozen=True):
    """The mean of several runs with its interval.

    Attributes:
        value: None if nothing was scored.
        low: Lower bound of the interval; None without one.
        high: Upper bound.
        n: Number of rows; of values with fewer, that of the run with the fewest.
        spread: Standard deviation of the runs' values; None for one run alone.
        by_run: The value of each run.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    spread: float | None
    by_run: tuple[float | None, ...]


class Difference(msgspec.Struct, frozen=True):
    """The second run minus the first, on their common samples.

    Attributes:
        value: The difference; None if nothing was scored.
        low: Lower bound of its interval; None without one.
        high: Upper bound.
        n: Number of common samples.
        a: The first run's value.
        b: The second run's value.
        p: Two-sided p value.
        p_holm: The p value corrected for the comparisons beside it; None if it was not corrected.
        test: Where `p` is from.
        lower_is_better: Whether a negative difference is an improvement.
        confidence: Coverage of the interval.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    a: float | None = None
    b: float | None = None
    p: float | None = None
    p_holm: float | None = None
    test: str = "paired bootstrap"
    lower_is_better: bool = False
    confidence: float = CONFIDENCE

    @property
    def verdict(self) -> str:
        """Whether the second run is "better" or "worse": the interval excludes 0, and a corrected p is small
        enough.

        Else "no difference shown"; "n/a" without an interval.
        """
        if self.low is None or self.high is None:
            return "n/a"
        by_chance = self.p_holm is not None and self.p_holm > 1 - self.confidence
        if self.low <= 0 <= self.high or by_chance:
            return "no difference shown"
        return "better" if (self.low > 0) != self.lower_is_better else "worse"

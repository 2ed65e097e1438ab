"""Statistics equal what scipy and statsmodels gave (`python -m tools.statistics_golden` writes it)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dfkeval.analysis import intervals, statistics

GOLDEN: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "golden" / "statistics.json").read_text(encoding="utf-8")
)


def test_shares_of_independent_rows_have_the_interval_of_clopper_and_pearson() -> None:
    for hits, n, low, high in GOLDEN["clopper pearson"]:
        value = hits / n
        found = intervals.share_interval(value, value * (1 - value) / n, n, n, 0.95)
        assert (float(found[0]), float(found[1])) == pytest.approx((low, high), abs=1e-9), (hits, n)


def test_quantiles_are_those_of_the_distributions() -> None:
    for a, b, share, wanted in GOLDEN["beta"]:
        assert float(intervals.beta_quantile(a, b, share)) == pytest.approx(wanted, rel=1e-8, abs=1e-12)
    for freedom, wanted in GOLDEN["student"]:
        assert float(intervals.student(freedom, 0.95)) == pytest.approx(wanted, rel=1e-6)


def test_p_values_are_those_of_the_tests_and_of_holm() -> None:
    for lost, won, wanted in GOLDEN["mcnemar"]:
        assert statistics.mcnemar(lost, won) == pytest.approx(wanted, rel=1e-9)
    for family, wanted in GOLDEN["holm"]:
        found = statistics.holm({str(at): p for at, p in enumerate(family)})
        assert list(found.values()) == pytest.approx(wanted, rel=1e-12)

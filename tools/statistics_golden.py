"""Write what scipy and statsmodels say for the statistics of the tests: `python -m tools.statistics_golden`.

Needs scipy and statsmodels, which the tests do not."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parents[1] / "tests" / "golden" / "statistics.json"


def table() -> dict[str, Any]:
    """Return inputs and results by statistic."""
    import scipy
    import statsmodels
    from scipy import stats
    from statsmodels.stats.contingency_tables import mcnemar
    from statsmodels.stats.multitest import multipletests
    from statsmodels.stats.proportion import proportion_confint

    rng = random.Random(15)
    pairs = [(hits, n) for n in (1, 2, 3, 7, 20, 85, 300) for hits in sorted({0, 1, n // 2, n - 1, n})]
    betas = [
        (10 ** rng.uniform(-1, 3), 10 ** rng.uniform(-1, 3), share)
        for share in (0.005, 0.025, 0.5, 0.975)
        for _ in range(20)
    ]
    tests = [(lost, won) for lost in (0, 1, 3, 10, 40) for won in (0, 1, 4, 25)]
    families = [[10 ** rng.uniform(-5, 0) for _ in range(size)] for size in (1, 2, 5, 20) for _ in range(4)]
    return {
        "made with": {"scipy": scipy.__version__, "statsmodels": statsmodels.__version__},
        "clopper pearson": [[*pair, *map(float, proportion_confint(*pair, 0.05, "beta"))] for pair in pairs],
        "beta": [[a, b, share, float(stats.beta.ppf(share, a, b))] for a, b, share in betas],
        "student": [[free, float(stats.t.ppf(0.975, free))] for free in (1, 1.5, 2, 7, 30, 400, 1e5)],
        "mcnemar": [
            [*pair, float(mcnemar([[0, pair[0]], [pair[1], 0]], exact=True).pvalue)] for pair in tests
        ],
        "holm": [[family, multipletests(family, method="holm")[1].tolist()] for family in families],
    }


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(table()) + "\n", encoding="utf-8")

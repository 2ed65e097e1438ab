"""Several runs of one model: their mean, their spread in the interval, and comparisons of such sides."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from dfkdata.common.errors import ConfigError, DataError
from dfkdata.schemas import Schema
from dfkeval import evaluate, load_run
from dfkeval.analysis import comparison, pooling, statistics
from dfkeval.cli import app
from dfkeval.metrics import Measured, Metric, column, ratio
from dfkeval.runs.run import Run
from tests.helpers.lines import joined
from tests.helpers.runs import CAPTION, DFK, config_of, gold_answers, write_answers, write_rows

MEAN = Metric(
    lambda samples, scoring: Measured((), np.zeros((0, 0)), np.zeros(0, dtype=np.bool_)),
    lambda sums, columns: {"mean": ratio(column(sums, columns, "x"), column(sums, columns, "n"))},
    binary={"mean": "x"},
    lower_is_better=("mean",),
)


def measured(values: list[float]) -> Measured:
    table = np.stack([np.ones(len(values)), np.array(values, dtype=float)], axis=1)
    return Measured(("n", "x"), table, np.ones(len(values), dtype=np.bool_))


PLAIN = Metric(MEAN.measure, MEAN.reduce)


def groups(count: int) -> list[str]:
    return [str(index) for index in range(count)]


def test_runs_of_several_seeds_give_their_mean_and_spread() -> None:
    found = statistics.pooled(
        MEAN, [measured([1.0] * 30), measured([0.0] * 30), measured([0.5] * 30)], groups(30)
    )
    each = found["mean"]
    assert (each.value, each.by_run, each.n) == (0.5, (1.0, 0.0, 0.5), 30)
    assert each.spread == pytest.approx(0.5)
    assert each.low is not None and each.high is not None and each.low < 0.2 and each.high > 0.8


def test_one_run_alone_is_the_plain_estimate() -> None:
    data = measured(np.random.default_rng(1).random(60).tolist())
    alone = statistics.estimate(MEAN, data, groups(60))["mean"]
    found = statistics.pooled(MEAN, [data], groups(60))["mean"]
    assert (found.value, found.low, found.high, found.spread) == (alone.value, alone.low, alone.high, None)


@pytest.mark.parametrize(
    ("runs", "hard", "spread"), [(3, 0.0, 1.0), (3, 3.0, 1.0), (5, 1.5, 0.6), (2, 1.5, 1.0)]
)
def test_the_interval_over_seeds_covers_what_it_says(runs: int, hard: float, spread: float) -> None:
    """Answers that are right with a chance that depends on the run and on the row: the true share lies in
    nineteen of twenty intervals, also near 1, and none leaves [0, 1]."""
    rng = np.random.default_rng(5)

    def chance(run: Any, row: Any) -> Any:
        return 1 / (1 + np.exp(-(hard + spread * run + row)))

    truth = chance(rng.normal(size=200_000), rng.normal(size=200_000)).mean()
    inside = 0
    for trial in range(200):
        right = rng.random((runs, 60)) < chance(rng.normal(size=(runs, 1)), rng.normal(size=60))
        asked = [measured(run.astype(float).tolist()) for run in right]
        each = statistics.pooled(MEAN, asked, groups(60), resamples=400, seed=trial)["mean"]
        assert each.low is not None and each.high is not None
        assert 0 <= each.low <= each.high <= 1
        inside += each.low <= truth <= each.high
    assert inside / 200 >= 0.92


TRIALS = 150


@pytest.mark.parametrize(
    ("runs", "spread", "found"), [(2, 0.0, 0.7), (2, 1.0, 0.1), (3, 0.3, 0.7), (5, 0.3, 0.95)]
)
def test_a_difference_over_seeds_is_rarely_shown_where_there_is_none(
    runs: int, spread: float, found: float
) -> None:
    """About every twentieth comparison of equals shows one, or fewer; a real one is shown about as often as
    runs and rows allow."""
    rng = np.random.default_rng(7)
    rows = rng.normal(0, 1.5, (TRIALS, 1, 100))

    def side(hard: float, trial: int) -> list[Measured]:
        right = 1 / (1 + np.exp(-(hard + spread * rng.normal(size=(runs, 1)) + rows[trial])))
        return [measured(run.astype(float).tolist()) for run in rng.random((runs, 100)) < right]

    wrong = seen = 0
    for trial in range(TRIALS):
        a, b, better = side(1.0, trial), side(1.0, trial), side(2.5, trial)
        equal, real = (
            statistics.difference(PLAIN, a, other, groups(100), resamples=400, seed=trial)["mean"]
            for other in (b, better)
        )
        assert equal.low is not None and equal.high is not None and real.low is not None
        assert -1 <= equal.low <= equal.high <= 1
        wrong += not equal.low <= 0 <= equal.high
        seen += real.low > 0
    assert wrong / TRIALS <= 0.09
    assert seen / TRIALS >= found


def test_an_interval_over_seeds_without_spread_is_not_wide_for_nothing() -> None:
    """Five runs that differ by chance alone: at most half as wide again as the rows' own interval."""
    rng = np.random.default_rng(6)
    row = rng.random(200) < 0.8
    asked = [measured((row ^ (rng.random(200) < 0.02)).astype(float).tolist()) for _ in range(5)]
    alone, pooled = (statistics.pooled(MEAN, runs, groups(200))["mean"] for runs in (asked[:1], asked))
    assert alone.low is not None and alone.high is not None
    assert pooled.low is not None and pooled.high is not None
    assert pooled.high - pooled.low < 1.5 * (alone.high - alone.low)


def test_values_that_are_no_shares_are_moved_on_their_own_scale() -> None:
    """Rows without noise: what is left of the interval is the runs' own spread, t(0.975, 2) * s / sqrt(3)."""
    plain = Metric(MEAN.measure, MEAN.reduce, unbounded=("mean",))
    asked = [measured([value] * 20) for value in (0.8, 1.0, 1.2)]
    found = statistics.pooled(plain, asked, groups(20), resamples=40_000)["mean"]
    assert found.low is not None and found.high is not None
    want = 4.3027 * 0.2 / math.sqrt(3)
    assert found.high - 1 == pytest.approx(want, rel=0.05) and 1 - found.low == pytest.approx(want, rel=0.05)


def test_runs_that_are_all_right_have_the_interval_of_their_rows() -> None:
    found = statistics.pooled(MEAN, [measured([1.0] * 20)] * 3, groups(20))["mean"]
    one = statistics.estimate(MEAN, measured([1.0] * 20), groups(20))["mean"]
    assert (found.value, found.low, found.high, found.spread) == (1.0, one.low, 1.0, 0.0)
    assert one.low == pytest.approx(0.025 ** (1 / 20))


def test_sides_of_several_runs_are_compared_by_their_means() -> None:
    a = [measured([0.0, 1.0] * 20), measured([1.0, 0.0] * 20)]
    b = [measured([1.0] * 40), measured([1.0] * 40), measured([1.0] * 40)]
    found = statistics.difference(MEAN, a, b, groups(40))["mean"]
    assert (found.a, found.b, found.value) == (0.5, 1.0, 0.5)
    assert found.test == "paired bootstrap"
    assert found.verdict == "worse"  # a loss that rose
    assert statistics.difference(MEAN, b, a, groups(40))["mean"].verdict == "better"


def run_of(folder: Path, name: str, wrong: set[int], schema: Schema = DFK, n: int = 24) -> Run:
    answers = [(i, "?" if k in wrong else text) for k, (i, text) in enumerate(gold_answers(schema, n))]
    data = folder / f"{schema.name}.jsonl"
    if not data.exists():
        write_rows(data, schema, n)
    path = write_answers(folder / f"{name.replace('/', '-')}.a", answers)
    return evaluate(config_of(data, path, ["validity", "fields"]), folder / name)


@pytest.fixture
def repeats(tmp_path: Path) -> Path:
    """Two models with three runs each, in a folder for each model."""
    for seed in range(3):
        run_of(tmp_path, f"base/seed{seed}", {seed, seed + 1, seed + 2, *range(10, 19)})
        run_of(tmp_path, f"tuned/seed{seed}", {seed})
    return tmp_path


def test_a_folder_of_runs_is_one_side(repeats: Path) -> None:
    found = comparison.compare(repeats / "base", repeats / "tuned")
    change = found.differences["validity.schema_valid"]
    assert (found.a, found.b, found.n) == ("base (3 runs)", "tuned (3 runs)", 24)
    assert (change.a, change.b) == (pytest.approx(0.5), pytest.approx(23 / 24))
    assert found.changed == ()
    same = comparison.compare([repeats / "base" / f"seed{i}" for i in range(3)], repeats / "tuned")
    assert same.differences == found.differences


def test_rows_that_one_run_lacks_are_left_out_of_all(repeats: Path) -> None:
    (repeats / "dfk_label.jsonl").unlink()
    run_of(repeats, "tuned/seed9", {0}, n=20)
    found = pooling.pool(repeats / "tuned")
    assert (found.n, found.left_out) == (20, {"only in seed0": 4})
    assert found.values["validity.schema_valid"].n == 20
    assert len(found.values["validity.schema_valid"].by_run) == 4


def test_the_commands_take_folders_of_repeats(repeats: Path) -> None:
    runner = CliRunner()
    pooled = runner.invoke(app.app, ["pool", str(repeats / "base"), "--metric", "validity.schema_valid"])
    assert pooled.exit_code == 0, pooled.output
    assert "seed0, seed1, seed2: 24 common rows" in pooled.stdout
    assert any(line.startswith("validity.schema_valid 0.500 ") for line in joined(pooled.stdout))
    path = repeats / "differences.csv"
    called = runner.invoke(
        app.app, ["compare", str(repeats / "base"), str(repeats / "tuned"), "--table", str(path)]
    )
    assert called.exit_code == 0, called.output
    with path.open(newline="") as file:
        rows = {row["metric"]: row for row in csv.DictReader(file)}
    assert float(rows["validity.schema_valid"]["difference"]) == pytest.approx(23 / 24 - 0.5)
    assert rows["validity.schema_valid"]["verdict"] == "better"
    assert float(rows["validity.schema_valid"]["detectable"]) > 0


def test_runs_of_other_schemas_and_folders_without_runs_are_refused(repeats: Path) -> None:
    run_of(repeats, "base/other", set(), CAPTION)
    with pytest.raises(ConfigError, match="answers schema"):
        pooling.pool(repeats / "base")
    with pytest.raises(ConfigError, match="without runs"):
        comparison.compare([], repeats / "tuned")
    (repeats / "nothing").mkdir()
    with pytest.raises(DataError):
        comparison.compare(repeats / "nothing", repeats / "tuned")


def test_three_runs_are_corrected_together(tmp_path: Path) -> None:
    base = run_of(tmp_path, "base", set(range(12)))
    others = [run_of(tmp_path, "one", {0, 1, 2}), run_of(tmp_path, "two", set(range(9)))]
    alone = [comparison.compare(base, other) for other in others]
    together = comparison.compare_all(base, others)
    p = [
        value.p for each in alone for name, value in each.differences.items() if name in comparison.HEADLINES
    ]
    want = statistics.holm({str(place): value for place, value in enumerate(p)})
    got = [
        value.p_holm for each in together for name, value in each.differences.items()
        if name in comparison.HEADLINES
    ]  # fmt: skip
    assert got == list(want.values())
    assert any(
        a != b
        for a, b in zip(
            got,
            [v.p_holm for e in alone for n, v in e.differences.items() if n in comparison.HEADLINES],
            strict=True,
        )
    )


def test_a_run_counts_once_on_a_side(repeats: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However it is named: a run that counts twice makes the spread look smaller than it is."""
    monkeypatch.chdir(repeats)
    (repeats / "link").symlink_to(repeats / "base" / "seed0", target_is_directory=True)
    one = "base/seed0"
    loaded = load_run(one)
    for twice in (
        [one, one],
        [one, "./base/seed0"],
        [one, repeats / one],
        ["base", one],
        [one, "link"],
        [loaded, one],
    ):
        with pytest.raises(ConfigError, match=r"seed0: named 2 times on one side"):
            pooling.pool(twice)
        with pytest.raises(ConfigError, match="named 2 times on one side"):
            comparison.compare(twice, "tuned")
    for command in (["pool", one, one], ["suspects", one, "base/../base/seed0"]):
        assert "named 2 times" in str(CliRunner().invoke(app.app, command).exception)
    assert (
        comparison.compare(one, one).differences["validity.schema_valid"].value == 0.0
    )  # two sides are two sides

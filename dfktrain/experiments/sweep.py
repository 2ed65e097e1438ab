"""Train one configuration with varied values: every combination with every seed, each in its own process.

    DIR/sweep.json            the configuration, so that a folder never mixes two sweeps
    DIR/POINT/seed-N/         a run directory of dfktrain, with its evaluation, and log.txt
    DIR/comparison.md, report.html

Guarantees:
    - A finished point is not run again, and a point that was stopped continues.
    - A failed point does not stop the others; it is named at the end.
    - The seeds of a point are compared as one group of runs."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dfkdata.common import media_roots
from dfkdata.common.console import key_value
from dfkdata.common.credentials import public
from dfkdata.common.errors import BackendError, ConfigError
from dfkdata.common.json_files import read_json_or_none, write_json
from dfkdata.common.tables import TextTable
from dfkeval import reports
from dfkeval.analysis import comparison
from dfkeval.analysis.comparison import HEADLINES, Comparison
from dfkeval.analysis.pooling import Pool, pool
from dfkeval.runs.run import Run, load_run
from dfktrain.config import overrides
from dfktrain.experiments import evaluate
from dfktrain.training import evaluation_plan

Launch = Callable[[list[str], Path], int]
"""Runs a command with its output in a file, and returns its exit status."""


@dataclass(frozen=True)
class SweepPoint:
    """One combination of values.

    Attributes:
        name: Name of its folder.
        changes: The values as "place=value".
    """

    name: str
    changes: tuple[str, ...]


@dataclass(frozen=True)
class Sweep:
    """A planned sweep.

    Attributes:
        config: The training configuration.
        points: The combinations.
        seeds: Every point is trained once with each seed.
        files: Override files of every point.
        changes: Changes of every point as "place=value".
    """

    config: Path
    points: tuple[SweepPoint, ...]
    seeds: tuple[int, ...]
    files: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SweepResult:
    """A finished sweep.

    Attributes:
        pools: Name and values of the base, if it was evaluated, and of every finished point.
        comparisons: Comparison of the first entry of `pools` with each other one.
        failed: "POINT/seed-N" -> last line of its log.
    """

    pools: tuple[tuple[str, Pool], ...]
    comparisons: tuple[Comparison, ...]
    failed: dict[str, str]


def points(vary: Sequence[str]) -> tuple[SweepPoint, ...]:
    """Return all combinations of values.

    Args:
        vary: Texts such as "stages.0.learning_rate=1e-4,2e-4", one for each place.

    Raises:
        ConfigError: A text is not written like that, or a place or value stands there twice.
    """
    axes = [_axis(text) for text in vary]
    if not axes:
        return (SweepPoint("as-written", ()),)
    places = [place for place, _ in axes]
    if twice := [place for place in places if places.count(place) > 1]:
        raise ConfigError(f"--vary {twice[0]} is given twice; write all its values in one")
    combinations = []
    for values in itertools.product(*(options for _, options in axes)):
        pairs = list(zip(places, values, strict=True))
        changes = tuple(f"{place}={value}" for place, value in pairs)
        combinations.append(SweepPoint(_name(pairs, places), changes))
    names = [point.name for point in combinations]
    if again := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"two points would be called {again[0]!r}; is a value written twice?")
    return tuple(combinations)


def _axis(text: str) -> tuple[str, list[str]]:
    place, values_text = key_value(text, "--vary", "place=value,value: stages.0.learning_rate=1e-4,2e-4")
    values = [value.strip() for value in split(values_text)]
    if not all(values):
        raise ConfigError(f"--vary {text!r}: write it as place=value,value: stages.0.learning_rate=1e-4,2e-4")
    if place == "seed":
        raise ConfigError(f"--vary {text}: seeds are varied with --seeds {','.join(values)}")
    return place, values


def split(text: str) -> list[str]:
    """Split a text at its commas outside brackets: "1,[2,3]" gives ["1", "[2,3]"]."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "[{") - (letter in "]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _name(pairs: list[tuple[str, str]], places: list[str]) -> str:
    """Return a short name that is safe for a folder, with the last step of each place if that is unique."""
    last = [place.rpartition(".")[2] for place in places]
    words = [
        f"{short if last.count(short) == 1 else place}-{value}"
        for (place, value), short in zip(pairs, last, strict=True)
    ]
    safe = (letter if letter.isalnum() or letter in "._-" else "-" for letter in "_".join(words))
    return "".join(safe).strip("-.")


def run(sweep: Sweep, out: Path, say: Callable[[str], None], launch: Launch | None = None) -> SweepResult:
    """Train and evaluate the points that are not finished, and compare all of them.

    Args:
        sweep: What to run.
        out: Folder of the sweep.
        say: Receives a line for every point.
        launch: Runs the command of a point; None starts a process.

    Raises:
        ConfigError: A configuration or the folder cannot be used; raised before the first point.
        BackendError: No point finished.
    """
    out = out.resolve()
    _check(sweep, out)
    failed: dict[str, str] = {}
    jobs = [(point, seed) for seed in sweep.seeds for point in sweep.points]
    for at, (point, seed) in enumerate(jobs):
        name = f"{point.name}/seed-{seed}"
        if finished(out / name):
            say(f"{at + 1}/{len(jobs)} {name}: finished before")
            continue
        say(f"{at + 1}/{len(jobs)} {name}")
        command = _command(sweep, point, seed, out, before=_asks_base(sweep, out))
        code = (launch or _process)(command, out / name / "log.txt")
        if code != 0:
            failed[name] = _last_line(out / name / "log.txt")
            say(f"{at + 1}/{len(jobs)} {name}: failed: {failed[name]}")
    return _compared(sweep, out, failed)


def finished(folder: Path) -> bool:
    """Return whether a run was trained and evaluated to the end."""
    return (folder / "run.json").is_file() and (folder / evaluate.FOLDER / "report.html").is_file()


def _check(sweep: Sweep, out: Path) -> None:
    """Raise unless every point can be trained and evaluated and the folder belongs to this sweep."""
    for point in sweep.points:
        settings, _ = overrides.load(sweep.config, sweep.files, [*sweep.changes, *point.changes])
        if settings.evaluate is None:
            raise ConfigError(f"{sweep.config}: a sweep compares scores and needs an evaluate: section")
        evaluation_plan.check(settings.resolved(sweep.config.parent.resolve()))
    settings, _ = overrides.load(sweep.config, sweep.files, sweep.changes)
    record = {"config": public(settings.model_dump(mode="json", exclude={"seed"}))}
    earlier = read_json_or_none(out / "sweep.json")
    if earlier is not None and earlier != record:
        raise ConfigError(f"{out} holds a sweep of another configuration; choose another --out")
    write_json(out / "sweep.json", record, floats="repr")


def _asks_base(sweep: Sweep, out: Path) -> bool:
    """Return whether the next run evaluates the base too: only the first one does, and none if the model is
    varied, because the points then have different bases."""
    varied = any(change.startswith("model.") for point in sweep.points for change in point.changes)
    return not varied and _base(sweep, out) is None


def _base(sweep: Sweep, out: Path) -> Path | None:
    """Return the run directory of the base, whichever run made it; None if there is none."""
    for point, seed in itertools.product(sweep.points, sweep.seeds):
        folder = out / point.name / f"seed-{seed}" / evaluate.FOLDER / "base"
        if (folder / "summary.json").is_file():
            return folder
    return None


def _command(sweep: Sweep, point: SweepPoint, seed: int, out: Path, *, before: bool) -> list[str]:
    """Return the command that trains one point. before: whether it may evaluate the base too."""
    words = [sys.executable, "-m", "dfktrain", "run", str(sweep.config)]
    words += ["--out", str(out / point.name / f"seed-{seed}")]
    for file in sweep.files:
        words += ["--override", file]
    changes = [*sweep.changes, *point.changes, f"seed={seed}"]
    if not before:
        changes.append("evaluate.before=false")
    words += [word for folder in media_roots.allowed() for word in ("--media-root", folder)]
    return words + [word for change in changes for word in ("--set", change)]


def _process(command: list[str], log: Path) -> int:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        return subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False).returncode  # nosec B603


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.is_file() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "no output")


def _compared(sweep: Sweep, out: Path, failed: dict[str, str]) -> SweepResult:
    whole = [
        point
        for point in sweep.points
        if all(f"{point.name}/seed-{seed}" not in failed for seed in sweep.seeds)
    ]
    if not whole:
        raise BackendError("no point of the sweep finished:\n" + "\n".join(map(": ".join, failed.items())))
    groups = [
        (point.name, [_tuned(out, point, seed, sweep.seeds) for seed in sweep.seeds]) for point in whole
    ]
    base = _base(sweep, out)
    if base is not None:
        groups.insert(0, ("base", [load_run(base)]))
    (first_name, first), *others = groups
    compared = comparison.compare_all(first, [runs for _, runs in others])
    pairs = [replace(pair, a=first_name, b=name) for (name, _), pair in zip(others, compared, strict=True)]
    result = SweepResult(tuple((name, pool(runs)) for name, runs in groups), tuple(pairs), failed)
    runs = [run for _, group in groups for run in group]
    values = {point.name: dict(change.split("=", 1) for change in point.changes) for point in whole}
    entries = [reports.LeaderboardEntry(name, values.get(name, {}), pooled) for name, pooled in result.pools]
    page = reports.sweep_page(f"Sweep {out.name}", entries, runs, pairs, failed)
    (out / "report.html").write_text(page, encoding="utf-8")
    (out / "comparison.md").write_text("\n".join(table(result).markdown()) + "\n", encoding="utf-8")
    return result


def _tuned(out: Path, point: SweepPoint, seed: int, seeds: Sequence[int]) -> Run:
    run = load_run(out / point.name / f"seed-{seed}" / evaluate.FOLDER / "tuned")
    run.title = point.name if len(seeds) == 1 else f"{point.name} seed {seed}"
    return run


def table(result: SweepResult) -> TextTable:
    """Return a table with one row a point: the mean of each headline metric over the seeds, and its
    difference from the first row with its interval."""
    name, first = result.pools[0]
    metrics = [value for value in HEADLINES if value in first.values] or list(first.values)
    rows = [(name, *(_number(first, value) for value in metrics))]
    for (other, values), pair in zip(result.pools[1:], result.comparisons, strict=True):
        cells = (f"{_number(values, value)} ({_difference(pair, value)})" for value in metrics)
        rows.append((other, *cells))
    return TextTable((f"against {name}", *metrics), rows, spare=metrics[:0:-1])


def _number(values: Pool, name: str) -> str:
    estimate = values.values.get(name)
    return "n/a" if estimate is None or estimate.value is None else f"{estimate.value:.3f}"


def _difference(pair: Comparison, name: str) -> str:
    change = pair.differences.get(name)
    if change is None or change.value is None or change.low is None or change.high is None:
        return "n/a"
    return f"{change.value:+.3f} [{change.low:+.3f}, {change.high:+.3f}]"

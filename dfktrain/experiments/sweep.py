"""One configuration, varied: every combination of values, with every seed, each in a process of its own; then
one comparison.

    DIR/sweep.json            the configuration, so that a folder never mixes two
    DIR/POINT/seed-N/         a run directory of dfktrain, with its evaluation, and log.txt
    DIR/comparison.md, report.html

Promises: a point that is finished is not run again, one that was stopped goes on; a failed point does not
stop the others and is named at the end; the seeds of a point are one side of the comparison."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dfkdata.common import json_files
from dfkdata.common.errors import BackendError, ConfigError
from dfktrain.config import overrides
from dfktrain.experiments import evaluate

if TYPE_CHECKING:
    from dfkeval.analysis.comparison import Comparison
    from dfkeval.analysis.pooling import Pool
    from dfkeval.runs.run import Run

#: Runs a command with its output in a file and returns its exit code.
Launch = Callable[[list[str], Path], int]


@dataclass(frozen=True)
class SweepPoint:
    """One combination. changes: "place=value". name: its folder."""

    name: str
    changes: tuple[str, ...]


@dataclass(frozen=True)
class Sweep:
    """What to run. files: override files. seeds: each point is trained once with each."""

    config: Path
    points: tuple[SweepPoint, ...]
    seeds: tuple[int, ...]
    files: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SweepResult:
    """pools: name and values of "base", where it was asked, and of every finished point. comparisons: of each
    with the first one. failed: "POINT/seed-N" -> the last line of its log."""

    pools: tuple[tuple[str, Pool], ...]
    comparisons: tuple[Comparison, ...]
    failed: dict[str, str]


def points(vary: Sequence[str]) -> tuple[SweepPoint, ...]:
    """All combinations of "place=value,value". Raises `ConfigError` for a wrong word."""
    axes = [_axis(text) for text in vary]
    if not axes:
        return (SweepPoint("as-written", ()),)
    places = [place for place, _ in axes]
    if twice := [place for place in places if places.count(place) > 1]:
        raise ConfigError(f"--vary {twice[0]} is given twice; write all its values in one")
    made = []
    for values in itertools.product(*(found for _, found in axes)):
        pairs = list(zip(places, values, strict=True))
        made.append(SweepPoint(_name(pairs, places), tuple(f"{place}={value}" for place, value in pairs)))
    names = [point.name for point in made]
    if again := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"two points would be called {again[0]!r}; is a value written twice?")
    return tuple(made)


def _axis(text: str) -> tuple[str, list[str]]:
    place, equals, values = text.partition("=")
    found = [value.strip() for value in split(values)]
    if not place or not equals or not all(found):
        raise ConfigError(f"--vary {text!r}: write it as place=value,value: stages.0.learning_rate=1e-4,2e-4")
    if place == "seed":
        raise ConfigError(f"--vary {text}: seeds are varied with --seeds {','.join(found)}")
    return place, found


def split(text: str) -> list[str]:
    """`text` at its commas, those inside brackets left alone: "1,[2,3]" -> ["1", "[2,3]"]."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "[{") - (letter in "]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _name(pairs: list[tuple[str, str]], places: list[str]) -> str:
    """Short and safe: the last step of a place where that is enough."""
    last = [place.rpartition(".")[2] for place in places]
    words = [
        f"{short if last.count(short) == 1 else place}-{value}"
        for (place, value), short in zip(pairs, last, strict=True)
    ]
    safe = (letter if letter.isalnum() or letter in "._-" else "-" for letter in "_".join(words))
    return "".join(safe).strip("-.")


def run(sweep: Sweep, out: Path, say: Callable[[str], None], launch: Launch | None = None) -> SweepResult:
    """Run what is missing and compare. say: gets a line for every point. Raises `ConfigError` before the
    first one, and `BackendError` if none succeeds."""
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
    """Whether a run was trained and scored to the end."""
    return (folder / "run.json").is_file() and (folder / evaluate.FOLDER / "report.html").is_file()


def _check(sweep: Sweep, out: Path) -> None:
    """Every point is a configuration and can be scored, and the folder is this sweep's."""
    for point in sweep.points:
        settings, _ = overrides.load(sweep.config, sweep.files, [*sweep.changes, *point.changes])
        if settings.evaluate is None:
            raise ConfigError(f"{sweep.config}: a sweep compares scores and needs an evaluate: section")
        evaluate.check(settings.resolved(sweep.config.parent.resolve()))
    settings, _ = overrides.load(sweep.config, sweep.files, sweep.changes)
    written = {"config": settings.model_dump(mode="json", exclude={"seed"})}
    found = json_files.read_json_or_none(out / "sweep.json")
    if found is not None and found != written:
        raise ConfigError(f"{out} holds a sweep of another configuration; choose another --out")
    json_files.write_json(out / "sweep.json", written, floats="repr")


def _asks_base(sweep: Sweep, out: Path) -> bool:
    """The base is asked once, by the first run that comes to it; not at all where the model itself is varied,
    since the points then have different bases."""
    varied = any(change.startswith("model.") for point in sweep.points for change in point.changes)
    return not varied and _base(sweep, out) is None


def _base(sweep: Sweep, out: Path) -> Path | None:
    """The scored answers of the base, whichever run asked for them."""
    for point, seed in itertools.product(sweep.points, sweep.seeds):
        folder = out / point.name / f"seed-{seed}" / evaluate.FOLDER / "base"
        if (folder / "summary.json").is_file():
            return folder
    return None


def _command(sweep: Sweep, point: SweepPoint, seed: int, out: Path, *, before: bool) -> list[str]:
    """The run of one point. before: it asks the base as well, where the configuration wants that."""
    words = [sys.executable, "-m", "dfktrain.cli.app", "run", str(sweep.config)]
    words += ["--out", str(out / point.name / f"seed-{seed}")]
    for file in sweep.files:
        words += ["--override", file]
    changes = [*sweep.changes, *point.changes, f"seed={seed}"]
    if not before:
        changes.append("evaluate.before=false")
    return words + [word for change in changes for word in ("--set", change)]


def _process(command: list[str], log: Path) -> int:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        return subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False).returncode


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.is_file() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "no output")


def _compared(sweep: Sweep, out: Path, failed: dict[str, str]) -> SweepResult:
    from dfkeval import reports
    from dfkeval.analysis import comparison
    from dfkeval.analysis.pooling import pool
    from dfkeval.runs.run import load_run

    whole = [
        point
        for point in sweep.points
        if all(f"{point.name}/seed-{seed}" not in failed for seed in sweep.seeds)
    ]
    if not whole:
        raise BackendError("no point of the sweep finished:\n" + "\n".join(map(": ".join, failed.items())))
    sides = [(point.name, [_tuned(out, point, seed) for seed in sweep.seeds]) for point in whole]
    base = _base(sweep, out)
    if base is not None:
        sides.insert(0, ("base", [load_run(base)]))
    first, *others = sides
    pairs = [
        replace(pair, a=first[0], b=name)
        for (name, _), pair in zip(
            others, comparison.compare_all(first[1], [side for _, side in others]), strict=True
        )
    ]
    found = SweepResult(tuple((name, pool(side)) for name, side in sides), tuple(pairs), failed)
    runs = [run for _, side in sides for run in side]
    (out / "report.html").write_text(reports.page(f"sweep: {out.name}", runs, pairs), encoding="utf-8")
    (out / "comparison.md").write_text(table(found) + "\n", encoding="utf-8")
    return found


def _tuned(out: Path, point: SweepPoint, seed: int) -> Run:
    from dfkeval.runs.run import load_run

    return load_run(out / point.name / f"seed-{seed}" / evaluate.FOLDER / "tuned")


def table(found: SweepResult) -> str:
    """One row a point: the mean of each headline value over seeds, and its difference from the first row with
    its interval."""
    from dfkeval import reports
    from dfkeval.analysis.comparison import HEADLINES

    name, first = found.pools[0]
    shown = [value for value in HEADLINES if value in first.values] or list(first.values)
    rows = [(name, *(_number(first, value) for value in shown))]
    for (other, pool), pair in zip(found.pools[1:], found.comparisons, strict=True):
        cells = (f"{_number(pool, value)} ({_difference(pair, value)})" for value in shown)
        rows.append((other, *cells))
    return "\n".join(reports.table((f"against {name}", *shown), rows))


def _number(pool: Pool, name: str) -> str:
    found = pool.values.get(name)
    return "n/a" if found is None or found.value is None else f"{found.value:.3f}"


def _difference(pair: Comparison, name: str) -> str:
    found = pair.differences.get(name)
    if found is None or found.value is None or found.low is None or found.high is None:
        return "n/a"
    return f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"

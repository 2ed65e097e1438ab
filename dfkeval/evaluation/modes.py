"""One run for each mode on the same rows, compared in pairs with the first: what constraints are worth.

    modes: [free, json_mode, constrained]

Strategy: the backend is loaded once, if any mode has something left to ask; each mode has a run directory of
its own inside the one that was asked for, so each can be stopped, resumed and scored again alone.
Promises: a mode that the backend or the schema cannot do is refused before the first one is asked; nothing
falls back to another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from dfkdata.common import json_files
from dfkdata.common.errors import ConfigError
from dfkeval import reports
from dfkeval.analysis import comparison
from dfkeval.backends import Backend
from dfkeval.evaluation import constraints, evaluate, generation, preflight
from dfkeval.evaluation.rows import read_rows
from dfkeval.runs import config as configs
from dfkeval.runs import directory
from dfkeval.runs.config import EvalConfig
from dfkeval.runs.run import Run
from dfkeval.types import Mode

COMPARISON_MD, COMPARISON_HTML = "comparison.md", "comparison.html"


def evaluate_modes(
    config: EvalConfig | str | Path,
    out: str | Path,
    *,
    backend: Backend | None = None,
    overwrite: bool = False,
    overrides: Sequence[str] = (),
    progress: Callable[[Mode], generation.Progress] | None = None,
) -> list[Run]:
    """The runs of all modes, in their order: `out` itself for one mode, else `out/<mode>` and the comparison.

    progress: called with the mode for what is told of each completion. Raises as `harness.evaluate`."""
    if not isinstance(config, EvalConfig):
        config = configs.read(config, overrides)
    config = configs.rooted(config, Path.cwd())
    single = [config.model_copy(update={"modes": (mode,)}) for mode in config.modes]
    if len(single) == 1:
        places = [Path(out)]
    else:
        places = [Path(out) / mode for mode in config.modes]
        _refuse(single, Path(out), backend)
    with generation.LazyBackend(config, backend) as lazy:
        runs = [
            evaluate.answered(
                each, place, lazy, overwrite=overwrite,
                progress=None if progress is None else progress(each.mode),
            )
            for each, place in zip(single, places, strict=True)
        ]  # fmt: skip
    if len(runs) > 1:
        write_comparison(runs, Path(out))
    return runs


def _refuse(single: Sequence[EvalConfig], out: Path, backend: Backend | None) -> None:
    """Raises `ConfigError` for a mode that cannot be, or a folder that already holds one run."""
    if (out / directory.CONFIG).exists():
        raise ConfigError(f"{out}: holds a run of one mode; give another --out for several")
    first = read_rows(single[0])[0]
    for each in single:
        filled, schema = configs.resolve(each, first)
        preflight.check_run(filled, schema, constraints.constraint(schema, each.mode), first, backend)


def write_comparison(runs: Sequence[Run], out: Path) -> None:
    """comparison.md and comparison.html: every mode against the first, on the rows they share."""
    pairs = [comparison.compare(runs[0], other) for other in runs[1:]]
    parts = [f"# {', '.join(run.name for run in runs)}"]
    parts += [f"## {pair.a} -> {pair.b}\n\n{reports.comparison_table(pair)}" for pair in pairs]
    json_files.write_bytes(out / COMPARISON_MD, ("\n\n".join(parts) + "\n").encode())
    json_files.write_bytes(out / COMPARISON_HTML, reports.page(out.name, list(runs), pairs).encode())

"""Evaluate several modes on the same rows and compare each with the first, to see what constraints are worth.

    modes: [free, json_mode, constrained]

How it works: the backend is loaded once, if any mode has something left to ask. Each mode has a run
directory of its own inside the given one, so each can be stopped, resumed and scored again alone.

Guarantees:

- A mode that the backend or the schema cannot do is refused before the first mode is asked.
- No mode falls back to another."""

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
    """Evaluate every mode of a configuration, and compare each with the first.

    Args:
        config: The configuration, or the path of its YAML file.
        out: Folder of the run if there is one mode. Of several modes, each has its run in `out`/MODE, and
            `out` holds comparison.md and comparison.html.
        backend: A loaded backend that answers instead of the one that the configuration names.
        overwrite: Whether other runs in these folders are thrown away.
        overrides: Changes to a YAML file, such as "sampling.max_new_tokens=64".
        progress: Called with the mode before it is asked; returns what is called after each completion.

    Returns:
        The runs in the order of `modes`.

    Raises:
        ConfigError: A mode cannot be done, or `out` holds a run of one mode.
        DataError: The data file cannot be asked.
        BackendError: The engine itself fails.

    Example:
        >>> import json
        >>> from pathlib import Path
        >>> from dfkeval import EvalConfig, evaluate_modes
        >>> row = {"id": "1", "messages": [{"role": "user", "content": "The capital of Indonesia?"}],
        ...        "meta": {"schema": "answer", "gold": {"answer": "Jakarta"}}}
        >>> _ = Path("rows.jsonl").write_text(json.dumps(row))
        >>> _ = Path("answers.jsonl").write_text('{"id": "1", "text": "Jakarta"}')
        >>> backend = {"kind": "scripted", "completions": "answers.jsonl"}
        >>> config = EvalConfig(data="rows.jsonl", backend=backend, metrics=["answers"], modes=["free"])
        >>> [run.config.mode for run in evaluate_modes(config, "run")]
        ['free']
    """
    if not isinstance(config, EvalConfig):
        config = configs.read(config, overrides)
    config = configs.rooted(config, Path.cwd())
    configs.trust_named(config)
    single = [config.model_copy(update={"modes": (mode,)}) for mode in config.modes]
    if len(single) == 1:
        places = [Path(out)]
    else:
        places = [Path(out) / mode for mode in config.modes]
        _check_modes(single, Path(out), backend)
    with generation.LazyBackend(config, backend) as lazy:
        runs = []
        for one_mode, place in zip(single, places, strict=True):
            on_answer = None if progress is None else progress(one_mode.mode)
            runs.append(
                evaluate.evaluate_rooted(one_mode, place, lazy, overwrite=overwrite, progress=on_answer)
            )
    if len(runs) > 1:
        write_comparison(runs, Path(out))
    return runs


def _check_modes(single: Sequence[EvalConfig], out: Path, backend: Backend | None) -> None:
    """Raise `ConfigError` if a mode cannot be done, or if the folder already holds one run."""
    if (out / directory.CONFIG).exists():
        raise ConfigError(f"{out}: holds a run of one mode; give another --out for several")
    first = read_rows(single[0])[0]
    for one_mode in single:
        config, schema = configs.resolve(one_mode, first)
        preflight.check_run(config, schema, constraints.constraint(schema, config.mode), first, backend)


def write_comparison(runs: Sequence[Run], out: Path) -> None:
    """Write comparison.md and comparison.html: every mode against the first, on the rows that they share."""
    pairs = [comparison.compare(runs[0], other) for other in runs[1:]]
    parts = [f"# {', '.join(run.name for run in runs)}"]
    parts += [f"## {pair.a} -> {pair.b}\n\n{reports.comparison_table(pair)}" for pair in pairs]
    json_files.write_bytes(out / COMPARISON_MD, ("\n\n".join(parts) + "\n").encode())
    json_files.write_parts(out / COMPARISON_HTML, reports.page_parts(out.name, list(runs), pairs))

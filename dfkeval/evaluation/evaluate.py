"""Evaluate a model on rows: ask every row, grade the answers, score them, and write the run directory.

How it works: rows become requests, requests become completions, completions become samples, and samples
become a summary and reports, with files between the stages. Only asking needs the model, and it appends to
the run directory; grading and scoring are pure functions of rows and completions and can be repeated at any
time.

Guarantees:

- A run that was killed continues where it stopped and ends equal to one that was not.
- A failed request is asked again when the run is resumed, and it is never scored.
- Every row gives exactly one sample."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import structs

from dfkdata.common import json_files, media_roots
from dfkdata.common.errors import DataError
from dfkdata.common.status_line import now
from dfkdata.common.stored_lines import MadeSequence
from dfkdata.pages.words import Language
from dfkdata.schemas import Schema
from dfkeval import reports
from dfkeval.analysis import bootstrap, comparison, server_parser, statistics
from dfkeval.backends import Backend
from dfkeval.evaluation import caveats, constraints, generation, likelihood, preflight
from dfkeval.evaluation.generation import LazyBackend, Progress
from dfkeval.evaluation.grading import EvalItem, graded
from dfkeval.evaluation.response_cache import CachedBackend
from dfkeval.evaluation.rows import EvalItems, inputs_sha256, items_of, read_rows, stored_item
from dfkeval.parsing.label_confidence import with_slot
from dfkeval.reports import trackers
from dfkeval.runs import config as configs
from dfkeval.runs import directory
from dfkeval.runs.config import EvalConfig
from dfkeval.runs.directory import RunDirectory
from dfkeval.runs.run import Run, stored_config
from dfkeval.types import OUTCOMES, Constraint, Request


def evaluate(
    config: EvalConfig | str | Path,
    out: str | Path,
    *,
    backend: Backend | None = None,
    overwrite: bool = False,
    overrides: Sequence[str] = (),
    progress: Progress | None = None,
    overlap: Mapping[str, int] | None = None,
) -> Run:
    """Ask every row, grade the answers, score them and write the run directory; continue a run that was
    stopped.

    Args:
        config: The configuration, or the path of its YAML file.
        out: Folder of the run. If it holds the same run unfinished, only what is missing is asked.
        backend: A loaded backend that answers instead of the one that the configuration names.
        overwrite: Whether another run in `out` is thrown away.
        overrides: Changes to a YAML file, such as "sampling.max_new_tokens=64".
        progress: Called after each completion with the numbers of finished and of all requests.
        overlap: What the caller knows that the rows share with training (`dfkdata.validation.overlap`): kind ->
            number of rows. What the manifest beside the data knows is added.

    Returns:
        The scored run; the same files lie in `out`.

    Raises:
        ConfigError: The configuration does not fit together; nothing slow has been loaded by then.
        DataError: The data file holds no rows, an id twice, or rows that cannot be asked.
        BackendError: The engine itself fails; what was answered until then is kept.

    Example:
        >>> import json
        >>> from pathlib import Path
        >>> from dfkeval import EvalConfig, evaluate
        >>> row = {"id": "1", "messages": [{"role": "user", "content": "The capital of Indonesia?"}],
        ...        "meta": {"schema": "answer", "gold": {"answer": "Jakarta"}}}
        >>> _ = Path("rows.jsonl").write_text(json.dumps(row))
        >>> _ = Path("answers.jsonl").write_text('{"id": "1", "text": "Jakarta"}')
        >>> backend = {"kind": "scripted", "completions": "answers.jsonl"}
        >>> config = EvalConfig(data="rows.jsonl", backend=backend, metrics=["answers"])
        >>> run = evaluate(config, "run")
        >>> run.summary["metrics"]["answers.exact"]["value"]
        1.0
    """
    if not isinstance(config, EvalConfig):
        config = configs.read(config, overrides)
    config = configs.rooted(config, Path.cwd())
    configs.trust_named(config)
    with LazyBackend(config, backend) as lazy:
        return evaluate_rooted(config, out, lazy, overwrite=overwrite, progress=progress, overlap=overlap)


def evaluate_rooted(
    config: EvalConfig,
    out: str | Path,
    lazy: LazyBackend,
    *,
    overwrite: bool,
    progress: Progress | None,
    overlap: Mapping[str, int] | None = None,
) -> Run:
    """Evaluate a configuration whose paths are absolute (see `evaluate`).

    Args:
        config: The configuration, for one mode.
        out: Folder of the run.
        lazy: The backend, which is loaded only if something is left to ask.
        overwrite: Whether another run in `out` is thrown away.
        progress: Called after each completion.
        overlap: What the caller knows that the rows share with training.

    Returns:
        The scored run.
    """
    rows = read_rows(config)
    config, schema = configs.resolve(config, rows[0])
    constraint = constraints.constraint(schema, config.mode)
    preflight.check_run(config, schema, constraint, rows[0], lazy.given)
    items = items_of(rows, config, schema)
    run_dir = RunDirectory(out)
    with run_dir.alone():
        run_dir.begin(config.record(), inputs_sha256(config), overwrite=overwrite)
        pending = _pending(run_dir, items, config, schema, constraint)
        if pending:
            preflight.check_media(config.data, rows, config.backend, lazy.given)
            preflight.check_thinking(config.data, rows, config.sampling.thinking)
            backend = lazy.engine() if config.cache is None else CachedBackend(lazy.engine(), config.cache)
            generation.generate(run_dir, backend, pending, config, len(items), progress)
        gold_answers = likelihood.unasked(run_dir, items) if likelihood.needed_by(config.metrics) else []
        if gold_answers:
            likelihood.compute(run_dir, lazy.engine(), gold_answers, config.sampling, progress)
        run = finish(run_dir, config, schema, items, overlap)
    trackers.send(run, config.trackers)
    return run


def _pending(
    run_dir: RunDirectory,
    items: EvalItems,
    config: EvalConfig,
    schema: Schema,
    constraint: Constraint | None,
) -> Sequence[Request]:
    """Return the requests that have no answer yet."""
    done = run_dir.answered()

    def request(place: int) -> Request:
        asked = structs.replace(items.request(place), constraint=constraint)
        return with_slot(asked, schema) if config.confidences else asked

    return MadeSequence(
        request, array("Q", (place for place, name in enumerate(items.ids()) if name not in done))
    )


def finish(
    run_dir: RunDirectory,
    config: EvalConfig,
    schema: Schema,
    items: Iterable[EvalItem],
    overlap: Mapping[str, int] | None = None,
    *,
    shows_media: bool = True,
) -> Run:
    """Grade and score what is answered, and write samples, summary and reports.

    `shows_media` tells whether reports may show every picture of the samples, because the rows were allowed to name it.
    """
    now("scores the answers")
    completions = run_dir.completions()
    answers = graded(items, completions, schema, constraints.reading(config.mode))
    run_dir.write_samples(likelihood.joined(answers, run_dir.likelihoods()))
    samples = run_dir.samples()
    if shows_media and any(sample.images for sample in samples):
        media_roots.remember(run_dir.path(directory.SAMPLES))
    run = Run(
        folder=run_dir.folder,
        config=config,
        schema=schema,
        samples=samples,
        summary={},
        environment=run_dir.environment(),
    )
    run.summary = summarise(run)
    shared = caveats.overlap(run_dir, config, overlap)
    if shared is not None:
        run.summary["overlap"] = shared
    run.summary["details"] |= server_parser.details(samples, completions, schema)
    json_files.write_json(run_dir.path(directory.SUMMARY), run.summary)
    write_reports(run)
    return run


def write_reports(
    run: Run, others: Sequence[Run] = (), lang: Language | None = None, *, redact: bool | None = None
) -> None:
    """Write report.md and report.html; both begin with a comparison with each of `others`.

    Args:
        run: The run.
        others: Runs that it is compared with.
        lang: Language of the words on the page; None takes the run's.
        redact: Whether personal texts are masked and pictures blurred; None takes the run's.
    """
    pairs = [comparison.compare(other, run) for other in others]
    hidden = run.config.redact if redact is None else redact
    run_dir = RunDirectory(run.folder)
    json_files.write_bytes(
        run_dir.path(directory.REPORT_MD), reports.markdown(run, pairs, redact=hidden).encode()
    )
    parts = reports.page_parts(run.name, [*others, run], pairs, lang=lang, redact=hidden)
    json_files.write_parts(run_dir.path(directory.REPORT_HTML), parts)


def summarise(run: Run) -> dict[str, Any]:
    """Return what summary.json holds: {"n", "outcomes", "metrics": {name: {"value", "low", "high", "n"}},
    ...}."""
    outcomes, groups = Counter[str](), list[str]()
    for sample in run.samples:
        outcomes[sample.outcome] += 1
        groups.append(sample.group)
    estimates = statistics.estimates(
        run.measured,
        groups,
        resamples=run.config.resamples,
        confidence=run.config.confidence,
        seed=bootstrap.stream(run.config.seed, "bootstrap"),
    )
    return {
        "n": len(run.samples),
        "outcomes": {name: outcomes[name] for name in OUTCOMES if outcomes[name]},
        "metrics": {
            f"{name}.{key}": structs.asdict(value)
            for name in run.measured
            for key, value in estimates[name].items()
        },
        "confidence": run.config.confidence,
        "lower_is_better": [
            f"{name}.{key}" for name, (metric, _) in run.measured.items() for key in metric.lower_is_better
        ],
        "details": {name: table.details for name, (_, table) in run.measured.items() if table.details},
        "unscored": caveats.unscored(run),
    }


def score(folder: str | Path, *, metrics: Sequence[str] | None = None) -> Run:
    """Grade and score a run again from its stored completions; no model is needed.

    The rows come from the data file or, if it is gone, from samples.jsonl.

    Args:
        folder: A run directory.
        metrics: Other metrics than the run's; None keeps them.

    Returns:
        The run with its new samples, summary and reports, which are written too.

    Raises:
        DataError: The folder holds no run, or the data file or the scaffold was changed since.
        ConfigError: Another process writes into the run, or a metric does not fit.

    Example:
        >>> import json
        >>> from pathlib import Path
        >>> from dfkeval import EvalConfig, evaluate, score
        >>> row = {"id": "1", "messages": [{"role": "user", "content": "The capital of Indonesia?"}],
        ...        "meta": {"schema": "answer", "gold": {"answer": "Jakarta"}}}
        >>> _ = Path("rows.jsonl").write_text(json.dumps(row))
        >>> _ = Path("answers.jsonl").write_text('{"id": "1", "text": "Jakarta"}')
        >>> backend = {"kind": "scripted", "completions": "answers.jsonl"}
        >>> _ = evaluate(EvalConfig(data="rows.jsonl", backend=backend), "run")
        >>> run = score("run", metrics=["answers"])
        >>> run.summary["metrics"]["answers.exact"]["value"]
        1.0
    """
    run_dir = RunDirectory(folder)
    run_dir.config()  # raises if there is no run, before a lock makes the folder
    with run_dir.alone(else_=""):
        return _scored_again(run_dir, metrics)


def _scored_again(run_dir: RunDirectory, metrics: Sequence[str] | None) -> Run:
    """Score again and write the configuration last, so that a metric that fails leaves the run as it was."""
    record = run_dir.config()
    config = stored_config(run_dir)
    if metrics:
        config = config.model_copy(update={"metrics": tuple(metrics)})
    likelihood.check_stored(run_dir, config.metrics)
    shows_media = media_roots.is_remembered(run_dir.path(directory.SAMPLES))
    if not all(path.exists() for path in (config.data, config.scaffold) if path is not None):
        config, schema = configs.resolve(config, {})
        items: Iterable[EvalItem] = map(stored_item, run_dir.samples())
    else:
        if inputs_sha256(config) != record["data_sha256"]:
            raise DataError(
                f"{config.data}{f' or {config.scaffold}' if config.scaffold else ''}: was changed since "
                f"{run_dir.folder} was run; run it again with --overwrite"
            )
        rows = read_rows(config, opens_media=False)
        config, schema = configs.resolve(config, rows[0])
        items = items_of(rows, config, schema)
    run = finish(run_dir, config, schema, items, shows_media=shows_media)
    json_files.write_json(run_dir.path(directory.CONFIG), record | {"config": config.record()})
    return run

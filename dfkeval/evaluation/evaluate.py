"""Rows -> requests -> completions -> samples -> summary. Strategy: four stages with files between them.

Generation appends to the run directory and is the only stage that needs the model; judging and scoring are
pure functions of rows and completions and can be done again at any time. Promises: a run that was killed
goes on where it stopped and ends equal to one that was not; a failed request is asked again on resume and
never scored; every row gives exactly one sample."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
from msgspec import structs

from dfkdata import schemas
from dfkdata.common.config import bind
from dfkdata.common.errors import DataError
from dfkdata.rows.messages import load_rows
from dfkdata.schemas import Schema
from dfkeval import metrics
from dfkeval.analysis import server_parser, statistics
from dfkeval.evaluation import constraints, generation, likelihood, response_cache, scaffold
from dfkeval.evaluation.generation import Progress, Source
from dfkeval.evaluation.grading import Item, item, judge, repeated
from dfkeval.evaluation.response_cache import Cached
from dfkeval.parsing.label_confidence import with_slot
from dfkeval.runs import config as configs
from dfkeval.runs import directory as stores
from dfkeval.runs.config import EvalConfig
from dfkeval.runs.directory import Store
from dfkeval.types import NOT_ANSWERED, OUTCOMES, Backend, Constraint, Request, Sample

Scored = tuple[metrics.Metric, metrics.Measured]


@dataclass(kw_only=True)
class Run:
    """A run directory in memory. summary: {"n", "outcomes", "metrics", "details"} as in summary.json."""

    folder: Path
    config: EvalConfig
    schema: Schema
    samples: list[Sample]
    summary: dict[str, Any]
    environment: dict[str, Any] = field(default_factory=dict)
    _measured: dict[str, Scored] = field(default_factory=dict, repr=False)

    @property
    def measured(self) -> dict[str, Scored]:
        """Every metric's sufficient statistics, rows in the order of `samples`; computed once."""
        if not self._measured:
            self._measured = measure(self.samples, self.config, self.schema)
        return self._measured

    @property
    def name(self) -> str:
        """The directory's name."""
        return self.folder.name

    @property
    def failed_share(self) -> float:
        """Share of requests that got no answer."""
        failed = sum(self.summary["outcomes"].get(name, 0) for name in NOT_ANSWERED)
        return float(failed / max(1, self.summary["n"]))


def evaluate(
    config: EvalConfig | str | Path,
    out: str | Path,
    *,
    backend: Backend | None = None,
    overwrite: bool = False,
    overrides: Sequence[str] = (),
    progress: Progress | None = None,
) -> Run:
    """Ask every row, judge the answers, score them and write the report; continues a run that was stopped.

    config: a configuration, or the path of its YAML file. backend: something loaded that answers instead of
    the one the configuration names. Raises `ConfigError` before anything slow is loaded, `DataError` for
    the data file, and `BackendError` when the engine itself fails; what was answered until then is kept."""
    if not isinstance(config, EvalConfig):
        config = configs.read(config, overrides)
    config = configs.rooted(config, Path.cwd())
    with generation.Source(config, backend) as source:
        return answered(config, out, source, overwrite=overwrite, progress=progress)


def answered(
    config: EvalConfig, out: str | Path, source: Source, *, overwrite: bool, progress: Progress | None
) -> Run:
    """`evaluate` for a configuration with absolute paths and an engine that is loaded only if something is
    left to ask."""
    rows = read_rows(config)
    config, schema = configs.resolve(config, rows[0])
    wanted = constraints.constraint(schema, config.mode)
    generation.demand(config, wanted, source.given)
    if source.given is None:
        response_cache.demand(config.cache, config.backend)
    configs.check_card(config, schema, rows[0])
    from dfkeval.reports import trackers  # its members know runs

    trackers.demand(config.trackers)
    needs_likelihoods = likelihood.demand(config.metrics, config.kind, source.given)
    items = items_of(rows, config, schema)
    store = Store(out)
    with store.alone():
        store.begin(config.record(), inputs_sha256(config), overwrite=overwrite)
        pending = _pending(store, items, config, schema, wanted)
        if pending:
            kept = source.engine() if config.cache is None else Cached(source.engine(), config.cache)
            generation.ask(store, kept, pending, config, len(items), progress)
        lessons = likelihood.open_lessons(store, items) if needs_likelihoods else []
        if lessons:
            likelihood.ask(store, source.engine(), lessons, config.sampling, progress)
        run = finish(store, config, schema, items)
    trackers.send(run, config.trackers)
    return run


def _pending(
    store: Store, items: Sequence[Item], config: EvalConfig, schema: Schema, wanted: Constraint | None
) -> list[Request]:
    """What has no answer yet, as it is asked."""
    done = store.completions()
    pending = [each.request for each in items if each.request.id not in done or done[each.request.id].error]
    pending = [structs.replace(request, constraint=wanted) for request in pending]
    return [with_slot(request, schema) for request in pending] if config.confidences else pending


def items_of(rows: Sequence[dict[str, Any]], config: EvalConfig, schema: Schema) -> list[Item]:
    """What is asked: every row, under the scaffold where there is one, as often as it is drawn. Raises
    `DataError` when two drawings share an id, and as `scaffolds.read`."""
    found = scaffold.demand(config.scaffold, schema)
    items = repeated([item(scaffold.of_row(row, found), schema) for row in rows], config.sampling.repeats)
    _refuse_twice(config.data, [each.request.id for each in items])
    return items


def inputs_sha256(config: EvalConfig) -> str:
    """Hash of the data file; with a scaffold, of both hashes."""
    found = [stores.file_sha256(path) for path in (config.data, config.scaffold) if path is not None]
    return found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest()


def read_rows(config: EvalConfig) -> list[dict[str, Any]]:
    """The rows to ask. Raises `DataError` for none, or for an id written twice."""
    everything = list(islice(load_rows(config.data), config.limit))
    place, count = config.part
    rows = everything[place - 1 :: count]
    if not rows:
        part = f" in shard {config.shard}" if config.shard else ""
        raise DataError(f"{config.data}: no rows to evaluate{part}")
    for row in rows:
        if not row["messages"] or not all(map(_is_turn, row["messages"])):
            raise DataError(
                f"{config.data}: row {str(row['id'])!r}: a turn is not {{role, content}} with a list of parts"
                " (dfkdata convert writes them)"
            )
    _refuse_twice(config.data, [str(row["id"]) for row in rows])
    return rows


def _refuse_twice(data: Path, names: Sequence[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{data}: {len(twice)} ids are written twice, for example {twice[0]!r}")


def _is_turn(turn: Any) -> bool:
    if not isinstance(turn, dict) or not isinstance(turn.get("role"), str):
        return False
    content = turn.get("content")
    if not isinstance(content, list):
        return content is None or isinstance(content, str)
    return all(isinstance(part, str | dict) for part in content)


def finish(store: Store, config: EvalConfig, schema: Schema, items: Sequence[Item]) -> Run:
    """Judge and score what is answered, and write samples, summary and reports."""
    completions = store.completions()
    samples = judge(items, completions, schema, constraints.reading(schema, config.mode))
    samples = likelihood.joined(samples, store.likelihoods())
    store.write_samples(samples)
    measured = measure(samples, config, schema)
    summary = summarise(samples, measured, config)
    parsed = server_parser.compare(samples, completions, schema)
    if parsed is not None:
        summary["details"][server_parser.DETAIL] = parsed
    stores.write_json(store.path(stores.SUMMARY), summary)
    found = store.path(stores.ENVIRONMENT)
    run = Run(
        folder=store.folder,
        config=config,
        schema=schema,
        samples=samples,
        summary=summary,
        environment=stores.read_json(found) if found.exists() else {},
        _measured=measured,
    )
    write_reports(run)
    return run


def write_reports(run: Run, others: Sequence[Run] = ()) -> None:
    """report.md and report.html; with `others`, what the run is compared with, both begin with that."""
    from dfkeval import reports
    from dfkeval.analysis import comparison

    pairs = [comparison.compare(other, run) for other in others]
    store = Store(run.folder)
    stores.write_bytes(store.path(stores.REPORT_MD), reports.markdown(run, pairs).encode())
    page = reports.page(run.name, [*others, run], pairs)
    stores.write_bytes(store.path(stores.REPORT_HTML), page.encode())


def summarise(
    samples: Sequence[Sample], measured: Mapping[str, Scored], config: EvalConfig
) -> dict[str, Any]:
    """summary.json: {"n", "outcomes", "metrics": {name: {"value", "low", "high", "n"}}, "details"}."""
    counts = Counter(sample.outcome for sample in samples)
    found: dict[str, statistics.Estimate] = {}
    details: dict[str, Any] = {}
    estimates = statistics.estimates(
        measured,
        [sample.group for sample in samples],
        resamples=config.resamples,
        confidence=config.confidence,
        seed=statistics.stream(config.seed, "bootstrap"),
    )
    for name, (_, table) in measured.items():
        found |= {f"{name}.{key}": value for key, value in estimates[name].items()}
        details[name] = table.details
    return {
        "n": len(samples),
        "outcomes": {name: counts[name] for name in OUTCOMES if counts[name]},
        "metrics": {name: msgspec.structs.asdict(value) for name, value in found.items()},
        "confidence": config.confidence,
        "lower_is_better": [
            f"{name}.{key}" for name, (metric, _) in measured.items() for key in metric.lower_is_better
        ],
        "details": {name: facts for name, facts in details.items() if facts},
    }


def measure(samples: Sequence[Sample], config: EvalConfig, schema: Schema) -> dict[str, Scored]:
    """Every metric of the configuration on the samples, by member name."""
    options = {"bertscore": config.bertscore, "fields": config.fields, "sita": config.sita}
    scoring = metrics.Scoring(schema, options)
    loaded = {name.rsplit(".", 1)[-1]: metrics.load(name) for name in config.metrics}
    return {name: (metric, metric.measure(samples, scoring)) for name, metric in loaded.items()}


def score(folder: str | Path, *, metrics: Sequence[str] | None = None) -> Run:
    """Judge and score a run again from its stored completions; no model is needed.

    metrics: other metrics than the run's. Rows come from the data file, or, where it is gone, from
    samples.jsonl. Raises `DataError` when the data file, or the scaffold, was changed since, and
    `ConfigError` while another process writes into the run."""
    store = Store(folder)
    store.config()  # no folder is made where there is no run
    with store.alone(else_=""):
        return _scored_again(store, metrics)


def _scored_again(store: Store, metrics: Sequence[str] | None) -> Run:
    """The configuration is written last, so that metrics that cannot be had leave the run as it was."""
    record = store.config()
    config = _stored_config(store)
    if metrics:
        config = config.model_copy(update={"metrics": tuple(metrics)})
    likelihood.demand_stored(store, config.metrics)
    if not all(path.exists() for path in (config.data, config.scaffold) if path is not None):
        config, schema = configs.resolve(config, {})
        items = [_stored(sample) for sample in store.samples()]
    else:
        if inputs_sha256(config) != record["data_sha256"]:
            raise DataError(
                f"{config.data}{f' or {config.scaffold}' if config.scaffold else ''}: was changed since "
                f"{store.folder} was run; run it again with --overwrite"
            )
        rows = read_rows(config)
        config, schema = configs.resolve(config, rows[0])
        items = items_of(rows, config, schema)
    run = finish(store, config, schema, items)
    stores.write_json(store.path(stores.CONFIG), record | {"config": config.record()})
    return run


def _stored_config(store: Store) -> EvalConfig:
    """The configuration of a run. Raises `ConfigError` when another version of dfk wrote it."""
    return bind(store.config().get("config") or {}, EvalConfig, str(store.path(stores.CONFIG)))


def _stored(sample: Sample) -> Item:
    request = Request(id=sample.id, messages=[], images=sample.images, repeat=sample.repeat)
    return Item(request, sample.group, sample.gold, sample.source_text, sample.prompt, sample.key)


def load_run(folder: str | Path) -> Run:
    """A finished run as it was scored. Raises `DataError` when it is none."""
    store = Store(folder)
    config = _stored_config(store)
    found = store.path(stores.ENVIRONMENT)
    return Run(
        folder=store.folder,
        config=config,
        schema=schemas.load(config.schema_name or "", config.variant),
        samples=store.samples(),
        summary=stores.read_summary(store.folder),
        environment=stores.read_json(found) if found.exists() else {},
    )

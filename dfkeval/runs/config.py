"""The configuration of an evaluation, read from YAML.

    data: test.jsonl                       # rows of the messages layout; paths are relative to this file
    schema: dfk_label
    backend: {kind: scripted, completions: answers.jsonl}
    metrics: [validity, bertscore]
    metric_options:
      bertscore: {lang: id}

How it works: a backend's keys are bound by the `Config` of its member, a metric's options by the `Options`
of its member, so a new member brings its own keys. Everything is checked before anything slow is loaded:
names, unknown keys, and whether each metric finds a field that it can score."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    SerializeAsAny,
    ValidationError,
    model_validator,
)

from dfkdata import schemas
from dfkdata.common import credentials, media_roots, plugins
from dfkdata.common.config import C, Config, NestedFaults, bind, faults_of, gathered, load_config, raise_all
from dfkdata.common.console import part_of
from dfkdata.common.errors import ConfigError
from dfkdata.pages.words import Language
from dfkdata.schemas import Schema, ToolForm
from dfkeval import backends, metrics
from dfkeval.models.identity import AnswerIdentity
from dfkeval.parsing.label_confidence import require_slot
from dfkeval.parsing.tags import TOOL_CALL_CLOSE
from dfkeval.types import Mode, Sampling

#: Metrics whose options have a key of their own at the top of the YAML and of config.json.
SECTIONS = ("bertscore", "fields", "sita")


def backend_of(value: Any) -> Any:
    """Return the backend's own `Config` for {"kind": name, ...}; a `Config` is returned as it is."""
    if not isinstance(value, Mapping):
        return value
    if not isinstance(value.get("kind"), str):
        known = ", ".join(plugins.names(backends.FAMILY))
        raise ConfigError(f"backend.kind is missing; it is one of {known}")
    module = plugins.load(backends.FAMILY, value["kind"])
    return bind(dict(value), module.Config, "backend")


@dataclass(frozen=True)
class _Options:
    """Options of metrics as they are written.

    Attributes:
        under: What stands under `metric_options:`.
        sections: What stands at the top, for the names in `SECTIONS`.
        metrics: The metrics that are asked for.
    """

    under: Any
    sections: Mapping[str, Any]
    metrics: Sequence[str]


def _bound_options(written: Any) -> Any:
    """Return the options of metrics, each bound by its member. Raises `ConfigError` with every fault."""
    if not isinstance(written, _Options):
        return written
    options = written.under or {}
    if not isinstance(options, Mapping):
        raise ConfigError("metric_options: not a mapping of metric names to their options")
    places = {name: f"metric_options.{name}" for name in [*SECTIONS, *options]}
    by_name: dict[str, Any] = {name: {} for name in SECTIONS} | dict(options)
    for name, values in written.sections.items():
        if values is None:
            continue
        both = isinstance(values, Mapping) and isinstance(options.get(name), Mapping)
        by_name[name], places[name] = {**options[name], **values} if both else values, name
    listed = {name.rsplit(".", 1)[-1]: name for name in written.metrics}
    bound, faults = {}, []
    for name, values in by_name.items():
        try:
            bound[name.rsplit(".", 1)[-1]] = _options(listed.get(name, name), values, places[name])
        except ConfigError as error:
            faults.append(str(error))
    if faults:
        raise ConfigError("\n".join(faults))
    return bound


class EvalConfig(Config):
    """What is evaluated, how answers are generated, and how they are scored.

    Attributes:
        data: JSONL file of the messages layout.
        schema_name: Member of `dfkdata.schemas` (YAML key `schema`); None takes the one that the rows name.
        variant: Which of the schema's prompt and answer forms; None takes the rows'.
        backend: The engine that answers; `kind` names a member of `dfkeval.backends`.
        metrics: Members of `dfkeval.metrics`, or dotted modules outside.
        sampling: How text is drawn.
        modes: free, json_mode or constrained (`dfkeval.evaluation.constraints`); several give one run each,
        compared
            with the first.
        cache: Folder of answers that are used again if everything that decides them is equal.
        scaffold: A task_1 file whose system turn and tools replace the rows' own.
        confidences: Whether the probability of each label is asked for too.
        metric_options: Options by the name of a metric. `bertscore`, `fields` and `sita` may also stand at
            the top.
        trackers: Services that get the numbers too (`dfkeval.reports.trackers`).
        limit: Only so many rows, from the first.
        shard: "3/16" is every sixteenth row from the third.
        plugins: Modules outside this repository that rows and adapters may name, such as a schema in a row's `meta`;
            those that the configuration names itself need no entry.
        media_roots: Folders in which rows may name media besides their own (`dfkdata.common.media_roots`); they are
            not kept in the run.
        max_failures: Largest share of failed requests before the command exits 1, from 0 to 1.
        resamples: Number of bootstrap resamples behind each interval.
        confidence: Coverage of the intervals, such as 0.95.
        seed: Seed of the resamples.
        lang: Language of the words on report.html, "en" or "id".
        redact: Whether report.md and report.html mask handles, links, phone numbers and e-mail addresses and blur
            pictures; the other files keep them.
        max_image_side: Pixels that the longer side of an image may have before it is scaled down; None shows
            images as the model's processor takes them.

    Example:
        >>> from dfkeval import EvalConfig
        >>> config = EvalConfig.model_validate({
        ...     "data": "test.jsonl",
        ...     "schema": "dfk_label",
        ...     "backend": {"kind": "scripted", "completions": "answers.jsonl"},
        ...     "metrics": ["validity", "labels"],
        ... })
        >>> config.kind, config.mode
        ('scripted', 'free')
    """

    model_config = ConfigDict(populate_by_name=True)

    data: Path
    schema_name: str | None = Field(default=None, alias="schema")
    variant: str | None = None
    backend: Annotated[SerializeAsAny[Config], BeforeValidator(gathered(backend_of))]
    metrics: tuple[str, ...] = ("validity",)
    sampling: Sampling = Sampling()
    modes: tuple[Mode, ...] = Field(default=("free",), min_length=1)
    cache: Path | None = None
    scaffold: Path | None = None
    confidences: bool = False
    metric_options: Annotated[
        dict[str, SerializeAsAny[Config]], BeforeValidator(gathered(_bound_options))
    ] = Field(default_factory=dict)
    trackers: tuple[str, ...] = ()
    limit: int | None = Field(default=None, ge=1)
    shard: str | None = Field(default=None, pattern=r"^[1-9]\d*/[1-9]\d*$")
    plugins: tuple[str, ...] = ()
    media_roots: tuple[Path, ...] = Field(default=(), exclude=True)
    max_failures: float = Field(default=0.0, ge=0.0, le=1.0)
    resamples: int = Field(default=10_000, ge=100)
    confidence: float = Field(default=0.95, gt=0.0, lt=1.0)
    seed: int = 42
    lang: Language = "en"
    redact: bool = False
    max_image_side: int | None = Field(default=None, ge=1)

    #: Keys that only change how answers are graded, scored and kept; a run goes on, and is scored again, with
    #: other values. Every other key is part of the `AnswerIdentity`.
    scoring_keys: ClassVar[frozenset[str]] = frozenset(
        {
            "metrics", "metric_options", *SECTIONS, "resamples", "confidence", "seed", "max_failures",
            "cache", "trackers", "plugins", "media_roots", "lang", "redact",
        }
    )  # fmt: skip

    @model_validator(mode="before")
    @classmethod
    def _gather_metric_options(cls, data: Any) -> Any:
        """Gather the options of metrics, wherever they stand; `_bound_options` binds them."""
        if not isinstance(data, Mapping):
            return data
        data = dict(data)
        listed = data.get("metrics")
        metrics = [str(name) for name in listed] if isinstance(listed, list | tuple) else []
        sections = {name: data.pop(name) for name in SECTIONS if name in data}
        data["metric_options"] = _Options(data.pop("metric_options", None), sections, metrics)
        return data

    @model_validator(mode="wrap")
    @classmethod
    def _raise_all(cls, data: Any, handler: ModelWrapValidatorHandler[EvalConfig]) -> EvalConfig:
        """Raise `ConfigError` with all faults, if a part that a member binds has one."""
        try:
            return handler(data)
        except ValidationError as error:
            if any(isinstance(fault.get("ctx", {}).get("error"), NestedFaults) for fault in error.errors()):
                raise ConfigError("\n".join(faults_of(error, cls))) from error
            raise

    def options_of(self, metric: str, kind: type[C]) -> C:
        """Return the options of a metric, its defaults if none are configured.

        Args:
            metric: Name of the metric.
            kind: The member's `Options`.

        Raises:
            ConfigError: The options are of another class."""
        return metrics.options_of(self.metric_options, metric, kind)

    @property
    def kind(self) -> str:
        """Return the name of the backend's member."""
        return backends.kind_of(self.backend)

    @property
    def mode(self) -> Mode:
        """Return the mode of this run. Raises `ConfigError` if there are several."""
        if len(self.modes) > 1:
            raise ConfigError(
                f"modes {', '.join(self.modes)}: one run has one mode; `dfkeval run` and "
                "`dfkeval.evaluate_modes` make one run for each"
            )
        return self.modes[0]

    @property
    def part(self) -> tuple[int, int]:
        """(place, count) of the shard, counted from 1; (1, 1) without one."""
        return part_of(self.shard)

    def record(self) -> dict[str, Any]:
        """Return the configuration as JSON types; `EvalConfig.model_validate` reads it back.

        The sections in `SECTIONS` are always written, with their defaults; other options only if they are
        set."""
        record: dict[str, Any] = {}
        for key, value in self.model_dump(mode="json", by_alias=True).items():
            if key == "metric_options":
                record |= self._recorded_options(value)
            else:
                record[key] = value
        recorded: dict[str, Any] = credentials.public(record)
        return recorded

    def _recorded_options(self, written: Mapping[str, Any]) -> dict[str, Any]:
        sections = {name: written[name] for name in SECTIONS}
        others = {name: value for name, value in written.items() if name not in SECTIONS}
        return sections | ({"metric_options": others} if others else {})


def _options(metric: str, values: Any, where: str) -> Config:
    if isinstance(values, Config):
        return values
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where}: not a mapping of options")
    return metrics.bind_options(metric, values, where)


def named_members(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (place, name) for each member of a family that a configuration's record names."""
    if isinstance(backend := record.get("backend"), Mapping):
        yield "backend.kind", str(backend.get("kind"))
    yield "schema", str(record.get("schema"))
    for place in ("metrics", "metric_options", "trackers"):
        if isinstance(listed := record.get(place), Iterable):
            yield from ((place, str(name)) for name in listed)


def trust_named(config: EvalConfig) -> None:
    """Let files name the modules and folders that the user's own configuration names (see `plugins`, `media_roots`)."""
    media_roots.allow(config.media_roots)
    plugins.trust(config.plugins)
    plugins.trust(name for _, name in named_members(config.record()) if "." in name)


def answer_identity(record: Mapping[str, Any]) -> AnswerIdentity:
    """Return what decides the answers in a configuration's record, which may be one of an older version."""
    return AnswerIdentity.of(
        settings={
            key: value
            for key, value in credentials.public(record).items()
            if key not in EvalConfig.scoring_keys
        }
    )


def read(path: str | Path, overrides: Sequence[str] = ()) -> EvalConfig:
    """Return the configuration in a YAML file, with absolute paths. Raises `ConfigError` with every fault."""
    return rooted(load_config(path, EvalConfig, overrides), Path(path).resolve().parent)


def rooted(config: EvalConfig, root: Path) -> EvalConfig:
    """Return the configuration with absolute paths; a model that is not a folder below `root` stays a
    name."""
    backend = config.backend.model_copy(update=paths_of(config.backend, root))
    own: dict[str, Any] = {"data": _absolute(config.data, root), "backend": backend}
    own["metric_options"] = {
        name: options.model_copy(update=paths_of(options, root))
        for name, options in config.metric_options.items()
    }
    own["media_roots"] = tuple(_absolute(folder, root) for folder in config.media_roots)
    own |= {
        name: _absolute(path, root)
        for name in ("cache", "scaffold")
        if (path := getattr(config, name)) is not None
    }
    return config.model_copy(update=own)


def paths_of(part: Config, root: Path) -> dict[str, Any]:
    """Return the fields that hold paths, or a model that is a folder, as absolute paths."""
    paths: dict[str, Any] = {}
    for name in type(part).model_fields:
        value = getattr(part, name)
        if isinstance(value, Path):
            paths[name] = _absolute(value, root)
        elif name == "model" and isinstance(value, str) and (root / value).is_dir():
            paths[name] = str(_absolute(Path(value), root))
    return paths


def _absolute(path: Path, root: Path) -> Path:
    return path if path.is_absolute() else (root / path).resolve()


def resolve(config: EvalConfig, first: Mapping[str, Any]) -> tuple[EvalConfig, Schema]:
    """Fill in what the rows decide (schema, variant) and what the schema decides (stop string), and check
    all names.

    Args:
        config: The configuration.
        first: The first row; empty if the rows are gone.

    Returns:
        The filled configuration and the schema of the answers.

    Raises:
        ConfigError: No schema is named, a metric finds no field, a name stands twice, or a row names a schema outside
            this repository that the user does not trust.
    """
    meta = first.get("meta") or {}
    name = config.schema_name or meta.get("schema")
    if not isinstance(name, str):
        raise ConfigError(f"{config.data}: the rows name no schema; set `schema:` to one of {_schemas()}")
    variant = config.variant
    if variant is None and meta.get("schema") == name:
        variant = meta.get("variant")
    source = None if config.schema_name else f"{config.data}, meta.schema of its first row,"
    schema = schemas.load(name, variant, source=source)
    raise_all(
        *((_check_metric, metric, schema) for metric in config.metrics),
        *([(require_slot, schema)] if config.confidences else []),
        (part_of, config.shard, "shard"),
        (_check_lists, config),
    )
    sampling = config.sampling
    if "stop" not in sampling.model_fields_set and isinstance(schema.form, ToolForm):
        sampling = sampling.model_copy(update={"stop": (TOOL_CALL_CLOSE,)})
    filled = {"schema_name": schema.name, "variant": schema.variant, "sampling": sampling}
    return config.model_copy(update=filled), schema


def _check_metric(name: str, schema: Schema) -> None:
    metrics.check(name, metrics.load(name), schema)


def _check_lists(config: EvalConfig) -> None:
    """Raise `ConfigError` for a mode or a metric that is written twice."""
    faults = []
    if len(set(config.modes)) < len(config.modes):
        faults.append(f"modes: one is written twice: {', '.join(config.modes)}")
    if len({metric.rsplit(".", 1)[-1] for metric in config.metrics}) < len(config.metrics):
        faults.append(f"metrics: a name is written twice: {', '.join(config.metrics)}")
    if faults:
        raise ConfigError("\n".join(faults))


def _schemas() -> str:
    return ", ".join(plugins.names(schemas.FAMILY))

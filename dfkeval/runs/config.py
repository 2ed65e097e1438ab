"""What an evaluation is asked to do: YAML -> frozen configuration.

    data: test.jsonl                       # rows of the messages layout; paths are relative to this file
    schema: dfk_label
    backend: {kind: scripted, completions: answers.jsonl}
    metrics: [validity, labels]

Everything is checked before anything slow is loaded: names, unknown keys, files, and whether each metric
finds a field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, SerializeAsAny

from dfkdata import schemas
from dfkdata.common import plugins
from dfkdata.common.config import Config, bind, load_config
from dfkdata.common.errors import ConfigError
from dfkdata.schemas import Schema, ToolForm
from dfkeval import backends, metrics
from dfkeval.metrics._sita import Options as Sita
from dfkeval.metrics._soft_match import Options as Fields
from dfkeval.metrics.bertscore import Options as BertScore
from dfkeval.parsing.label_confidence import demand_slot
from dfkeval.parsing.tags import TOOL_CALL_CLOSE
from dfkeval.types import Mode, Sampling


def backend_of(value: Any) -> Any:
    """{"kind": name, …} -> the member's own `Config`."""
    if not isinstance(value, Mapping):
        return value
    if not isinstance(value.get("kind"), str):
        known = ", ".join(plugins.names(backends.FAMILY))
        raise ConfigError(f"backend.kind is missing; it is one of {known}")
    module = plugins.load(backends.FAMILY, value["kind"])
    return bind(dict(value), module.Config, "backend")


class EvalConfig(Config):
    """data: JSONL of the messages layout. schema: a member of dfkdata.schemas; None takes the one that the
    rows name.

    variant: which of the schema's prompt and answer forms; None takes the rows'. max_failures: largest
    share of failed requests before the command exits 1. limit: only the first rows. shard: "3/16" is
    every sixteenth row from the third. confidences: ask for the probability of each label too.
    modes: free, json_mode or constrained (`dfkeval.evaluation.constraints`); several give one run each, compared
    in pairs. cache: folder of answers that are used again where everything that decides them is equal.
    trackers: services that get the numbers too (`dfkeval.reports.trackers`).
    sita: which of SITA's evaluators the metrics of that name repeat.
    scaffold: a task_1 file whose system turn and tools replace the rows' own (`dfkeval.evaluation.scaffold`).
    resamples, confidence, seed: of the intervals."""

    model_config = ConfigDict(populate_by_name=True)

    data: Path
    schema_name: str | None = Field(default=None, alias="schema")
    variant: str | None = None
    backend: Annotated[SerializeAsAny[Config], BeforeValidator(backend_of)]
    metrics: tuple[str, ...] = ("validity",)
    sampling: Sampling = Sampling()
    modes: tuple[Mode, ...] = Field(default=("free",), min_length=1)
    cache: Path | None = None
    scaffold: Path | None = None
    confidences: bool = False
    bertscore: BertScore = BertScore()
    fields: Fields = Fields()
    sita: Sita = Sita()
    trackers: tuple[str, ...] = ()
    limit: int | None = Field(default=None, ge=1)
    shard: str | None = Field(default=None, pattern=r"^[1-9]\d*/[1-9]\d*$")
    max_failures: float = Field(default=0.0, ge=0.0, le=1.0)
    resamples: int = Field(default=10_000, ge=100)
    confidence: float = Field(default=0.95, gt=0.0, lt=1.0)
    seed: int = 42

    @property
    def kind(self) -> str:
        """The backend's member name."""
        return backends.kind_of(self.backend)

    @property
    def mode(self) -> Mode:
        """The mode of this run. Raises `ConfigError` when there are several."""
        if len(self.modes) > 1:
            raise ConfigError(
                f"modes {', '.join(self.modes)}: one run has one mode; `dfkeval run` and "
                "`dfkeval.evaluate_modes` make one run for each"
            )
        return self.modes[0]

    @property
    def part(self) -> tuple[int, int]:
        """(place, count) of the shard, counted from 1; (1, 1) without one."""
        if self.shard is None:
            return (1, 1)
        place, _, count = self.shard.partition("/")
        return int(place), int(count)

    def record(self) -> dict[str, Any]:
        """The configuration as JSON types; `EvalConfig.model_validate` reads it back."""
        return self.model_dump(mode="json", by_alias=True)


def read(path: str | Path, overrides: Sequence[str] = ()) -> EvalConfig:
    """The configuration in a YAML file, its paths made absolute. Raises `ConfigError` with every fault."""
    return rooted(load_config(path, EvalConfig, overrides), Path(path).resolve().parent)


def rooted(config: EvalConfig, root: Path) -> EvalConfig:
    """Relative paths become absolute, read from `root`; a model name that is no folder there stays a name."""
    backend = config.backend.model_copy(update=paths_of(config.backend, root))
    own: dict[str, Any] = {"data": _absolute(config.data, root), "backend": backend}
    for part in ("bertscore", "fields"):
        options = getattr(config, part)
        own[part] = options.model_copy(update=paths_of(options, root))
    own |= {
        name: _absolute(path, root)
        for name in ("cache", "scaffold")
        if (path := getattr(config, name)) is not None
    }
    return config.model_copy(update=own)


def paths_of(part: Config, root: Path) -> dict[str, Any]:
    """The fields of `part` that hold paths, or a model that is a folder, as absolute paths."""
    found: dict[str, Any] = {}
    for name in type(part).model_fields:
        value = getattr(part, name)
        if isinstance(value, Path):
            found[name] = _absolute(value, root)
        elif name == "model" and isinstance(value, str) and (root / value).is_dir():
            found[name] = str(_absolute(Path(value), root))
    return found


def _absolute(path: Path, root: Path) -> Path:
    return path if path.is_absolute() else (root / path).resolve()


def resolve(config: EvalConfig, first: Mapping[str, Any]) -> tuple[EvalConfig, Schema]:
    """Fill what the rows decide (schema, variant) and what the schema decides (stop string), and check all
    names.

    first: the first row. Raises `ConfigError`."""
    meta = first.get("meta") or {}
    name = config.schema_name or meta.get("schema")
    if not isinstance(name, str):
        raise ConfigError(f"{config.data}: the rows name no schema; set `schema:` to one of {_schemas()}")
    variant = config.variant
    if variant is None and meta.get("schema") == name:
        variant = meta.get("variant")
    schema = schemas.load(name, variant)
    for metric in config.metrics:
        metrics.check(metric, metrics.load(metric), schema)
    if config.confidences:
        demand_slot(schema)
    if len(set(config.modes)) < len(config.modes):
        raise ConfigError(f"modes: one is written twice: {', '.join(config.modes)}")
    if config.part[0] > config.part[1]:
        raise ConfigError(f"shard {config.shard}: there are only {config.part[1]} shards, counted from 1")
    if len({metric.rsplit(".", 1)[-1] for metric in config.metrics}) < len(config.metrics):
        raise ConfigError(f"metrics: a name is written twice: {', '.join(config.metrics)}")
    sampling = config.sampling
    if not sampling.stop and isinstance(schema.form, ToolForm):
        sampling = sampling.model_copy(update={"stop": (TOOL_CALL_CLOSE,)})
    filled = {"schema_name": schema.name, "variant": schema.variant, "sampling": sampling}
    return config.model_copy(update=filled), schema


def _schemas() -> str:
    return ", ".join(plugins.names(schemas.FAMILY))

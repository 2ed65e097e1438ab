"""convert(): read -> check -> deduplicate -> split -> export, one row in memory at a time.

Promises: rows in = rows out + quarantined + duplicates + left out by request; equal input and configuration
give equal bytes; nothing in the output folder changes before everything is written (see `dfkdata.conversion.output_folder`).
An exact duplicate (same turns, same tools, same picture bytes) is written to duplicates.jsonl and is no
reject. Where two copies fall on two sides of the split, the one in training goes, so that nothing is tested
that was taught."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from dfkdata import schemas, sources
from dfkdata.common import plugins
from dfkdata.common.config import bind
from dfkdata.common.errors import ConfigError
from dfkdata.conversion import output_folder, reader, selection
from dfkdata.conversion import splits as split
from dfkdata.conversion.options import ConvertOptions, Summary, reject_limit
from dfkdata.conversion.runner import ConversionRun
from dfkdata.validation.rules import Policy

EXPORTS = "dfkdata.exports"


def convert(
    input: sources.Input,
    out: str | Path,
    *,
    format: str,
    to: str = "messages",
    schema: str | None = None,
    variant: str | None = None,
    images: str | Path | None = None,
    seed: int = 42,
    max_rejects: str | int = "0%",
    validation: float = 0.1,
    test: float = 0.0,
    group_by: str | None = None,
    split_column: str | None = None,
    validation_file: sources.Input | None = None,
    test_file: sources.Input | None = None,
    stratify: str | None = None,
    split: Literal["hash", "sita"] = "hash",
    max_samples: int | None = None,
    subsample: float = 1.0,
    where: list[str] | None = None,
    limit: int | None = None,
    sample: bool = False,
    hub_config: str | None = None,
    hub_split: str | None = None,
    materialize: Literal["link", "copy", "embed"] = "link",
    deep: bool = False,
    tokenizer: str | None = None,
    max_tokens: int | None = None,
    grounding: float | None = None,
    grounding_language: Literal["en", "id"] = "en",
    balance: bool = False,
    overwrite: bool = False,
    nulls: Literal["omit", "keep"] = "omit",
    rules: dict[str, Policy] | None = None,
    options: dict[str, Any] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Summary:
    """Convert `input` from a raw `format` to the training layout `to`, into the folder `out`.

    input: file, folder, pattern, zip or tar, hf://datasets/ORG/NAME@REV (`hub_config`, `hub_split`), or rows
    in memory. schema, variant: default the format's own. images: folder where image names start, default the
    input's folder. validation, test: shares of groups in [0, 1). group_by: field of the raw row (dotted)
    instead of the format's group. split_column: field that names each row's split. validation_file,
    test_file: inputs that are held out; then no share is cut from `input`. stratify: field whose values keep
    their shares on each side. split: "sita" repeats that framework's shuffle, with its `max_samples` and
    `subsample` (share of each label). where: conditions such as "meta.grounded=true". limit: the first rows,
    or with `sample` that many at random. materialize: "copy" the images into `out`, or "embed" them in the
    rows. deep: decode every picture and look for near duplicates across splits. tokenizer, max_tokens: a
    tokenizer.json and how many text tokens a row may have. max_rejects: "2%" of all rows or a count. rules:
    rule code -> policy. options: the format's own. progress: told the number of rows read from time to time.
    Raises `ConfigError` before anything is written, `DataError` for a file that is not of the format."""
    allowed = reject_limit(max_rejects)
    fixed = validation_file is not None or test_file is not None
    if fixed and split_column:
        raise ConfigError(
            "--split-column and --validation-file/--test-file both fix the split; give one of them"
        )
    asked = {
        "format": format, "to": to, "schema_name": schema, "variant": variant, "seed": seed,
        "validation": 0.0 if fixed else validation, "test": 0.0 if fixed else test, "group_by": group_by,
        "split_column": split_column, "stratify": stratify, "split": split, "max_samples": max_samples,
        "subsample": subsample, "where": where or [],
        "limit": limit, "sample": sample, "hub_config": hub_config,
        "hub_split": hub_split, "materialize": materialize, "deep": deep, "tokenizer": tokenizer,
        "max_tokens": max_tokens, "grounding": grounding, "grounding_language": grounding_language,
        "balance": balance, "nulls": nulls, "rules": rules or {}, "options": options or {},
    }  # fmt: skip
    inputs: list[tuple[sources.Input, str | None]] = [(input, "train" if fixed else None)]
    held = ((validation_file, "validation"), (test_file, "test"))
    inputs += [(given, side) for given, side in held if given is not None]
    job = _Job(
        bind(asked, ConvertOptions, "convert"),
        inputs,
        Path(images) if images is not None else None,
        Path(out),
    )
    job.progress = progress
    return job.convert(allowed, overwrite)


class _Job:
    """A conversion before it runs: names are resolved, nothing is open."""

    progress: Callable[[int], None] | None = None

    def __init__(
        self,
        plan: ConvertOptions,
        inputs: list[tuple[sources.Input, str | None]],
        images: Path | None,
        out: Path,
    ) -> None:
        self.plan, self.inputs, self.images, self.folder = plan, inputs, images, output_folder.Folder(out)
        self.format: ModuleType = plugins.load(reader.FAMILY, plan.format)
        self.options = bind(plan.options, self.format.Options, f"format {plan.format}")
        self.export: ModuleType = plugins.load(EXPORTS, plan.to)
        name, variant = plan.schema_name or self.format.SCHEMA, plan.variant
        if variant is None and plan.schema_name in (None, self.format.SCHEMA):
            variant = getattr(self.format, "VARIANT", None)
        self.schema = schemas.load(name, variant) if name else None
        self.side = split.HashSplit(plan.seed, plan.validation, plan.test)
        self.conditions = [selection.condition(text) for text in plan.where]
        reader.demand_folder(images)
        for given, _ in inputs:
            if isinstance(given, str | Path) and not sources.exists(given):
                raise ConfigError(f"{given}: no such file, folder or pattern with a match")

    def parts(self) -> list[tuple[sources.Part, str | None]]:
        """The parts of all inputs; archives are unpacked beside the output's other media."""
        store, config, side = (
            self.folder.partial / output_folder.MEDIA,
            self.plan.hub_config,
            self.plan.hub_split,
        )
        return [
            (part, fixed)
            for given, fixed in self.inputs
            for part in sources.parts(given, store=store, config=config, split=side)
        ]

    def convert(self, allowed: Callable[[int], float], overwrite: bool) -> Summary:
        """Do the work, or find that it is done."""
        head = self._head()
        old = None if overwrite else self._earlier(head)
        if old is not None and self._settled(old):
            return self._summary(old, allowed, fresh=False)
        with self.folder.alone():
            old = None if overwrite else self._earlier(head)  # another run may have finished meanwhile
            if old is None:
                self._refuse_strangers(overwrite)
            self.folder.start()
            try:
                manifest = head | ConversionRun(self).run()
                if old is None:
                    self.folder.finish(manifest)
                elif old != manifest:
                    raise self._other(old, manifest)
            finally:
                self.folder.discard()
        return self._summary(manifest, allowed, fresh=old is None)

    def _earlier(self, head: dict[str, Any]) -> dict[str, Any] | None:
        """The manifest of this very conversion, finished before. Raises `ConfigError` for that of another."""
        old = self.folder.manifest()
        if old is not None and any(old.get(key) != value for key, value in head.items()):
            raise self._other(old, head)
        return old

    def _refuse_strangers(self, overwrite: bool) -> None:
        """Raises `ConfigError` where a file to be written is an input, or is there without a manifest."""
        names = [f"{name}.jsonl" for name in (*split.SPLITS, "quarantine", "duplicates")]
        found = [path for name in names if (path := self.folder.final / name).exists()]
        given = [Path(each).resolve() for each, _ in self.inputs if isinstance(each, str | Path)]
        if read := [path for path in found if path.resolve() in given]:
            raise ConfigError(f"{read[0]}: is an input and would be written over; give another --out")
        killed = self.folder.partial.exists() or self.folder.manifest_exists()
        if found and not killed and not overwrite:
            reason = "not written by a conversion"
            raise ConfigError(f"{found[0]}: {reason}; give another --out or use --overwrite")

    def _settled(self, old: dict[str, Any]) -> bool:
        """Whether inputs and configuration alone say that nothing changed: pictures and memory have to be
        looked at."""
        seen = all("sha256" in entry for entry in old["inputs"])
        return seen and not old["images"] and not any(code.startswith("IMG") for code in old["codes"])

    def _head(self) -> dict[str, Any]:
        """What makes this conversion the same as another: configuration and inputs."""
        default = ConvertOptions(format="").model_dump()
        config = {
            key: value
            for key, value in self.plan.model_dump().items()
            if value is not None and (value != default[key] or key in ("seed", "to", "validation", "test"))
        }
        config["options"] = self.options.model_dump()
        found = [
            entry | ({"split": side} if side else {})
            for given, side in self.inputs
            for entry in self._facts(given)
        ]
        return {"manifest": 1, "config": config, "inputs": found}

    def _facts(self, given: sources.Input) -> list[dict[str, Any]]:
        if not isinstance(given, str | Path):
            return [{"path": "memory"}]
        if Path(given).is_file():
            return [output_folder.file_facts(Path(given), Path(given).name)]
        parts = sources.parts(given, config=self.plan.hub_config, split=self.plan.hub_split)
        return [output_folder.file_facts(part.path, part.name) for part in parts if part.path is not None]

    def _other(self, old: dict[str, Any], new: dict[str, Any]) -> ConfigError:
        keys = ("config", "inputs", "images", "rows", "outputs")
        changed = " and ".join(key for key in keys if key in new and old.get(key) != new[key])
        what = f"{self.folder.final}: holds another conversion ({changed or 'version'} differ)"
        return ConfigError(f"{what}; give another --out or use --overwrite")

    def _summary(self, manifest: dict[str, Any], allowed: Callable[[int], float], fresh: bool) -> Summary:
        rows = manifest["rows"]
        written = {
            Path(entry["path"]).stem: entry["rows"] for entry in manifest["outputs"] if "rows" in entry
        }
        splits = {name: written[name] for name in split.SPLITS if name in written}
        too_many = rows["quarantined"] > allowed(rows["in"])
        return Summary(
            self.folder.final, rows, splits, manifest["codes"], manifest["warnings"], too_many, fresh
        )

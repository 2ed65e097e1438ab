"""A conversion before it runs: all names are resolved and checked, nothing is open."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from dfkdata import schemas, sources
from dfkdata.common import plugins
from dfkdata.common.config import Config, bind
from dfkdata.common.errors import ConfigError
from dfkdata.conversion import detection, output_folder, reader, selection
from dfkdata.conversion.label_map import read_labels, with_labels
from dfkdata.conversion.options import ConvertOptions
from dfkdata.conversion.splits import HashSplit

EXPORTS = "dfkdata.exports"


@dataclass(frozen=True)
class ConversionJob:
    """Hold what a run needs to know.

    Attributes:
        options: The options; shares are 0 if files of their own hold the other splits.
        inputs: (input, split that it fixes or None).
        folder: The output folder.
        format: Module of the raw format.
        detected: Why the format was taken; empty if the user named it.
        format_options: Its own options.
        export: Module of the training layout.
        schema: The output schema; None if the rows carry their own turns.
        splitter: The split by hash.
        conditions: What a raw row has to fulfil to take part.
        own_splits: Splits that the input itself names, by our names.
    """

    options: ConvertOptions
    inputs: tuple[tuple[sources.Input, str | None], ...]
    folder: output_folder.Folder
    format: ModuleType
    detected: str
    format_options: Config
    export: ModuleType
    schema: schemas.Schema | None
    splitter: HashSplit
    conditions: tuple[selection.Condition, ...]
    own_splits: frozenset[str] = frozenset()

    @property
    def fixed_splits(self) -> set[str]:
        """Splits that come from files of their own, or that the input names."""
        return {split for _, split in self.inputs if split is not None} | self.own_splits

    @property
    def named_columns(self) -> set[str]:
        """Columns that options name, whether or not the format reads them."""
        options = self.options
        paths = [
            options.split_column,
            options.group_by,
            options.stratify,
            *(one.path for one in self.conditions),
        ]
        return {path.partition(".")[0] for path in paths if path}

    def with_own_splits(self, parts: Iterable[sources.Part]) -> ConversionJob:
        """Return this job with the splits that parts of the input name, in place of shares.

        Raises:
            ConfigError: An option fixes the split, too.
        """
        own = frozenset(part.split for part in parts if part.split is not None)
        if not own:
            return self
        options = self.options
        also = {
            "--split-column": options.split_column,
            "--validation-file and --test-file": options.has_split_files,
            "--split sita": options.split == "sita",
            "--stratify": options.stratify,
        }
        if both := [name for name, given in also.items() if given]:
            named = ", ".join(sorted(own))
            raise ConfigError(
                f"the input has splits of its own ({named}) and {both[0]} fixes them, too; leave it out"
            )
        options = options.model_copy(update={"validation": 0.0, "test": 0.0})
        return replace(self, options=options, splitter=HashSplit(options.seed, 0.0, 0.0), own_splits=own)

    def parts(self) -> list[tuple[sources.Part, str | None]]:
        """Return the parts of all inputs, each with the split that its input fixes.

        Archives are unpacked into the output's media folder."""
        store = self.folder.partial / output_folder.MEDIA
        config, hub_split = self.options.hub_config, self.options.hub_split
        tables = _tables(self.options)
        with detection.advising((source for source, _ in self.inputs), self.options.format):
            return [
                (part, split or part.split)
                for source, split in self.inputs
                for part in sources.parts(
                    source,
                    store=store,
                    config=config,
                    split=hub_split,
                    tables=tables,
                    files=reader.files_of(self.format),
                )
            ]


def resolve(input: sources.Input, out: str | Path, options: ConvertOptions) -> ConversionJob:
    """Return the job of a conversion.

    Raises:
        ConfigError: A format, layout, schema or option is unknown, or an input does not exist.
    """
    if options.has_split_files:
        options = options.model_copy(update={"validation": 0.0, "test": 0.0})
    if options.labels is not None:  # the manifest records what the file says
        options = options.model_copy(update={"labels": read_labels(options.labels)})
    input, options, why = _with_format(input, options)
    format = plugins.load(detection.FAMILY, options.format)
    format_options = bind(_own_options(format, options), format.Options, f"format {options.format}")
    job = ConversionJob(
        options=options,
        inputs=_inputs(input, options),
        folder=output_folder.Folder(Path(out)),
        format=format,
        detected=why,
        format_options=format_options,
        export=plugins.load(EXPORTS, options.to),
        schema=with_labels(_schema(format, options), options.labels),  # type: ignore[arg-type]  # read above
        splitter=HashSplit(options.seed, options.validation, options.test),
        conditions=tuple(selection.condition(text) for text in options.where or ()),
    )
    reader.check_folder(options.images)
    for source, _ in job.inputs:
        if isinstance(source, str | Path) and not sources.exists(source):
            raise ConfigError(f"{source}: no such file, folder or pattern with a match")
    return job


def _with_format(input: sources.Input, options: ConvertOptions) -> tuple[sources.Input, ConvertOptions, str]:
    """Return input and options with the format that `auto` finds, and why; as they are if one is named."""
    if not detection.is_auto(options.format):
        return input, options, ""
    input, found = detection.detected(
        input,
        options.format,
        tables=_tables(options),
        config=options.hub_config,
        split=options.hub_split,
    )
    return input, options.model_copy(update={"format": found.name}), found.why


def _own_options(format: ModuleType, options: ConvertOptions) -> dict[str, Any]:
    """Return the format's own options, the question among them. Raises `ConfigError` if it takes none."""
    own = dict(options.options or {})
    if options.question is None:
        return own
    if "ask" not in format.Options.model_fields:
        raise ConfigError(
            f"--question: rows of the format {options.format!r} ask their own questions; leave it out"
        )
    return own | {"ask": options.question}


def _tables(options: ConvertOptions) -> sources.TableOptions:
    return sources.TableOptions(options.encoding, options.delimiter, options.sheet, options.header_row)


def _inputs(input: sources.Input, options: ConvertOptions) -> tuple[tuple[sources.Input, str | None], ...]:
    files = ((options.validation_file, "validation"), (options.test_file, "test"))
    first = (input, "train" if options.has_split_files else None)
    return (first, *((file, split) for file, split in files if file is not None))


def _schema(format: ModuleType, options: ConvertOptions) -> schemas.Schema | None:
    name, variant = options.schema_name or format.SCHEMA, options.variant
    if variant is None and options.schema_name in (None, format.SCHEMA):
        variant = getattr(format, "VARIANT", None)
    return schemas.load(name, variant) if name else None

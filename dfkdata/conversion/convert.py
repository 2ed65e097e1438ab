"""convert(): read, check, deduplicate, split and export raw rows, one row in memory at a time.

Guarantees:
    - Rows in = rows out + quarantined + duplicates + left out by request.
    - Equal input and options give equal bytes.
    - Nothing in the output folder changes before everything is written (`dfkdata.conversion.output_folder`).
    - An exact duplicate (same turns, same tools, same picture bytes) goes to duplicates.jsonl and is no
      reject. If one copy is held out, the training copy goes, so that no test row is in the training data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import wraps
from inspect import Signature, signature
from pathlib import Path
from typing import Any, ParamSpec, Protocol

from dfkdata import sources
from dfkdata.common.config import bind
from dfkdata.common.errors import ConfigError
from dfkdata.conversion import detection, output_folder, reader, settings, shard_plan
from dfkdata.conversion import job as jobs
from dfkdata.conversion.job import ConversionJob
from dfkdata.conversion.options import ConvertOptions, Summary, reject_limit
from dfkdata.conversion.runner import ConversionRun
from dfkdata.conversion.splits import SPLITS
from dfkdata.conversion.strangers import check_strangers
from dfkdata.validation.rules import RULES

P = ParamSpec("P")


class _Convert(Protocol[P]):
    def __call__(
        self, input: sources.Input, out: str | Path, *args: P.args, **options: P.kwargs
    ) -> Summary: ...


def _takes_fields_of(
    model: Callable[P, ConvertOptions],
) -> Callable[[Callable[[sources.Input, str | Path, ConvertOptions], Summary]], _Convert[P]]:
    """Let `convert` take the fields of its options as keywords, with the model's types and defaults."""

    def decorate(function: Callable[[sources.Input, str | Path, ConvertOptions], Summary]) -> _Convert[P]:
        @wraps(function)
        def call(input: sources.Input, out: str | Path, *args: P.args, **options: P.kwargs) -> Summary:  # noqa: ARG001  # `P` takes both
            return function(input, out, bind(options, ConvertOptions, "convert"))

        input_and_out = [*signature(function).parameters.values()][:2]
        fields = signature(model).parameters.values()
        setattr(call, "__signature__", Signature([*input_and_out, *fields], return_annotation=Summary))  # noqa: B010
        return call

    return decorate


@_takes_fields_of(ConvertOptions)
def convert(input: sources.Input, out: str | Path, options: ConvertOptions) -> Summary:
    """Convert raw data into a folder of training files.

    Writes train.jsonl, validation.jsonl, test.jsonl (if rows are held out for it), quarantine.jsonl (rows
    that cannot be used, whole, each with its reason), duplicates.jsonl, warnings.jsonl (a line for each row
    that broke a rule and was written all the same) and manifest.json.

    Args:
        input: File, folder, pattern, zip or tar, hf://datasets/ORG/NAME@REV, or rows in memory; a mapping such
            as `datasets.DatasetDict` keeps its splits.
        out: Folder to write.
        options: The fields of `ConvertOptions`, as keywords: `format` is required, `to`, `schema`, `images`,
            `validation`, `test`, `rules` and the others have defaults.

    Returns:
        Counts of rows, splits, rejects and warnings.

    Raises:
        ConfigError: An option is wrong, an input does not exist, or `out` holds something else; nothing was
            written.
        DataError: A file is not of the format.

    Example:
        >>> import tempfile
        >>> from dfkdata import convert, load_rows
        >>> rows = [{"instruction": "Sapa dunia.", "output": "Halo, dunia."}, {"instruction": "Sapa!"}]
        >>> summary = convert(rows, tempfile.mkdtemp() + "/out", format="alpaca", validation=0)
        >>> summary.rows["out"], [*summary.codes]
        (1, ['EMPTY_ANSWER'])
        >>> [row["messages"][-1]["content"] for row in load_rows(summary.folder / "train.jsonl")]
        [[{'type': 'text', 'text': 'Halo, dunia.'}]]
    """
    allowed = reject_limit(options.max_rejects)
    job = jobs.resolve(input, out, options)
    if options.workers is not None:
        shard_plan.check_supported(job.options, job.inputs)
    manifest, fresh = _manifest(job)
    return _summary(job, manifest, allowed, fresh)


def _manifest(job: ConversionJob) -> tuple[dict[str, Any], bool]:
    """Do the work, or find that it is done: the manifest, and whether anything was written."""
    head, overwrite = _head(job), job.options.overwrite
    old = None if overwrite else _earlier(job, head)
    if old is not None and _is_settled(old):
        _clear(job)
        return old, False
    with job.folder.alone():
        old = None if overwrite else _earlier(job, head)  # another run may have finished meanwhile
        if old is None:
            paths = [Path(source) for source, _ in job.inputs if isinstance(source, str | Path)]
            check_strangers(job.folder, paths, overwrite=overwrite)
        is_done = False
        try:
            manifest = head | _run(job, head)
            if _is_empty(manifest["rows"], job.options):
                is_done = True
                return manifest, True
            if old is None:
                found = (
                    {"detected": {"format": job.options.format, "why": job.detected}} if job.detected else {}
                )
                job.folder.finish(manifest | found)
            elif old | _TOLD != manifest | _TOLD:
                raise _other(job, old, manifest)
            is_done = True
        finally:
            if is_done or job.options.workers is None:  # shards stay for the next run
                job.folder.discard()
    return manifest, old is None


def _clear(job: ConversionJob) -> None:
    """Remove what a run left that was killed when everything was in its place; another run may be at work here."""
    if job.folder.partial.exists():
        with suppress(ConfigError), job.folder.alone():
            job.folder.discard()


def _run(job: ConversionJob, head: dict[str, Any]) -> dict[str, Any]:
    """Convert all rows in this process, or shard by shard; return the manifest's part about rows and outputs."""
    if job.options.workers is None:
        job.folder.start()
        return ConversionRun(job).run()
    from dfkdata.conversion import shard_merge  # most conversions start no processes

    return shard_merge.run(job, head)


_TOLD: dict[str, Any] = {"detected": None, "columns_unread": None}
"""Keys of a manifest that tell and change nothing; an earlier release wrote none of them."""


def _is_empty(rows: dict[str, int], options: ConvertOptions) -> bool:
    """Return whether there is nothing to leave in a folder."""
    if rows["out"] or options.keep_empty:
        return False
    too_many = rows["quarantined"] > reject_limit(options.max_rejects)(rows["in"])
    return too_many or not rows["quarantined"] + rows["duplicates"]


def _earlier(job: ConversionJob, head: dict[str, Any]) -> dict[str, Any] | None:
    """Return the manifest of this very conversion if it was finished before.

    Raises `ConfigError` if the folder holds another conversion."""
    old = job.folder.manifest()
    if old is not None and any(old.get(key) != value for key, value in head.items()):
        raise _other(job, old, head)
    return old


def _is_settled(old: dict[str, Any]) -> bool:
    """Whether inputs and options alone show that nothing changed.

    Rows in memory and files beside the rows (pictures, videos) have to be looked at again."""
    hashed = all("sha256" in entry for entry in old["inputs"])
    media = old["images"] or any(code not in RULES or RULES[code].about == "media" for code in old["codes"])
    return hashed and not media


def _head(job: ConversionJob) -> dict[str, Any]:
    """Return what makes this conversion the same as another: options and inputs."""
    default = ConvertOptions(format="").model_dump(mode="json")
    config = {
        key: value
        for key, value in job.options.model_dump(mode="json").items()
        if value is not None and (value != default[key] or key in ("seed", "to", "validation", "test"))
    }
    config["options"] = job.format_options.model_dump(mode="json")  # as it is read back
    inputs = [
        entry | ({"split": split} if split else {})
        for source, split in job.inputs
        for entry in _input_facts(source, job)
    ]
    return {"manifest": 1, "config": config, "inputs": inputs}


def _input_facts(source: sources.Input, job: ConversionJob) -> list[dict[str, Any]]:
    if isinstance(source, Mapping) and any(isinstance(one, str | Path) for one in source.values()):
        named = [(name, entry) for name, one in source.items() for entry in _input_facts(one, job)]
        return [entry | {"split": str(name)} for name, entry in named]
    if not isinstance(source, str | Path):
        return [{"path": "memory"}]
    if Path(source).is_file():
        return [output_folder.file_facts(Path(source), Path(source).name)]
    config, split, files = job.options.hub_config, job.options.hub_split, reader.files_of(job.format)
    with detection.advising([source], job.options.format):
        parts = sources.parts(source, config=config, split=split, files=files)
    return [
        {"path": part.name} if part.path is None else output_folder.file_facts(part.path, part.name)
        for part in parts
    ]


def _other(job: ConversionJob, old: dict[str, Any], new: dict[str, Any]) -> ConfigError:
    keys = ("config", "inputs", "images", "rows", "outputs")
    changed = [key for key in keys if key in new and old.get(key) != new[key]]
    named = " and ".join(changed) or "version"
    differing = settings.differences(old.get("config"), new["config"])
    facts = [
        f"{name} was {settings.shown(before)}, is {settings.shown(now)}" for name, before, now in differing
    ]
    facts += _files(old.get("inputs"), new["inputs"]) if "inputs" in changed else []
    what = f"{job.folder.final}: holds another conversion ({named} differ{': ' if facts else ''}{'; '.join(facts)})"
    return ConfigError(f"{what}; give another --out or use --overwrite")


def _files(old: Any, new: list[dict[str, Any]]) -> list[str]:
    """Return a clause for each input that differs."""
    before = {entry.get("path"): entry for entry in old} if isinstance(old, list) else {}
    now = {entry.get("path"): entry for entry in new}
    changed = [f"{path} has another content" for path in now if path in before and before[path] != now[path]]
    added = [f"{path} is new" for path in now if path not in before]
    return [*changed, *added, *(f"{path} is not among them any more" for path in before if path not in now)][
        :5
    ]


def _summary(
    job: ConversionJob, manifest: dict[str, Any], allowed: Callable[[int], float], fresh: bool
) -> Summary:
    rows = manifest["rows"]
    written = {Path(entry["path"]).stem: entry["rows"] for entry in manifest["outputs"] if "rows" in entry}
    return Summary(
        folder=job.folder.final,
        rows=rows,
        splits={name: written[name] for name in SPLITS if name in written},
        codes=manifest["codes"],
        warnings=manifest["warnings"],
        too_many=rows["quarantined"] > allowed(rows["in"]),
        fresh=fresh,
        detected=f"{job.options.format}: {job.detected}" if job.detected else "",
        unread=tuple(manifest.get("columns_unread", ())),
    )

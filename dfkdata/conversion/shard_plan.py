"""Divide the input of a conversion into shards, and remember how, so that a killed run goes on.

How it works: unpacked CSV and JSONL files are cut between rows, other files are one shard each. The plan is
written before the first shard begins, with a fingerprint of everything that decides what a shard holds: options,
the hash of every input, and the release. A run that finds the plan of the same conversion takes its shards over.

Guarantee: the output depends neither on the plan nor on who did which shard, or when."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from dfkdata import sources
from dfkdata.common import limits, media_roots
from dfkdata.common.errors import ConfigError
from dfkdata.common.json_files import write_bytes
from dfkdata.conversion import output_folder
from dfkdata.conversion.job import ConversionJob
from dfkdata.conversion.options import ConvertOptions
from dfkdata.conversion.shard_files import Shard

LEAST, MOST, SHARDS = 1 << 15, 1 << 25, 64
"""Bytes of input that a shard has at least and at most, if there is enough, and how many shards there are between."""
_PLAN = "plan.json"

Parts = Sequence[tuple[sources.Part, str | None]]


class Piece(msgspec.Struct):
    """The input of one shard.

    Attributes:
        part: Place of its part among the parts of the job.
        span: The rows of the part that it has; None for all.
        rows: How many rows it has at most; None if nobody counted.
    """

    part: int
    span: sources.Span | None = None
    rows: int | None = None


class Plan(msgspec.Struct):
    """All pieces of a conversion, in the order of their rows, and what they are pieces of."""

    fingerprint: str
    pieces: list[Piece]


class Shards:
    """The shards of one conversion, in a folder inside its partial one.

    Attributes:
        plan: What each of them is to hold.
    """

    def __init__(self, folder: Path, plan: Plan) -> None:
        self._folder, self.plan = folder, plan

    def folder(self, number: int) -> Path:
        """Return the folder of a shard."""
        return self._folder / f"{number:06d}"

    def done(self, number: int) -> bool:
        """Return whether a shard is whole."""
        return Shard.found(self.folder(number)) is not None

    def name(self, number: int, parts: Parts) -> str:
        """Return what a shard is called in messages, such as "shard 3/64 (posts.csv from line 1025)"."""
        piece = self.plan.pieces[number]
        begins = f" from line {piece.span.line + 1}" if piece.span is not None else ""
        return f"shard {number + 1}/{len(self.plan.pieces)} ({parts[piece.part][0].name}{begins})"


def prepare(job: ConversionJob, parts: Parts, head: dict[str, Any]) -> Shards:
    """Return the shards of a conversion: those of a run that was stopped, or a new plan.

    Args:
        job: The conversion.
        parts: Its parts.
        head: Its options and inputs, as the manifest names them.

    Raises:
        DataError: A file cannot be read.
    """
    folder, fingerprint = job.folder.partial / output_folder.SHARDS, _fingerprint(job, head)
    try:
        plan = msgspec.json.decode((folder / _PLAN).read_bytes(), type=Plan)
    except (OSError, msgspec.MsgspecError):
        plan = None
    if plan is None or plan.fingerprint != fingerprint:
        job.folder.start()
        plan = Plan(fingerprint, [*_pieces(job, parts)])
        write_bytes(folder / _PLAN, msgspec.json.encode(plan))
    job.folder.resume()
    return Shards(folder, plan)


def _pieces(job: ConversionJob, parts: Parts) -> Iterator[Piece]:
    paths = [part.path for part, _ in parts if part.path is not None]
    size = min(MOST, max(LEAST, sum(path.stat().st_size for path in paths) // SHARDS))
    divides = not hasattr(job.format, "expand")
    for number, (part, _) in enumerate(parts):
        spans = [*sources.spans(part, job.format.COLUMNS, size)] if divides else []
        if len(spans) > 1:
            yield from (Piece(number, span, rows) for span, rows in spans)
        else:
            yield Piece(number, None, spans[0][1] if spans else None)


def _fingerprint(job: ConversionJob, head: dict[str, Any]) -> str:
    """Return a hash over everything that decides what a shard holds."""
    images = str(Path(job.options.images).resolve()) if job.options.images is not None else None
    facts = (head, version("dfk"), limits.current(), media_roots.allowed(), images)
    return sha256(msgspec.json.encode(facts)).hexdigest()


def check_supported(options: ConvertOptions, inputs: Sequence[tuple[sources.Input, str | None]]) -> None:
    """Refuse what needs all rows in one process.

    Raises:
        ConfigError: An option or an input cannot be divided; the message names it.
    """
    asked = {
        "--sample": options.sample,
        "--limit": options.limit is not None,
        "--stratify": options.stratify is not None,
        "--split sita": options.split == "sita",
        "--deep": options.deep,
        "--rule TWO_LABELS=quarantine": (options.rules or {}).get("TWO_LABELS") == "quarantine",
    }
    for name, given in asked.items():
        if given:
            raise ConfigError(f"{name} looks at all rows in one process; leave out --workers or {name}")
    for source, _ in inputs:
        if not isinstance(source, str | Path):
            raise ConfigError("--workers reads files, and these rows are in memory; leave it out")
        if str(source).startswith(sources.HUB) or Path(source).name.lower().endswith(sources.ARCHIVES):
            raise ConfigError(
                f"{source}: --workers reads files and folders; download or unpack it first, or leave out --workers"
            )


def check_parts(parts: Parts) -> None:
    """Raise `ConfigError` if a part is a folder of pictures or a tar of samples, which are not divided yet."""
    for part, _ in parts:
        if part.reads is not None:
            raise ConfigError(
                f"{part.name}: --workers reads files of rows, and this is none; leave out --workers"
            )

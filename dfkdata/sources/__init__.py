"""Read raw rows from files (packed or not, one or many), the Hub, or memory.

How it works. `parts` turns what the user named into parts, each with its own name, and `rows` reads one part.
The end of a file's name says its kind. Every raw row comes out as a dict with its "file:line", and every
piece that is not a row as a `Reject`.

Guarantees:
- Parts and rows come in a fixed order, with one row in memory at a time.
- Strings stay strings ("001", "NA").
- Nothing is skipped but blank lines."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from dfkdata.common.errors import ConfigError, DataError
from dfkdata.common.hashing import file_sha256
from dfkdata.rows.record import Reject, Row
from dfkdata.sources import _archive, _arrow, _csv, _json, _pictures, _samples
from dfkdata.sources._dialect import Columns, TableOptions, check_delimiter, check_encoding
from dfkdata.sources._files import open_section, open_unpacked, parquet_rows, seekable
from dfkdata.sources._folders import data_files
from dfkdata.sources._part import Part, Span, is_litter
from dfkdata.sources._rejects import SourcedRow, unencodable, writable
from dfkdata.sources._splits import by_name, hub_splits, own_names, own_splits

HUB = "hf://datasets/"
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")

__all__ = [
    "Input",
    "Part",
    "Reject",
    "Row",
    "SourcedRow",
    "Span",
    "TableOptions",
    "exists",
    "names",
    "parts",
    "rows",
    "spans",
    "unencodable",
    "writable",
]

TABLES = (".csv", ".tsv")
KINDS = (*TABLES, ".json", ".jsonl", ".ndjson", ".parquet", ".arrow")
PACKED = ("", ".gz", ".zst")
SHEETS = (".xlsx", ".xlsm")
SUFFIXES = (*(kind + packed for kind in KINDS for packed in PACKED), *SHEETS)

Input = str | Path | Iterable[Any]
"""A file, a folder, a pattern, hf://datasets/ORG/NAME@REV, rows in memory, or a mapping: split -> one of these."""


def parts(
    input: Input,
    *,
    store: Path | None = None,
    config: str | None = None,
    split: str | None = None,
    tables: TableOptions | None = None,
    data_only: bool = False,
    files: Sequence[str] = ("rows",),
) -> list[Part]:
    """Return the parts of an input, with files sorted by name.

    Args:
        input: A file, a folder (of files, or as `save_to_disk` of `datasets` writes it), a pattern,
            hf://datasets/ORG/NAME@REV, rows in memory, or a mapping: split -> rows in memory.
        store: The folder into which archives are unpacked; None refuses archives.
        config: The configuration of a data set on the Hub.
        split: Its split.
        tables: How tables are written; None recognises it.
        data_only: Whether archives are unpacked without their pictures.
        files: How rows lie in files, as formats say it (`dfkdata.formats`): the first of these that fits.

    Raises:
        ConfigError: If there is no data file, or none that `tables` could be about, or a split has no known name.
        DataError: If an archive is broken, or the Hub does not answer.
    """
    unpacks = SUFFIXES if data_only else ("",)
    found = _arranged(input, store, files)
    if found is None:
        found = _parts(input, store, config, split, unpacks)
        found = by_name(found, _shown(input)) if "splits" in files else found
    if tables is None or tables == TableOptions():
        return found
    check_delimiter(tables.delimiter or ",")
    check_encoding(tables.encoding or "utf-8")
    kinds = {_kind(part) for part in found}
    if (tables.delimiter or tables.encoding) and not kinds.intersection(TABLES):
        raise ConfigError(
            f"{_shown(input)}: --delimiter and --encoding are about CSV files, and this is none"
        )
    if tables.header_row is not None and not kinds.intersection((*TABLES, *SHEETS)):
        raise ConfigError(f"{_shown(input)}: --header-row is about CSV and .xlsx files, and this is none")
    if tables.sheet is not None and not kinds.intersection(SHEETS):
        raise ConfigError(f"{_shown(input)}: --sheet is about .xlsx files, and this is none")
    return [replace(part, tables=tables) for part in found]


def _arranged(input: Input, store: Path | None, files: Sequence[str]) -> list[Part] | None:
    """Return the parts of pictures or samples; None if the input is neither, or the format does not read them."""
    if not isinstance(input, str | Path) or str(input).startswith(HUB):
        return None
    path, name = Path(input), Path(input).name.lower()
    if "samples" in files:
        if name.endswith(_samples.TARS) and path.is_file():
            tars, base = [path], path.parent
        elif path.is_dir():
            tars, base = [one for one in path.rglob("*") if one.name.lower().endswith(_samples.TARS)], path
        else:
            base, tars = _matches(path)
        tars = [one for one in sorted(tars) if one.name.lower().endswith(_samples.TARS)]
        return own_names(_samples.parts(tars, base), str(input)) if tars else None
    if "pictures" not in files:
        return None
    if path.is_file() and name in _pictures.METADATA:
        return _pictures.parts(path.parent, rows, path)
    if path.is_file() and name.endswith(ARCHIVES):
        folder, fetched = _unpack(path, store, ("",)), True
    elif path.is_dir() and not _arrow.is_saved(path) and _arrow.saved_splits(path) is None:
        folder, fetched = path, False
    else:
        return None
    if "splits" in files and any(
        file.name not in _pictures.METADATA for file in data_files(folder, SUFFIXES)
    ):
        return by_name([replace(part, fetched=fetched) for part in _folder(folder, folder)], str(input))
    found = [replace(part, fetched=fetched) for part in _pictures.parts(folder, rows)]
    return own_names(found, str(input))


def _shown(input: Input) -> str:
    return str(input) if isinstance(input, str | Path) else "rows in memory"


def _parts(
    input: Input, store: Path | None, config: str | None, split: str | None, unpacks: tuple[str, ...]
) -> list[Part]:
    if isinstance(input, Mapping):
        return _of_mapping(input, store, config, split, unpacks)
    if not isinstance(input, str | Path):
        _check_rows(input, "input")
        return [Part("memory", Path.cwd(), memory=input)]
    if str(input).startswith(HUB):
        from dfkdata.sources import _hub

        folder, files = _hub.fetch(str(input), config, split, SUFFIXES)
        splits = hub_splits(files.values(), str(input)) if split is None else {}
        return [
            Part(file.relative_to(folder).as_posix(), folder, file, split=splits.get(own), fetched=True)
            for file, own in files.items()
        ]
    path = Path(input)
    if path.is_dir():
        return _saved(path) or _folder(path, path)
    if path.is_file():
        if path.name.lower().endswith(ARCHIVES):
            return _unpacked(path, store, unpacks)
        return [Part(path.name, path.parent, path)]
    if any(sign in str(input) for sign in "*?["):
        base, matches = _matches(path)
        if matches:
            return [Part(file.relative_to(base).as_posix(), base, file) for file in matches]
    raise ConfigError(f"{input}: no such file or folder, and no file matches it as a pattern")


def _matches(path: Path) -> tuple[Path, list[Path]]:
    """Return the folder above the first wildcard of a pattern, and the files that match, sorted."""
    if not any(sign in str(path) for sign in "*?["):
        return path.parent, []
    base, pattern = _pattern(path)
    return base, sorted(file for file in base.glob(pattern) if file.is_file())


def names(input: Input, limit: int) -> list[str]:
    """Return names of files in a folder, archive or pattern; names in archives follow the archive's.

    Of each folder's pictures only some are named, so that a large one does not hide the others.

    Args:
        input: As for `parts`.
        limit: How many names.

    Raises:
        DataError: An archive is broken.
    """
    if not isinstance(input, str | Path) or str(input).startswith(HUB):
        return []
    path = Path(input)
    if path.is_dir():
        files = [path / name for name in islice(_walked(path), limit)]
    else:
        files = [path] if path.is_file() else _matches(path)[1][:limit]
    found = [file.relative_to(path).as_posix() if path.is_dir() else file.name for file in files]
    packed = next((file for file in files if file.name.lower().endswith(ARCHIVES)), None)
    inside = _archive.names(packed, limit) if packed is not None else []
    return found + [f"{packed.name}/{name}" for name in inside if packed is not None]


def _walked(folder: Path) -> Iterator[str]:
    """Yield the names of files below a folder in a fixed order, of each folder's pictures the first few."""
    for place, folders, files in os.walk(folder):
        folders.sort()
        pictures = [name for name in sorted(files) if name.lower().endswith(_pictures.PICTURES)]
        others = sorted({*files}.difference(pictures))
        for name in (*others, *pictures[:_FEW]):
            yield (Path(place) / name).relative_to(folder).as_posix()


_FEW = 20


def _of_mapping(
    input: Mapping[Any, Any],
    store: Path | None,
    config: str | None,
    split: str | None,
    unpacks: tuple[str, ...],
) -> list[Part]:
    """Return the parts of a mapping: split -> rows in memory, or a path of any kind."""
    if not input:
        raise ConfigError("the data set has no splits; give rows, or {split: rows}")
    splits = own_splits((str(name) for name in input), "the data set")
    parts: list[Part] = []
    for name, rows in input.items():
        if isinstance(rows, str | Path):
            found = _parts(rows, store, config, split, unpacks)
            parts += [replace(part, name=f"{name}/{part.name}", split=splits[str(name)]) for part in found]
        else:
            _check_rows(rows, f"the split {name!r}")
            parts.append(Part(str(name), Path.cwd(), memory=rows, split=splits[str(name)]))
    return parts


def _check_rows(rows: object, what: str) -> None:
    if not isinstance(rows, Iterable) or isinstance(rows, bytes):
        raise ConfigError(f"{what} is {type(rows).__name__}, neither a path nor rows; give a list of dicts")


def _saved(folder: Path) -> list[Part]:
    """Return the parts of a folder that `save_to_disk` of the `datasets` library wrote; none for others."""
    places = _arrow.saved_splits(folder)
    if places is None:
        files = _arrow.saved_files(folder) if _arrow.is_saved(folder) else []
        return [Part(file.name, folder, file) for file in files]
    splits = own_splits(places, str(folder))
    return [
        Part(f"{name}/{file.name}", folder, file, split=splits[name])
        for name, place in places.items()
        for file in _arrow.saved_files(place)
    ]


def exists(input: str | Path) -> bool:
    """Return whether a path, folder or pattern leads to something; an address on the Hub is not looked up."""
    path = Path(input)
    if str(input).startswith(HUB) or path.exists():
        return True
    if not any(sign in str(input) for sign in "*?["):
        return False
    base, pattern = _pattern(path)
    return any(True for _ in base.glob(pattern))


def _pattern(path: Path) -> tuple[Path, str]:
    """Return the folder above the first wildcard, and the pattern below it."""
    steps = path.parts
    first = next(at for at, step in enumerate(steps) if any(sign in step for sign in "*?["))
    return Path(*steps[:first]) if first else Path(), str(Path(*steps[first:]))


def _folder(folder: Path, root: Path) -> list[Part]:
    """Return the data files at and below a folder, less what a conversion set aside and finished conversions
    that lie below."""
    data = data_files(folder, SUFFIXES)
    if not data:
        raise ConfigError(
            f"{folder}: no data file in this folder; data files end in {', '.join((*KINDS, *SHEETS))}"
        )
    return [Part(file.relative_to(root).as_posix(), root, file) for file in data]


def _unpacked(path: Path, store: Path | None, only: tuple[str, ...]) -> list[Part]:
    target = _unpack(path, store, only)
    entries = [entry for entry in target.iterdir() if not is_litter(entry.name)]
    inner = tuple(entries) if len(entries) == 1 and entries[0].is_dir() else ()
    return [replace(part, fetched=True, also=inner) for part in _folder(target, target)]


def _unpack(path: Path, store: Path | None, only: tuple[str, ...]) -> Path:
    """Return the folder below `store` into which an archive is unpacked."""
    if store is None:
        raise ConfigError(
            f"{path}: an archive needs a folder to be unpacked into; give store=, or convert it"
        )
    content = file_sha256(path)[:8]  # another archive of that name must not be unpacked into the same folder
    target = store / f"{path.name.split('.')[0]}-{content}"
    _archive.extract(path, target, only)
    return target


def rows(part: Part, columns: Columns = ()) -> Iterator[SourcedRow]:
    """Yield the raw rows of a part, or why they are none, each with its "file:line".

    Args:
        part: The part; `part.facts` says afterwards how a CSV file was read.
        columns: Headers of the format, by which the delimiter of a CSV file is recognised.

    Raises:
        DataError: If the part cannot be read at all.
    """
    if part.reads is not None:
        return part.reads(part)
    if part.path is None:
        return _arrow.memory_rows(part.memory, part.name)
    kind = _kind(part)
    if kind is None:
        raise DataError(
            f"{part.path}: this kind of file cannot be read; data files end in {', '.join((*KINDS, *SHEETS))}"
        )
    return _read(part, part.path, kind, columns)


def _kind(part: Part) -> str | None:
    """Return the kind that the end of a file's name says."""
    name = part.path.name.lower() if part.path is not None else ""
    packed = next((kind for kind in KINDS for packed in PACKED if name.endswith(kind + packed)), None)
    return packed or next((kind for kind in SHEETS if name.endswith(kind)), None)


def _read(part: Part, path: Path, kind: str, columns: Columns) -> Iterator[SourcedRow]:
    if kind in (".parquet", ".arrow"):
        yield from (parquet_rows if kind == ".parquet" else _arrow.arrow_rows)(path, part.name)
        return
    if kind in SHEETS:
        from dfkdata.sources import _xlsx

        yield from _xlsx.rows(path, part.name, part.tables, columns, part.facts)
        return
    try:
        if part.span is not None:
            with open_section(path, part.span.start, part.span.stop) as section:
                if kind in TABLES:
                    yield from _csv.span_rows(section, part.name, part.span, part.facts)
                else:
                    yield from _json.lines(section, part.name, part.span.line)
            return
        if kind in TABLES:
            tables = _written(part, kind)
            yield from _csv.rows(lambda: open_unpacked(path), part.name, tables, columns, part.facts)
            return
        with open_unpacked(path) as file:
            if kind == ".json":
                with seekable(file) as again:
                    yield from _json.document(again, part.name)
            else:
                yield from _json.lines(file, part.name)
    except (OSError, zlib.error, EOFError) as error:  # gzip and zstd say OSError for a broken file
        raise DataError(
            f"{path}: the file is broken or cannot be read to its end ({error}); fetch it again"
        ) from error


def _written(part: Part, kind: str) -> TableOptions:
    """Return how a table is written, as far as the user or the end of its name says it."""
    tabs = kind == ".tsv" and part.tables.delimiter is None
    return replace(part.tables, delimiter="tab") if tabs else part.tables


def spans(part: Part, columns: Columns, size: int) -> Iterator[tuple[Span, int]]:
    """Yield spans that together are a part, each of about `size` bytes and with how many rows it has at most.

    Only unpacked CSV and JSONL files are divided; every other part yields nothing.

    Raises:
        DataError: As `rows`.
    """
    kind, path = _kind(part), part.path
    if path is None or kind is None or part.reads is not None or not path.name.lower().endswith(kind):
        return
    if kind in TABLES:
        tables = _written(part, kind)
        yield from _csv.spans(lambda: open_unpacked(path), part.name, tables, columns, size)
    elif kind in (".jsonl", ".ndjson"):
        with open_unpacked(path) as file:
            yield from _json.line_spans(file, size)

"""Read finished conversions back: the files of each split, their layout, and each row as a record.

A folder need not have a manifest: then its files go by their names (train.jsonl, validation.jsonl.gz, test.parquet)
and the first rows show the layout. A layout that keeps no ids (`NAMELESS`) is read all the same."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from dfkdata import sources
from dfkdata.common import manifest as manifests
from dfkdata.common import plugins
from dfkdata.common.errors import ConfigError, DataError
from dfkdata.common.files import open_regular
from dfkdata.conversion.detection import FAMILY
from dfkdata.conversion.job import EXPORTS
from dfkdata.conversion.output_folder import PARTIAL
from dfkdata.conversion.splits import SPLITS
from dfkdata.formats import likeness
from dfkdata.rows.record import Record, Reject, RowError

WHOLE = "rows"
"""In the place of a split where rows are compared whatever split they are in."""

ENDINGS = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")
NAMED = ("messages", "prompt_completion")
"""Layouts whose rows have ids and facts of their own; the others keep neither."""

_LOOKED = 32
_PACKED = 8  # about how many times its size a packed file unpacks to


class ListedFile(msgspec.Struct):
    """A file that a manifest lists."""

    path: str
    sha256: str
    rows: int | None = None


class WrittenManifest(msgspec.Struct):
    """The part of a manifest by which folders are compared and merged."""

    config: dict[str, Any]
    outputs: list[ListedFile]
    labels: dict[str, dict[str, dict[str, int]]] = {}


@dataclass(frozen=True)
class RowFolder:
    """A folder of rows, or one file of them.

    Attributes:
        path: As the user named it.
        files: Split -> its file.
        layout: Name of the training layout.
        manifest: What its manifest says; None if no conversion wrote one.
        note: What is wrong with its manifest; empty if nothing is.
    """

    path: Path
    files: dict[str, Path]
    layout: str
    manifest: WrittenManifest | None = None
    note: str = ""

    @property
    def is_named(self) -> bool:
        """Whether its rows have ids."""
        return self.layout in NAMED

    @property
    def size(self) -> int:
        """Bytes of its files, about as they are unpacked."""
        sizes = {file: file.stat().st_size for file in self.files.values()}
        return sum(size * (1 if file.suffix == ".jsonl" else _PACKED) for file, size in sizes.items())

    def rows(self, split: str) -> Iterator[tuple[int, dict[str, Any], Record]]:
        """Yield (line, row as written, record) of each row of a split; lines count from 1, blank ones too.

        Raises:
            DataError: A line is not a row of the layout, or has no id where the layout keeps ids.
        """
        file, record = self.files[split], record_reader(self.layout)
        for line, row in _lines(file):
            yield line, row, record(row, f"{file}:{line}")

    def records_at(self, split: str, lines: Collection[int]) -> dict[int, Record]:
        """Return line -> record of some rows of a split. Raises `DataError`, as `rows`."""
        file, record = self.files[split], record_reader(self.layout)
        last, found = max(lines, default=0), dict[int, Record]()
        for line, row in _lines(file) if lines else ():
            if line in lines:
                found[line] = record(row, f"{file}:{line}")
            if line >= last:
                break
        return found


def record_reader(layout: str) -> Callable[[dict[str, Any], str], Record]:
    """Return a function: a row of a layout, its "file:line" -> its record.

    It raises `DataError` for a row that is not of the layout, or has no id where the layout keeps ids."""
    module, named = plugins.load(FAMILY, layout), layout in NAMED
    options = module.Options()

    def read(row: dict[str, Any], place: str) -> Record:
        try:
            record: Record = module.record(row, place, options)
        except RowError as error:
            raise DataError(f"{place}: not a row of the layout {layout!r}: {error.reason}") from error
        if named and not record.id:
            raise DataError(f"{place}: the row has no id; give each row one of its own, or convert it again")
        return record

    return read


def opened(path: str | Path) -> RowFolder:
    """Return the rows of a folder that a conversion wrote, or of a file of rows.

    Raises:
        ConfigError: There is no such path, it holds no file of rows, or their layout is not known.
        DataError: A file cannot be read, or a file that the manifest lists is gone.
    """
    path = Path(path)
    if path.is_file():
        return RowFolder(path, {WHOLE: path}, _seen_layout([path]))
    if not path.is_dir():
        raise ConfigError(f"{path}: no such folder or file; name a folder that dfkdata convert wrote")
    manifest, note = _manifest(path)
    files = _files(path, {output.path for output in manifest.outputs} if manifest is not None else set())
    if manifest is not None:
        _check_listed(path, manifest, files)
        layout = known_layout(manifest.config.get("to"), path)
        return RowFolder(path, files, layout, manifest, note)
    if (path / PARTIAL).is_dir():
        raise ConfigError(f"{path}: a conversion was stopped here; run it again")
    return RowFolder(path, files, _seen_layout([*files.values()]), None, note)


def _manifest(folder: Path) -> tuple[WrittenManifest | None, str]:
    """Return the manifest of a folder, and what is wrong with the file of that name."""
    path = folder / manifests.MANIFEST
    try:
        with open_regular(path) as file:  # a pipe would never end
            return msgspec.json.decode(file.read(), type=WrittenManifest), ""
    except FileNotFoundError:
        return None, f"{folder} has no manifest, so its settings are not known"
    except (OSError, msgspec.MsgspecError, ValueError, RecursionError):
        return None, f"{path} is not a manifest of dfkdata, so the settings are not known"


def _files(folder: Path, listed: Collection[str]) -> dict[str, Path]:
    """Return the file of each split; those that the manifest lists go before others."""
    files: dict[str, Path] = {}
    for split in SPLITS:
        found = [path for ending in ENDINGS if (path := folder / f"{split}{ending}").is_file()]
        found = [path for path in found if path.name in listed] or found
        if len(found) > 1:
            raise ConfigError(
                f"{folder}: {found[0].name} and {found[1].name} are both its {split}; remove one"
            )
        if found:
            files[split] = found[0]
    if not files:
        names = ", ".join(f"{split}.jsonl" for split in SPLITS)
        raise ConfigError(f"{folder}: it holds none of {names}; name a folder that dfkdata convert wrote")
    return files


def _check_listed(folder: Path, manifest: WrittenManifest, files: dict[str, Path]) -> None:
    """Raise `DataError` if a file of rows that the manifest lists is gone."""
    for output in manifest.outputs:
        split = output.path.partition(".")[0]
        if split in SPLITS and split not in files:
            raise DataError(f"{folder}: its manifest lists {output.path!r}, which is gone; convert again")


def known_layout(name: Any, folder: Path) -> str:
    """Return a layout whose rows can be read back. Raises `ConfigError` for another name."""
    known = [one for one in plugins.names(EXPORTS) if one in plugins.names(FAMILY)]
    if name not in known:
        raise ConfigError(
            f"{folder}: its layout is {name!r:.80}, and the rows of {', '.join(known)} can be read back"
        )
    return str(name)


def _seen_layout(files: Sequence[Path]) -> str:
    """Return the layout that the first rows of files look like most."""
    for file in files:
        rows = [row for row, _ in islice(_raw_rows(file), _LOOKED) if isinstance(row, dict)]
        if rows:
            return _likest(rows, file)
    return NAMED[0]  # files without rows hold them in any layout


def _likest(rows: Sequence[dict[str, Any]], file: Path) -> str:
    """Return the layout with the strongest sign; without any sign, the first one that reads the rows.

    Columns that hold JSON text, as Parquet files do, show no sign."""
    names = [name for name in plugins.names(EXPORTS) if name in plugins.names(FAMILY)]
    names.sort(key=lambda name: name != NAMED[0])
    if all(map(_is_plain, rows)):
        names.remove(NAMED[0])
    fits: dict[str, int] = {}
    for name in names:
        signs = [likeness(plugins.load(FAMILY, name), row) for row in rows]
        if all(sign is not None for sign in signs):
            fits[name] = max(sign.fit for sign in signs if sign is not None)
    best = max(fits, key=lambda name: fits[name], default=None)
    best = best or next((name for name in names if all(_reads(name, row) for row in rows)), None)
    if best is None:
        raise ConfigError(
            f"{file}: its rows are of none of the layouts {', '.join(names)}; dfkdata convert writes them"
        )
    return best


def _reads(layout: str, row: dict[str, Any]) -> bool:
    module = plugins.load(FAMILY, layout)
    if not any(columns <= row.keys() for columns in module.COLUMNS):
        return False
    try:
        module.record(row, "", module.Options())
    except RowError:
        return False
    return True


def _is_plain(row: dict[str, Any]) -> bool:
    """Return whether a row keeps no id and its turns are plain texts, as layouts without ids write them."""
    turns = row.get("messages")
    plain = isinstance(turns, list) and all(
        isinstance(turn, dict) and isinstance(turn.get("content"), str) for turn in turns
    )
    return plain and "id" not in row


def _raw_rows(file: Path) -> Iterator[sources.SourcedRow]:
    return sources.rows(sources.Part(str(file), file.parent, file))


def _lines(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for row, place in _raw_rows(file):
        if isinstance(row, Reject):
            raise DataError(f"{place}: {row.reason}; {row.hint or 'convert again'}")
        yield int(place.rpartition(":")[2]), row

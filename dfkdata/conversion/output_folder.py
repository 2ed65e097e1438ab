"""Write the output folder: each row in the file of its split, copies apart, the manifest last.

How it works: files lie beside their final place and are moved there when everything is done. A training row of
which a held-out copy comes later (`duplicates`) leaves its file again at the end.

Guarantees:
    - No row is written twice and none is lost; files are written in the order in which rows come.
    - A killed run leaves the previous result or no manifest, never half a result with a manifest.
    - Two runs never write into one folder at once.
    - `manifest.json` is written last and names every other file with its hash.
    - When it is written, every folder of media files that rows name is there, as seen from the rows' file."""

from __future__ import annotations

import os
import re
import shutil
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from dfkdata.common import locks, media_roots
from dfkdata.common import manifest as manifests
from dfkdata.common.errors import ConfigError, DataError
from dfkdata.common.hashing import file_sha256
from dfkdata.common.json_files import encode
from dfkdata.common.jsonl import JsonlWriter
from dfkdata.common.locks import LOCK
from dfkdata.common.manifest import MANIFEST
from dfkdata.conversion import splits
from dfkdata.conversion.counts import RuleCounts, RunCounts
from dfkdata.conversion.duplicates import EVICTS, NEW, DuplicateCheck
from dfkdata.rows.chat_turns import without_bytes
from dfkdata.rows.record import Record, Reject
from dfkdata.validation.rules import RuleWarning

if TYPE_CHECKING:
    from numpy.typing import NDArray

PARTIAL = ".partial"
MEDIA = "media"
SHARDS = "shards"
MAX_FOLDERS = 64
"""Folders of media that a manifest lists; of more, it names the one above them all."""


class Folder:
    """Hold the final folder and the partial one inside it."""

    def __init__(self, final: Path) -> None:
        self.final = final
        self.partial = final / PARTIAL
        self._moving = False
        self._named: dict[str, str] = {}

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the folder for this run only; it is removed again if it stays empty.

        Raises:
            ConfigError: Another conversion writes into it, or it cannot be written.
        """
        with locks.alone(self.final / LOCK, "conversion"):
            yield

    def start(self) -> None:
        """Make an empty partial folder."""
        shutil.rmtree(self.partial, ignore_errors=True)
        self.partial.mkdir(parents=True)

    def resume(self) -> None:
        """Remove what a run that was stopped left in the partial folder, but for its shards and their media."""
        for path in [*self.partial.iterdir(), *self.partial.rglob("*.part")]:
            if path.suffix != ".part" and path.name in (SHARDS, MEDIA):
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def lines(self, name: str) -> JsonlWriter:
        """Return a new JSONL file in the partial folder."""
        return JsonlWriter(self.partial / name)

    def finish(self, manifest: dict[str, Any]) -> None:
        """Move everything to its final place; the old manifest goes first, the new one comes last.

        Raises:
            DataError: A folder of media files that rows name is gone.
        """
        old, self._moving = self.manifest() or {}, True
        (self.final / MANIFEST).unlink(missing_ok=True)
        for entry in old.get("outputs", []):
            (self.final / Path(entry["path"]).name).unlink(missing_ok=True)
        for path in sorted(self.partial.iterdir()):
            if path.name != SHARDS:
                _move(path, self.final / path.name)
        self._check_named()
        (self.partial / MANIFEST).write_bytes(encode(manifest))
        (self.partial / MANIFEST).replace(self.final / MANIFEST)
        if manifest.get("media_folders"):
            media_roots.remember(self.final / MANIFEST)
        shutil.rmtree(self.partial)

    def discard(self) -> None:
        """Remove the partial folder.

        If files are being moved it stays: it says that those in their place are of a conversion that was stopped."""
        if self._moving:
            return
        shutil.rmtree(self.partial, ignore_errors=True)

    def manifest(self) -> dict[str, Any] | None:
        """Return the manifest of a finished conversion, None if there is none.

        Raises:
            ConfigError: The file cannot be read.
        """
        try:
            manifest = msgspec.json.decode((self.final / MANIFEST).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            raise ConfigError(
                f"{self.final / MANIFEST}: cannot be read ({error}); remove it or use --overwrite"
            ) from error
        return manifest if isinstance(manifest, dict) else None

    def manifest_exists(self) -> bool:
        """Return whether a conversion was finished here, readable or not."""
        return (self.final / MANIFEST).exists()

    @property
    def named(self) -> dict[str, str]:
        """Folders of media that rows name -> how they name them."""
        return self._named

    def naming(self, paths: Literal["relative", "absolute"] = "relative") -> Callable[[str], str]:
        """Return a function that writes a path as rows name it, with forward slashes.

        `finish` checks that every folder which it has named can be reached from the rows' file.

        Args:
            paths: "relative" to the final folder, or "absolute".
        """
        final, partial = os.path.realpath(self.final), os.path.realpath(self.partial)

        def seen_from_rows(path: str) -> str:
            folder, name = os.path.split(path)
            if folder not in self._named:
                real = os.path.realpath(folder)
                start = partial if _is_below(real, partial) else final
                place = os.path.relpath(real, start)
                place = os.path.normpath(os.path.join(final, place)) if paths == "absolute" else place  # noqa: PTH118
                self._named[folder] = place.replace(os.sep, "/")
            return name if self._named[folder] == "." else f"{self._named[folder]}/{name}"

        return seen_from_rows

    def media_folders(self) -> list[str]:
        """Return the folders outside this one in which files lie that rows name, as seen from it."""
        final, partial = os.path.realpath(self.final), os.path.realpath(self.partial)
        real = sorted({os.path.realpath(folder) for folder in self._named})
        outside = [
            folder for folder in real if not _is_below(folder, final) and not _is_below(folder, partial)
        ]
        tops = [
            folder
            for at, folder in enumerate(outside)
            if not any(_is_below(folder, one) for one in outside[:at])
        ]
        if len(tops) > MAX_FOLDERS:
            tops = [os.path.commonpath(tops)]
        return [os.path.relpath(folder, final).replace(os.sep, "/") for folder in tops]

    def drop_unnamed_media(self, files: Iterable[Path]) -> None:
        """Remove embedded and unpacked media that no written row names: of rejected rows, or because rows hold them.

        Args:
            files: All files of written rows.
        """
        media = self.partial / MEDIA
        if not media.is_dir():
            return
        named = set[str]()
        for file in files:
            with file.open("rb") as lines:
                for path in (path for line in lines for path in _MEDIA_PATH.findall(line)):
                    steps = msgspec.json.decode(b'"media/' + path + b'"').split("media/")
                    named.update("media/".join(steps[at:]) for at in range(1, len(steps)))
        for path in sorted(media.rglob("*"), reverse=True):
            if path.is_dir():
                _remove_if_empty(path)
            elif path.relative_to(media).as_posix() not in named:
                path.unlink()
        if _remove_if_empty(media):
            real = os.path.realpath(media)
            self._named = {
                folder: name
                for folder, name in self._named.items()
                if not _is_below(os.path.realpath(folder), real)
            }

    def adopt(self, named: Mapping[str, str]) -> None:
        """Take folders that rows name, and how, from a part of the conversion that another process did."""
        self._named |= named

    def _check_named(self) -> None:
        """Raise `DataError` if rows name a folder that is not where they say."""
        for folder, name in self._named.items():
            if not (self.final / name).is_dir():
                raise DataError(
                    f"{self.final}: rows name files in {name!r}, which is gone ({folder} when they were read);"
                    " keep the files in place and convert again"
                )


_MEDIA_PATH = re.compile(rb'media/((?:[^"\\]|\\.){1,8192})"')


def _remove_if_empty(folder: Path) -> bool:
    """Remove a folder without files, and return whether it was one."""
    if any(folder.iterdir()):
        return False
    folder.rmdir()
    return True


def _is_below(folder: str, top: str) -> bool:
    return folder == top or folder.startswith(top.rstrip(os.sep) + os.sep)


def media_folders(file: Path) -> list[Path] | None:
    """Return the folders in which a file that a conversion wrote may name media, its own first (`media_roots`).

    None if no conversion wrote it, as the manifest beside it says."""
    written = manifests.read(file.parent)
    if written is None or file.name not in written.names:
        return None
    return [file.parent, *media_roots.manifest_roots(file)]


def _move(path: Path, target: Path) -> None:
    """Move a file over `target`; a folder is merged into it, since its files are named by content."""
    if path.is_dir():
        target.mkdir(exist_ok=True)
        for inner in sorted(path.iterdir()):
            _move(inner, target / inner.name)
        path.rmdir()
    else:
        path.replace(target)


def file_facts(path: Path, name: str) -> dict[str, Any]:
    """Return an input's entry in the manifest: its name, size in bytes and SHA-256.

    Raises:
        ConfigError: The file cannot be read.
    """
    try:
        return {"path": name, "bytes": path.stat().st_size, "sha256": file_sha256(path)}
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error


def writable_reject(reject: Reject) -> Reject:
    """Return a reject as the quarantine holds it: its raw row without bytes, which JSON has not."""
    return msgspec.structs.replace(reject, raw=without_bytes(reject.raw))


_DIGESTS = "train.digests"


class SplitWriter:
    """Hold the files of one conversion while they are written, and count the rows in `out` and `duplicates`.

    Attributes:
        files: Split -> its file.
        duplicates: Copies of earlier rows.
        quarantine: Rejected rows.
        warnings: Broken rules that let a row through, one line a row.
    """

    def __init__(self, folder: Folder, counts: RunCounts) -> None:
        self._folder, self._counts = folder, counts
        self.files = {name: folder.lines(f"{name}.jsonl") for name in splits.SPLITS}
        self.duplicates = folder.lines("duplicates.jsonl")
        self.quarantine = folder.lines("quarantine.jsonl")
        self.warnings = folder.lines("warnings.jsonl")
        self._digests = (folder.partial / _DIGESTS).open("wb", buffering=1 << 20)
        self._warned = array("q")
        self._copies = DuplicateCheck()

    def reject(self, reject: Reject) -> None:
        """Write a row to the quarantine."""
        self.quarantine.put(writable_reject(reject))
        self._count(reject)

    def reject_line(self, reject: Reject, line: bytes) -> None:
        """Write a row to the quarantine of which the line is encoded already; the reject may lack its raw row."""
        self.quarantine.put_line(line)
        self._count(reject)

    def _count(self, reject: Reject) -> None:
        self._counts.rows["quarantined"] += 1
        self._counts.rejects.add(reject)

    def warn(self, warning: RuleWarning) -> None:
        """Count a broken rule that let its rows through, and write a line for each."""
        lines = warning.lines()
        self._counts.warnings.add(warning, len(lines))
        for line in lines:
            self.warnings.put(line)
            self._warned.append(warning.number)

    def drop_warnings(self, gone: NDArray[Any]) -> None:
        """Take back the warnings about rows that left their file again.

        Args:
            gone: Of each row that was written, whether it left.
        """
        if not any(number >= 0 and gone[number] for number in self._warned):
            return
        self.warnings.close()
        old = self.warnings.path.rename(self.warnings.path.with_suffix(".before"))
        self.warnings, self._counts.warnings = self._folder.lines("warnings.jsonl"), RuleCounts()
        with old.open("rb") as lines:
            for line, number in zip(lines, self._warned, strict=True):
                if number < 0 or not gone[number]:
                    self.warnings.put_line(line)
                    self._counts.warnings.add(msgspec.json.decode(line, type=Reject))
        old.unlink()
        self._warned = array("q", (number for number in self._warned if number < 0 or not gone[number]))

    def takes(self, raw: Any, record: Record, row: dict[str, Any], digest: bytes, split: str) -> bool:
        """Return whether a row is to be written; a copy of an earlier one goes to the duplicates instead.

        Raises:
            RowError: An earlier row has the same key of the source.
        """
        found = self._copies.check(record, digest, split)
        if found == NEW:
            return True
        self._counts.rows["duplicates"] += 1
        if found != EVICTS:
            self.duplicates.put(
                {"source": record.source, "id": row["id"], "kept": found, "raw": without_bytes(raw)}
            )
            return False
        self._counts.rows["out"] -= 1
        self._counts.labels.remove(
            row["meta"], "train"
        )  # its turns, and so its labels, are those of this row
        return True

    def takes_all(
        self,
        raws: Sequence[Any],  # noqa: ARG002  # a copy is asked for alone
        sources: Sequence[str],  # noqa: ARG002
        names: Sequence[str],  # noqa: ARG002
        keys: Sequence[str] | None,
        digests: Sequence[bytes],
        codes: Sequence[int],
    ) -> bool:
        """Return whether no row was like any of these, they differ, and none has a key that others could have."""
        return keys is None and self._copies.all_new(digests, codes)

    def put(self, row: Any, digest: bytes, split: str) -> None:
        """Write a row that was taken."""
        self.files[split].put(row)
        if split == "train":
            self._digests.write(digest)
        self._counts.rows["out"] += 1

    def put_lines(self, split: str, lines: Sequence[bytes], digests: bytes) -> None:
        """Write rows that were taken and are encoded already, with the digests of all of them."""
        self.files[split].put_lines(lines)
        if split == "train":
            self._digests.write(digests)
        self._counts.rows["out"] += len(lines)

    def put_all(self, rows: Sequence[Any], digests: Sequence[bytes], codes: Sequence[int]) -> None:
        """Write rows that were taken; arguments as in `takes_all`."""
        for code in set(codes):
            chosen = [other == code for other in codes]
            self.files[splits.SPLITS[code]].put_all(list(compress(rows, chosen)))
            if code == splits.CODE["train"]:
                self._digests.write(b"".join(compress(digests, chosen)))
        self._counts.rows["out"] += len(rows)

    def close(self) -> list[int]:
        """Finish all files but the duplicates; return the places (from 0) of rows that left train.jsonl."""
        self._digests.close()
        for file in self.files.values():
            file.close()
        self.quarantine.close()
        evicted, self._copies = (
            self._copies.evicted,
            DuplicateCheck(),
        )  # what is compared next needs the memory
        places = self._evict(evicted) if evicted else []
        (self._folder.partial / _DIGESTS).unlink()
        return places

    def _evict(self, evicted: set[int]) -> list[int]:
        """Move training copies of held-out rows from train.jsonl to duplicates.jsonl; return their places."""
        path = self.files["train"].path
        old = path.rename(path.with_suffix(".before"))
        train, places = self._folder.lines("train.jsonl"), []
        with old.open("rb") as lines, path.with_name(_DIGESTS).open("rb") as digests:
            for place, line in enumerate(lines):
                if int.from_bytes(digests.read(8)) not in evicted:
                    train.put_line(line)
                    continue
                places.append(place)
                row = msgspec.json.decode(line)
                source, name = row.get("meta", {}).get("source", ""), row.get("id", "")
                copy = {"source": source, "id": name, "kept": "held out", "raw": row}
                self.duplicates.put(copy)
        train.close()
        old.unlink()
        self.files["train"] = train
        return places

"""Write the output folder: everything beside its final place, then moved there, the manifest last.

The files of the rows are `split_writer`'s.

Guarantees:
    - A killed run leaves the previous result or no manifest, never half a result with a manifest.
    - Two runs never write into one folder at once.
    - `manifest.json` is written last and names every other file with its hash.
    - When it is written, every folder of media files that rows name is there, as seen from the rows' file."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
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

if TYPE_CHECKING:
    pass

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

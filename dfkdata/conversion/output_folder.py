"""Write the output folder: files lie beside their final place and are moved there when everything is done.

Guarantees:
    - A killed run leaves the previous result or no manifest, never half a result with a manifest.
    - Two runs never write into one folder at once.
    - `manifest.json` is written last and names every other file with its hash.
    - When it is written, every folder of media files that rows name is there, as seen from the rows' file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import msgspec

from dfkdata.common import locks
from dfkdata.common.errors import ConfigError, DataError
from dfkdata.common.hashing import file_sha256
from dfkdata.common.json_files import encode
from dfkdata.common.jsonl import JsonlWriter
from dfkdata.common.locks import LOCK

MANIFEST = "manifest.json"
PARTIAL = ".partial"
MEDIA = "media"
MAX_FOLDERS = 64
"""Folders of media that a manifest lists; of more, it names the one above them all."""


class Folder:
    """Hold the final folder and the partial one inside it."""

    def __init__(self, final: Path) -> None:
        self.final = final
        self.partial = final / PARTIAL
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

    def lines(self, name: str) -> JsonlWriter:
        """Return a new JSONL file in the partial folder."""
        return JsonlWriter(self.partial / name)

    def finish(self, manifest: dict[str, Any]) -> None:
        """Move everything to its final place; the old manifest goes first, the new one comes last.

        Raises:
            DataError: A folder of media files that rows name is gone.
        """
        old = self.manifest() or {}
        (self.final / MANIFEST).unlink(missing_ok=True)
        for entry in old.get("outputs", []):
            (self.final / Path(entry["path"]).name).unlink(missing_ok=True)
        for path in sorted(self.partial.iterdir()):
            _move(path, self.final / path.name)
        self._check_named()
        (self.partial / MANIFEST).write_bytes(encode(manifest))
        (self.partial / MANIFEST).replace(self.final / MANIFEST)
        self.partial.rmdir()

    def discard(self) -> None:
        """Remove the partial folder."""
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

    def _check_named(self) -> None:
        """Raise `DataError` if rows name a folder that is not where they say."""
        for folder, name in self._named.items():
            if not (self.final / name).is_dir():
                raise DataError(
                    f"{self.final}: rows name files in {name!r}, which is gone ({folder} when they were read);"
                    " keep the files in place and convert again"
                )


def _is_below(folder: str, top: str) -> bool:
    return folder == top or folder.startswith(top.rstrip(os.sep) + os.sep)


def media_folders(file: Path) -> list[Path] | None:
    """Return the folders in which a file that a conversion wrote may name media, its own first.

    None if no conversion wrote it, as the manifest beside it says."""
    try:
        manifest = msgspec.json.decode((file.parent / MANIFEST).read_bytes(), type=_Written)
    except (OSError, msgspec.MsgspecError):
        return None
    if file.name not in {entry.path for entry in manifest.outputs}:
        return None
    return [file.parent, *(file.parent / folder for folder in manifest.media_folders)]


class _Output(msgspec.Struct):
    path: str


class _Written(msgspec.Struct):
    outputs: list[_Output]
    media_folders: list[str] = []


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

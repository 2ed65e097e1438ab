"""The output folder: files are written beside their final place and moved there when everything is done.

Promises: a killed run leaves the previous result or no manifest, never half a result with one; two runs never
write into one folder at once; equal input and configuration give equal bytes; `manifest.json` is written last
and names every other file with its hash."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from dfkdata.common import locks
from dfkdata.common.errors import ConfigError
from dfkdata.common.hashing import file_sha256
from dfkdata.common.json_files import encode
from dfkdata.common.jsonl import JsonlWriter
from dfkdata.common.locks import LOCK

MANIFEST = "manifest.json"
PARTIAL = ".partial"
MEDIA = "media"


class Folder:
    """The final folder and the partial one inside it."""

    def __init__(self, final: Path) -> None:
        self.final = final
        self.partial = final / PARTIAL

    @contextmanager
    def alone(self) -> Iterator[None]:
        """The folder for this run only; it is removed again where it stays empty.

        Raises `ConfigError` as `locks.alone`."""
        with locks.alone(self.final / LOCK, "conversion"):
            yield

    def start(self) -> None:
        """An empty partial folder."""
        shutil.rmtree(self.partial, ignore_errors=True)
        self.partial.mkdir(parents=True)

    def lines(self, name: str) -> JsonlWriter:
        """A new JSONL file in the partial folder."""
        return JsonlWriter(self.partial / name)

    def finish(self, manifest: dict[str, Any]) -> None:
        """Move everything to its final place; the old manifest goes first, the new one comes last."""
        old = self.manifest() or {}
        (self.final / MANIFEST).unlink(missing_ok=True)
        for entry in old.get("outputs", []):
            (self.final / Path(entry["path"]).name).unlink(missing_ok=True)
        for path in sorted(self.partial.iterdir()):
            _move(path, self.final / path.name)
        (self.partial / MANIFEST).write_bytes(encode(manifest))
        (self.partial / MANIFEST).replace(self.final / MANIFEST)
        self.partial.rmdir()

    def discard(self) -> None:
        """Remove the partial folder."""
        shutil.rmtree(self.partial, ignore_errors=True)

    def manifest(self) -> dict[str, Any] | None:
        """The manifest of a finished conversion; None where there is none."""
        try:
            found = msgspec.json.decode((self.final / MANIFEST).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            raise ConfigError(
                f"{self.final / MANIFEST}: cannot be read ({error}); remove it or use --overwrite"
            ) from error
        return found if isinstance(found, dict) else None

    def manifest_exists(self) -> bool:
        """Whether a conversion was finished here, readable or not."""
        return (self.final / MANIFEST).exists()

    def relative(self) -> Callable[[str], str]:
        """A function that gives a path as a row writes it: seen from the final folder, with forward
        slashes."""
        final, partial = os.path.realpath(self.final), str(self.partial.absolute())
        folders: dict[str, str] = {}

        def seen_from_rows(path: str) -> str:
            folder, name = os.path.split(path)
            if folder not in folders:
                inside = folder == partial or folder.startswith(partial + os.sep)
                start = partial if inside else final
                folders[folder] = os.path.relpath(
                    folder if inside else os.path.realpath(folder), start
                ).replace(os.sep, "/")
            return name if folders[folder] == "." else f"{folders[folder]}/{name}"

        return seen_from_rows


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
    """An input's line in the manifest: its name, size in bytes and SHA-256."""
    try:
        return {"path": name, "bytes": path.stat().st_size, "sha256": file_sha256(path)}
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error

"""Decide in which folders a file that somebody else may have written can name pictures, videos and audios.

How it works. The names that stand in a file of rows, or in a run's samples, count only inside

1. the folder of that file,
2. the folders that the user allows (`allow`: the option --media-root, `media_roots:` in a configuration, a call),
3. the folders that a conversion's manifest beside the file names, if this user's dfk wrote that manifest,
4. any folder, if this user's dfk wrote the file itself (rejection sampling, monitoring, a run's samples).

Whether dfk wrote a file is not said in the file, where anybody could say it: its SHA-256 stands in a list under the
user's own state folder (`$XDG_STATE_HOME/dfk`, by default `~/.local/state/dfk`). Copied or moved files stay known,
changed ones do not, and nothing in the data depends on the list. Symbolic links are followed before a name is judged.

Guarantees:
- A foreign file opens no folder but its own, whatever its manifest says.
- Texts without media cost nothing."""

# Paths stay strings here, since this runs for each picture of each row.
# ruff: noqa: PTH100, PTH114, PTH118, PTH120

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from dfkdata.common import manifest
from dfkdata.common.hashing import file_sha256

_WRITTEN = "written.sha256"

_allowed: list[str] = []
_written_here: set[str] = set()


def allow(folders: Iterable[str | Path]) -> None:
    """Let every file name media in these folders, and in those inside them, for the rest of the process.

    Args:
        folders: The folders; relative ones start at the current folder.

    Example:
        >>> from dfkdata.common import media_roots
        >>> media_roots.allow(["pictures"])
        >>> media_roots.MediaRoots("rows.jsonl").permits("pictures/a.png")
        True
    """
    _allowed.extend(
        dict.fromkeys(path for folder in folders if (path := os.path.abspath(folder)) not in _allowed)
    )


def allowed() -> tuple[str, ...]:
    """Return the folders that the user has allowed."""
    return tuple(_allowed)


def remember(path: Path) -> None:
    """Note that this user's dfk wrote a file, so that the names in it, or in its manifest, count from now on.

    If the list cannot be written, other processes read the file like a foreign one."""
    line = file_sha256(path) + "\n"
    _written_here.add(line)
    with contextlib.suppress(OSError):
        place = _list()
        if not place.exists() or line not in place.read_text(encoding="ascii"):
            place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with place.open("a", encoding="ascii") as file:
                file.write(line)


def is_remembered(path: Path) -> bool:
    """Return whether this user's dfk wrote a file, and nobody has changed it since."""
    try:
        line = file_sha256(path) + "\n"
        return line in _written_here or line in _list().read_text(encoding="ascii")
    except (OSError, ValueError):
        return False


def _list() -> Path:
    home = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(home) / "dfk" / _WRITTEN


class MediaRoots:
    """Judge the media names of one file.

    Args:
        file: The file of rows or samples.
    """

    def __init__(self, file: str | Path) -> None:
        self._file = Path(file)
        self._prefixes = _prefixes([os.path.dirname(os.path.abspath(file)), *_allowed])
        self._real = lru_cache(maxsize=1024)(os.path.realpath)
        self._asked = self._anywhere = False

    def permits(self, path: str) -> bool:
        """Return whether the file may name this path, symbolic links included; it need not exist.

        Args:
            path: A path as the file means it, from the current folder or absolute.
        """
        folder, name = os.path.split(path)
        real = os.path.join(self._real(folder), name)
        if name in ("", ".", "..") or os.path.islink(real):
            real = os.path.realpath(path)
        return real.startswith(self._prefixes) or self._is_known_place(real)

    def refusal(self, path: str) -> str:
        """Return why a path is refused, and the ways out."""
        place, also = self._file.parent / manifest.MANIFEST, ""
        written = manifest.read(place.parent)
        if written is not None and written.media_folders and not is_remembered(place):
            named = ", ".join(written.media_folders)
            also = f"; {place} names {named}, but your dfk did not write it on this machine"
        folder = os.path.dirname(os.path.realpath(path))
        return (
            f"{path!r:.200} lies outside the folders in which this file may name media{also}. If you trust it: "
            f"--media-root {folder}, `media_roots: [{folder}]` in your configuration, or "
            f"dfkdata.common.media_roots.allow([{folder!r}])"
        )

    def _is_known_place(self, real: str) -> bool:
        if not self._asked:
            self._asked = True
            self._anywhere = is_remembered(self._file)
            self._prefixes += _prefixes(manifest_roots(self._file))
        return self._anywhere or real.startswith(self._prefixes)


def manifest_roots(file: Path) -> list[Path]:
    """Return the folders that the manifest beside a file names, if this user's dfk wrote that manifest."""
    written = manifest.read(file.parent)
    folders = written.media_folders if written is not None else []
    known = bool(folders) and is_remembered(file.parent / manifest.MANIFEST)
    return [file.parent / folder for folder in folders] if known else []


def _prefixes(folders: Iterable[str | Path]) -> tuple[str, ...]:
    return tuple({os.path.realpath(folder).rstrip(os.sep) + os.sep for folder in folders})

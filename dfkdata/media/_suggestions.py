"""Suggest where a media file lies that is not under the name in the row; a suggestion is never used by itself."""

from __future__ import annotations

import difflib
import os
import unicodedata
from functools import lru_cache
from urllib.parse import unquote

# Paths stay strings here, as in the resolver.
# ruff: noqa: PTH112, PTH113, PTH118, PTH119, PTH120

_FOLDERS = 50  # subfolders of a root that are looked into
_NAMES = 20_000  # names of a folder that are compared


def suggestion(name: str, roots: tuple[str, ...]) -> str:
    """Return a hint for a file that does not exist.

    Args:
        name: The path in the row.
        roots: The real paths of the folders in which media may lie.

    Returns:
        The path that differs in case, slashes, blanks or leading folders only; or the folder that `--images`
        should name; or the nearest name in the same folder. It names no folder above a root, because it is
        written into the output, which must not depend on where the data lies.
    """
    steps = [step for step in unquote(name).replace("\\", "/").split("/") if step.strip() not in ("", ".")]
    if steps and ".." not in steps:
        for root in roots:
            hint = _elsewhere(root, steps)
            if hint:
                return hint
    return _near(name, roots) or "paths start at the image root (--images), by default the input's folder"


def _elsewhere(root: str, steps: list[str]) -> str:
    """Return a hint for a file that lies at another path under the root or beside it."""
    path = _folded(root, steps)
    if path:
        return f"did you mean {path!r}?"
    for folder in _folders(root):
        if _folded(os.path.join(root, folder), steps):
            return f"it lies in {folder!r} below the image root: name that folder with --images"
    above = os.path.dirname(root)
    for folder, distance in ((above, "one folder"), (os.path.dirname(above), "two folders")):
        if folder not in ("", os.sep) and _folded(folder, steps):
            return f"paths start {distance} above the image root: name that folder with --images"
    for at in range(1, len(steps)):
        path = _folded(root, steps[at:])
        if path:
            return f"did you mean {path!r}? The file lies there, without {'/'.join(steps[:at])!r}"
    return ""


def _folded(folder: str, steps: list[str]) -> str:
    """Return the path of a file under `folder` whose names equal `steps` but for case, blanks and accents'
    encoding; empty if there is none."""
    names = []
    for step in steps:
        name = _table(folder).get(_fold(step))
        if name is None:
            return ""
        names.append(name)
        folder = os.path.join(folder, name)
    return "/".join(names) if os.path.isfile(folder) else ""


def _fold(name: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


@lru_cache(maxsize=256)
def _table(folder: str) -> dict[str, str]:
    """Return folded name -> name of what lies in a folder."""
    return {_fold(name): name for name in reversed(_listing(folder))}


@lru_cache(maxsize=256)
def _folders(folder: str) -> tuple[str, ...]:
    """Return the first visible folders below a folder, one and two levels deep."""
    below = [
        name for name in _listing(folder) if os.path.isdir(os.path.join(folder, name)) and name[0] != "."
    ]
    deeper = [
        os.path.join(name, inner)
        for name in below[:_FOLDERS]
        for inner in _listing(os.path.join(folder, name))
        if os.path.isdir(os.path.join(folder, name, inner)) and inner[0] != "."
    ]
    return tuple([*below, *deeper][:_FOLDERS])


def _near(name: str, roots: tuple[str, ...]) -> str:
    """Return a hint with the nearest existing name in the same folder, or nothing."""
    for root in roots:
        folder = os.path.realpath(os.path.join(root, os.path.dirname(name)))
        if folder == root or folder.startswith(root + os.sep):
            near = difflib.get_close_matches(os.path.basename(name), _listing(folder), n=1)
            if near:
                return f"did you mean {os.path.join(os.path.dirname(name), near[0])!r}?"
    return ""


@lru_cache(maxsize=256)
def _listing(folder: str) -> tuple[str, ...]:
    """Return the names in `folder`, sorted, at most `_NAMES`, which is enough for a suggestion."""
    try:
        with os.scandir(folder) as entries:
            return tuple(sorted(entry.name for _, entry in zip(range(_NAMES), entries, strict=False)))
    except OSError:
        return ()

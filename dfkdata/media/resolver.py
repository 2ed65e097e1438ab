"""Find the images of a conversion by their exact paths inside declared roots, and inspect them.

Guarantees:
- No fuzzy match: a near name is only suggested.
- Nothing outside the roots is read, symbolic links included.
- Remote images are never fetched."""

# Paths stay strings here: building a Path costs more than the check it is for.
# ruff: noqa: PTH100, PTH112, PTH113, PTH118, PTH119, PTH120, PTH202

from __future__ import annotations

import difflib
import os
import stat
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote

from dfkdata.common import data_uri
from dfkdata.common.hashing import sampled_sha256
from dfkdata.common.json_files import write_bytes
from dfkdata.common.unicode_forms import normalize
from dfkdata.media.probe import Picture, audit, inspect
from dfkdata.rows.record import RowError


class MediaResolver:
    """Find and inspect the media files of one conversion.

    Args:
        roots: The folders in which images may lie; relative names start at the first, then at the others.
        store: The folder that receives embedded images, named by content; None refuses embedded images.
        also: Folders in which images may lie, too, though no names start there.
    """

    def __init__(
        self, roots: tuple[Path, ...], store: Path | None = None, also: tuple[Path, ...] = ()
    ) -> None:
        self.roots = tuple(os.path.abspath(root) for root in roots)
        self.real_roots = tuple(os.path.realpath(root) for root in roots)
        allowed = {*self.roots, *self.real_roots, *map(os.path.abspath, also), *map(os.path.realpath, also)}
        self._prefixes = tuple(root.rstrip(os.sep) + os.sep for root in allowed)
        self.store = store
        self._real_folder = lru_cache(maxsize=1024)(os.path.realpath)
        self._audited = lru_cache(maxsize=4096)(audit)
        self._digested = lru_cache(maxsize=4096)(_file_digest)
        self._suggester = _Suggester(self.real_roots)

    def locate(self, name: str) -> str:
        """Return the absolute path of an image.

        Args:
            name: A path, a file:// address, or a `data:` URI, which is written into the store.

        Raises:
            RowError: If the file is missing, ambiguous, remote or outside the roots.
        """
        if data_uri.is_data_uri(name):
            return self._stored(name)
        if name.startswith("file://"):
            name = unquote(name.removeprefix("file://"))
        elif "://" in name[:12]:
            hint = "download it and name the file; nothing is fetched while converting"
            raise RowError(
                "IMG_REMOTE", "remote images are not fetched", path="images", value=name, hint=hint
            )
        if not name or "\0" in name:
            raise RowError("IMG_MISSING", "not a file name", path="images", value=name)
        paths = [os.path.join(root, name) for root in self.roots]
        inside = [path for path in paths if self._below(os.path.normpath(path))]
        if not inside:
            raise _outside(name, self._suggester.hint(name) if name.startswith("/") else "")
        existing = {path: mode for path in inside if (mode := _mode(path))}
        if not existing:
            hint = self._suggester.hint(name)
            reason = "no such file under the image root"
            raise RowError("IMG_MISSING", reason, path="images", value=name, hint=hint)
        if len(existing) > 1 and len({os.path.realpath(path) for path in existing}) > 1:
            hint = f"it lies under {len(existing)} roots; give one of them"
            reason = "more than one file of that name"
            raise RowError("IMG_AMBIGUOUS", reason, path="images", value=name, hint=hint)
        path, mode = next(iter(existing.items()))
        return self._really_inside(path, name, stat.S_ISLNK(mode))

    def other(self, name: str, kind: str) -> str:
        """Return the absolute path of a video or an audio file.

        Args:
            name: As for `locate`.
            kind: "video" or "audio".

        Raises:
            RowError: If the file is missing, empty or outside the roots.
        """
        try:
            path = self.locate(name)
        except RowError as fault:
            code = "MEDIA_MISSING" if fault.code == "IMG_MISSING" else fault.code
            raise RowError(code, fault.reason, path=f"{kind}s", value=name, hint=fault.hint) from fault
        if not os.path.isfile(path) or not os.path.getsize(path):
            raise RowError(
                "MEDIA_MISSING", f"the {kind} is no file, or an empty one", path=f"{kind}s", value=name
            )
        return path

    def picture(self, path: str) -> Picture:
        """Return what the file at `path` holds.

        Raises:
            RowError: If it is not one whole picture.
        """
        try:
            return self._audited(path)
        except RowError as fault:
            fault.value = os.path.relpath(path, self.roots[0])
            raise

    def digests(self, images: Iterable[str], *others: Iterable[str]) -> list[bytes]:
        """Return what identifies files by what they hold, in order: pictures, then videos and audio.

        Args:
            images: Paths of pictures.
            others: Paths of videos and audio, whose digests are samples of large files (`sampled_sha256`).

        Raises:
            RowError: If a file cannot be read, or is not one whole picture.
        """
        return [
            *(self.picture(path).digest for path in images),
            *(self._digested(path) for paths in others for path in paths),
        ]

    def _really_inside(self, path: str, name: str, is_link: bool) -> str:
        """Return `path`, unless symbolic links lead out of the roots."""
        folder, file = os.path.split(path)
        plain = file not in (".", "..") and not is_link
        real = os.path.join(self._real_folder(folder), file) if plain else os.path.realpath(path)
        if not self._below(real):
            raise _outside(name)
        return real if ".." in name else path

    def _below(self, path: str) -> bool:
        return path.startswith(self._prefixes)

    def _stored(self, uri: str) -> str:
        """Write the picture of a `data:` URI into the store and return its path."""
        if self.store is None:
            hint = "give a folder that embedded images are written to (convert does)"
            raise RowError(
                "IMG_EMBEDDED", "the image is embedded in the row", path="images", value=uri[:64], hint=hint
            )
        try:
            data = data_uri.decode(uri)
        except data_uri.DataUriError as error:
            hint = "embed the whole file as data:image/png;base64,..."
            raise RowError("IMG_UNREADABLE", str(error), path="images", value=uri[:64], hint=hint) from error
        return str(store_picture(data, self.store))


def _mode(path: str) -> int:
    """Return the mode of a file, or of the link that is there; 0 if there is none."""
    try:
        return os.lstat(path).st_mode
    except (OSError, ValueError):
        return 0


def _file_digest(path: str) -> bytes:
    """Return `sampled_sha256` of a file. Raises `RowError` if it cannot be read."""
    try:
        return sampled_sha256(path)
    except OSError as error:
        reason = f"cannot be read ({error.strerror})"
        raise RowError("MEDIA_MISSING", reason, path="videos", value=os.path.basename(path)) from error


def _outside(name: str, suggested: str = "") -> RowError:
    hint = "copy the file under the image root, name its folder with --images, or allow it with --media-root"
    if suggested.startswith("did you mean"):
        hint = f"{suggested}; else {hint}"
    return RowError(
        "IMG_OUTSIDE", "the file lies outside the image roots", path="images", value=name, hint=hint
    )


def store_picture(data: bytes, store: Path) -> Path:
    """Write a picture into a folder, whole or not at all, named by its hash and real kind, and return its path.

    Args:
        data: The bytes of the picture file.
        store: The folder.

    Raises:
        RowError: If the bytes are not one whole picture.
    """
    picture = inspect(data)
    path = store / f"{picture.digest.hex()[:32]}.{'jpg' if picture.kind == 'jpeg' else picture.kind}"
    if not path.exists():
        write_bytes(path, data, shared=True)
    return path


# Paths stay strings here, as in the resolver.
# ruff: noqa: PTH112, PTH113, PTH118, PTH119, PTH120

_FOLDERS = 50  # subfolders of a root that are looked into
_NAMES = 20_000  # names of a folder that are compared


class _Suggester:
    """Suggest where a file lies that is not under the name in the row; a suggestion is never used by itself.

    What lies in a folder is remembered for as long as this object lives, which is one conversion."""

    def __init__(self, roots: tuple[str, ...]) -> None:
        """Take the real paths of the folders in which media may lie."""
        self._roots = roots
        self._listing = lru_cache(maxsize=256)(_listing)
        self._table = lru_cache(maxsize=256)(self._fold_names)
        self._folders = lru_cache(maxsize=256)(self._subfolders)

    def hint(self, name: str) -> str:
        """Return a hint for a file that does not exist.

        Args:
            name: The path in the row.

        Returns:
            The path that differs in case, slashes, blanks or leading folders only; or the folder that
            `--images` should name; or the nearest name in the same folder. It names no folder above a root,
            because it is written into the output, which must not depend on where the data lies.
        """
        steps = [
            step for step in unquote(name).replace("\\", "/").split("/") if step.strip() not in ("", ".")
        ]
        if steps and ".." not in steps:
            for root in self._roots:
                hint = self._elsewhere(root, steps)
                if hint:
                    return hint
        default = "paths start at the image root (--images), by default the input's folder"
        return self._near(name) or default

    def _elsewhere(self, root: str, steps: list[str]) -> str:
        """Return a hint for a file that lies at another path under the root or beside it."""
        path = self._folded(root, steps)
        if path:
            return f"did you mean {path!r}?"
        for folder in self._folders(root):
            if self._folded(os.path.join(root, folder), steps):
                return f"it lies in {folder!r} below the image root: name that folder with --images"
        above = os.path.dirname(root)
        for folder, distance in ((above, "one folder"), (os.path.dirname(above), "two folders")):
            if folder not in ("", os.sep) and self._folded(folder, steps):
                return f"paths start {distance} above the image root: name that folder with --images"
        for at in range(1, len(steps)):
            path = self._folded(root, steps[at:])
            if path:
                return f"did you mean {path!r}? The file lies there, without {'/'.join(steps[:at])!r}"
        places = [
            folder for folder in self._folders(root) if self._folded(os.path.join(root, folder), steps[-1:])
        ]
        if len(places) == 1:
            return f"a file of that name lies in {places[0]!r}"
        return ""

    def _folded(self, folder: str, steps: list[str]) -> str:
        """Return the path of a file under `folder` whose names equal `steps` but for case, blanks and
        accents' encoding; empty if there is none."""
        names = []
        for step in steps:
            name = self._table(folder).get(_fold(step))
            if name is None:
                return ""
            names.append(name)
            folder = os.path.join(folder, name)
        return "/".join(names) if os.path.isfile(folder) else ""

    def _near(self, name: str) -> str:
        """Return a hint with the nearest existing name in the same folder, or nothing."""
        for root in self._roots:
            folder = os.path.realpath(os.path.join(root, os.path.dirname(name)))
            if folder == root or folder.startswith(root + os.sep):
                near = difflib.get_close_matches(os.path.basename(name), self._listing(folder), n=1)
                if near:
                    return f"did you mean {os.path.join(os.path.dirname(name), near[0])!r}?"
        return ""

    def _fold_names(self, folder: str) -> dict[str, str]:
        """Return folded name -> name of what lies in a folder."""
        return {_fold(name): name for name in reversed(self._listing(folder))}

    def _subfolders(self, folder: str) -> tuple[str, ...]:
        """Return the first visible folders below a folder, one and two levels deep."""
        below = [name for name in self._listing(folder) if _is_visible_folder(folder, name)]
        deeper = [
            os.path.join(name, inner)
            for name in below[:_FOLDERS]
            for inner in self._listing(os.path.join(folder, name))
            if _is_visible_folder(os.path.join(folder, name), inner)
        ]
        return tuple([*below, *deeper][:_FOLDERS])


def _is_visible_folder(folder: str, name: str) -> bool:
    return name[0] != "." and os.path.isdir(os.path.join(folder, name))


def _fold(name: str) -> str:
    return " ".join(normalize("NFKC", name).casefold().split())


def _listing(folder: str) -> tuple[str, ...]:
    """Return the names in `folder`, sorted, at most `_NAMES`, which is enough for a suggestion."""
    try:
        with os.scandir(folder) as entries:
            return tuple(sorted(entry.name for _, entry in zip(range(_NAMES), entries, strict=False)))
    except OSError:
        return ()

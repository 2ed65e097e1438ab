"""Find the images of a conversion by their exact paths inside declared roots, and inspect them.

Guarantees:
- No fuzzy match: a near name is only suggested.
- Nothing outside the roots is read, symbolic links included.
- Remote images are never fetched."""

# Paths stay strings here: building a Path costs more than the check it is for.
# ruff: noqa: PTH100, PTH114, PTH113, PTH118, PTH202

from __future__ import annotations

import base64
import binascii
import os
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote

from dfkdata.media._suggestions import suggestion
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

    def locate(self, name: str) -> str:
        """Return the absolute path of an image.

        Args:
            name: A path, a file:// address, or a `data:` URI, which is written into the store.

        Raises:
            RowError: If the file is missing, ambiguous, remote or outside the roots.
        """
        if name.startswith("data:"):
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
            raise _outside(name, suggestion(name, self.real_roots) if name.startswith("/") else "")
        existing = [path for path in inside if os.path.lexists(path)]
        if not existing:
            hint = suggestion(name, self.real_roots)
            reason = "no such file under the image root"
            raise RowError("IMG_MISSING", reason, path="images", value=name, hint=hint)
        if len(existing) > 1 and len({os.path.realpath(path) for path in existing}) > 1:
            hint = f"it lies under {len(existing)} roots; give one of them"
            reason = "more than one file of that name"
            raise RowError("IMG_AMBIGUOUS", reason, path="images", value=name, hint=hint)
        return self._really_inside(existing[0], name)

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

    def _really_inside(self, path: str, name: str) -> str:
        """Return `path`, unless symbolic links lead out of the roots."""
        folder, file = os.path.split(path)
        plain = file not in (".", "..") and not os.path.islink(path)
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
        head, _, payload = uri.partition(",")
        try:
            data = base64.b64decode(payload, validate=True)
        except binascii.Error as error:
            raise RowError("IMG_UNREADABLE", f"broken base64: {error}", path="images", value=head) from error
        return str(store_picture(data, self.store))


def _outside(name: str, suggested: str = "") -> RowError:
    hint = "copy the file under the image root, or name its folder with --images"
    if suggested.startswith("did you mean"):
        hint = f"{suggested}; else {hint}"
    return RowError(
        "IMG_OUTSIDE", "the file lies outside the image roots", path="images", value=name, hint=hint
    )


def store_picture(data: bytes, store: Path) -> Path:
    """Write a picture into a folder, named by its hash and real kind, and return its path.

    Args:
        data: The bytes of the picture file.
        store: The folder.

    Raises:
        RowError: If the bytes are not one whole picture.
    """
    picture = inspect(data)
    path = store / f"{picture.digest.hex()[:32]}.{'jpg' if picture.kind == 'jpeg' else picture.kind}"
    if not path.exists():
        store.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return path

"""Read what the manifest of a conversion says about the files beside it."""

from __future__ import annotations

from pathlib import Path

import msgspec

MANIFEST = "manifest.json"
EXTRA = "dataset_info.json"
"""A file that some layouts want beside their rows; manifests do not list it."""
LEFT_OUT = "left_out.jsonl"
"""Rows that a merge of folders left out, each with the reason and its place."""


class Output(msgspec.Struct):
    """A file that a conversion wrote."""

    path: str
    sha256: str


class Manifest(msgspec.Struct):
    """The part of a manifest that other rooms and later conversions read.

    Attributes:
        outputs: The files that were written beside it.
        media_folders: Folders outside, as seen from its own, in which files lie that rows name.
        overlap: Kind -> held-out rows like training rows; None if that was not compared.
    """

    outputs: list[Output]
    media_folders: list[str] = []
    overlap: dict[str, int] | None = None

    @property
    def names(self) -> frozenset[str]:
        """Return the names of the files that dfk wrote beside it, its own among them."""
        return frozenset((MANIFEST, EXTRA, *(output.path for output in self.outputs)))


def read(folder: Path) -> Manifest | None:
    """Return the manifest in a folder; None if there is none, or if its form is not that of dfk."""
    try:
        return msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    except (OSError, msgspec.MsgspecError, ValueError):
        return None

"""Show pictures on pages: small JPEGs inside the page."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from markupsafe import Markup

from dfkdata.common.data_uri import is_data_uri
from dfkdata.media.images import Thumbnail, UnreadableImageError, thumbnail
from dfkdata.pages.redaction import mask

SIDE = 320
"""Pixels of a thumbnail's longer side; pages show it smaller, and in full when it is enlarged."""

COARSE = 12
"""Pixels of a blurred picture's longer side."""


def picture(image: str, side: int = SIDE, *, redact: bool = False) -> Markup:
    """Return a picture as a thumbnail that enlarges; a sentence with its name if it cannot be read.

    Args:
        image: Its path, or a `data:` URI.
        side: Pixels of its longer side.
        redact: Whether it is blurred, and its name masked.
    """
    name = mask(picture_name(image)) if redact else picture_name(image)
    small = small_picture(image, side, blurred=redact)
    if small is None:
        return Markup('<span class="badge warn">picture not readable: {}</span>').format(name)
    return Markup(
        '<button class="thumb" type="button"><img width="{}" height="{}" alt="{}" decoding="async" src="{}"></button>'
    ).format(small.width, small.height, name, small.uri)


def picture_name(image: str) -> str:
    """Return what a picture is called on a page."""
    return "embedded picture" if is_data_uri(image) else Path(image).name


def small_picture(image: str, side: int = SIDE, *, blurred: bool = False) -> Thumbnail | None:
    """Return the thumbnail of a picture, perhaps so blurred that nobody is known by it; None if it cannot be read."""
    return _small(image, side, blurred, _changed(image))


def _changed(image: str) -> int:
    """Return when the file was written, so that a new picture is read again; 0 if there is no file."""
    try:
        return Path(image).stat().st_mtime_ns
    except (OSError, ValueError):
        return 0


@lru_cache(maxsize=512)
def _small(image: str, side: int, blurred: bool, _changed: int) -> Thumbnail | None:
    try:
        return thumbnail(image, (side, side), quality=80, coarse=COARSE if blurred else None)
    except UnreadableImageError:
        return None

"""Open and measure the pictures of a row."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

from dfkdata.common.errors import DataError


def open_image(path: str | Path) -> Any:
    """Return the picture as RGB. Raises `DataError` that names a file which is missing or broken."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(_file(path)) as image:
            return image.convert("RGB")
    except (OSError, ValueError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError) as error:
        raise DataError(f"image {path!s:.200}: cannot be read ({error})") from error


def image_size(path: str | Path) -> tuple[int, int]:
    """Return (width, height) in pixels, read from the header alone. Raises `DataError` that names the file."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(_file(path)) as image:
            width, height = image.size
            return int(width), int(height)
    except (OSError, ValueError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError) as error:
        raise DataError(f"image {path!s:.200}: cannot be read ({error})") from error


def _file(path: str | Path) -> Any:
    """What Pillow opens: the path, or the bytes of a picture that the row carries as a data URI."""
    if not str(path).startswith("data:"):
        return path
    return io.BytesIO(base64.b64decode(str(path).partition(",")[2], validate=True))

"""Open and measure pictures: the only place where a picture becomes pixels or a size.

How it works. A picture is a path, a `data:` URI, bytes, or a Pillow image. Conversion, training, evaluation
and reports all come here, so what applies to every picture (such as its orientation) is decided in `opened`.
Pillow is imported on first use."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from dfkdata.common.errors import DataError

ImageSource = str | Path | bytes | Any
"""A path, a `data:` URI, the bytes of a picture file, or a Pillow image."""


class UnreadableImageError(DataError):
    """A picture that is missing or broken.

    Attributes:
        problem: What Pillow or the system says.
        too_large: Whether its header claims more pixels than Pillow decodes.
    """

    def __init__(self, message: str, *, problem: str = "", too_large: bool = False) -> None:
        super().__init__(message)
        self.problem, self.too_large = problem, too_large


@contextmanager
def opened(image: ImageSource) -> Iterator[Any]:
    """Open a picture as a Pillow image that decodes on demand.

    Args:
        image: A path, a `data:` URI, bytes, or a Pillow image, which is given back as it is.

    Raises:
        UnreadableImageError: If the picture cannot be opened, or cannot be decoded inside the `with` block.
    """
    from PIL import Image as Pillow
    from PIL import UnidentifiedImageError

    try:
        if isinstance(image, Pillow.Image):
            yield image
        else:
            with Pillow.open(_file(image)) as picture:
                yield picture
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Pillow.DecompressionBombError) as error:
        problem, too_large = (
            str(error) or type(error).__name__,
            isinstance(error, Pillow.DecompressionBombError),
        )
        message = f"image {_name(image)}: cannot be read ({problem})"
        raise UnreadableImageError(message, problem=problem, too_large=too_large) from error


def open_image(image: ImageSource) -> Any:
    """Return a picture as an RGB Pillow image.

    Args:
        image: A path, a `data:` URI, bytes, or a Pillow image.

    Raises:
        UnreadableImageError: If the picture is missing or broken.
    """
    with opened(image) as picture:
        return picture.convert("RGB")


def image_size(image: ImageSource) -> tuple[int, int]:
    """Return (width, height) in pixels, read from the header alone.

    Args:
        image: A path, a `data:` URI, bytes, or a Pillow image.

    Raises:
        UnreadableImageError: If the picture is missing or its header is broken.
    """
    with opened(image) as picture:
        width, height = picture.size
        return int(width), int(height)


class Thumbnail(NamedTuple):
    """A small JPEG as a `data:` URI, and its size in pixels."""

    uri: str
    width: int
    height: int


def thumbnail(image: ImageSource, box: tuple[int, int], *, quality: int) -> Thumbnail:
    """Return a picture scaled down to fit into `box` (width, height in pixels), for an HTML page.

    Raises:
        UnreadableImageError: If the picture is missing or broken.
    """
    small = open_image(image)
    small.thumbnail(box)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=quality)
    uri = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return Thumbnail(uri, small.width, small.height)


def _name(image: ImageSource) -> str:
    """Return a path, or the start of a `data:` URI, for messages."""
    if isinstance(image, str | Path):
        return f"{image!s:.200}"
    return f"{len(image)} bytes" if isinstance(image, bytes) else type(image).__name__


def _file(image: str | Path | bytes) -> Any:
    if isinstance(image, bytes):
        return io.BytesIO(image)
    if not str(image).startswith("data:"):
        return image
    return io.BytesIO(base64.b64decode(str(image).partition(",")[2], validate=True))

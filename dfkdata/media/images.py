"""Open and measure pictures: the only place where a picture becomes pixels or a size.

How it works. A picture is a path, a `data:` URI, bytes, or a Pillow image. Conversion, training, evaluation
and reports all come here, so every picture is seen in one way: turned as its orientation says (Exif or XMP),
transparency on white, 16-bit and float values scaled to 8 bit, colours as RGB. A file of several frames or
pages is refused unless the first is asked for. Colour profiles are not applied. Pillow is imported on first
use."""

from __future__ import annotations

import binascii
import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from dfkdata.common import data_uri
from dfkdata.common.errors import DataError
from dfkdata.common.files import open_regular

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


class AnimatedImageError(UnreadableImageError):
    """A file with several frames or pages, of which a model would see one."""


@contextmanager
def opened(image: ImageSource, *, first_frame: bool = False) -> Iterator[Any]:
    """Open a picture as a Pillow image that decodes on demand, with its pixels as they are in the file.

    Args:
        image: A path, a `data:` URI, bytes, or a Pillow image, which is given back as it is.
        first_frame: Whether of several frames the first is taken, instead of refusing the file.

    Raises:
        AnimatedImageError: If the file holds several frames.
        UnreadableImageError: If the picture cannot be opened, or cannot be decoded inside the `with` block.
    """
    from PIL import Image as Pillow
    from PIL import UnidentifiedImageError

    try:
        if isinstance(image, Pillow.Image):
            _check(image, image, first_frame)
            yield image
        else:
            with _file(image) as file, Pillow.open(file) as picture:
                _check(picture, image, first_frame)
                yield picture
    except (
        OSError, ValueError, SyntaxError, UnidentifiedImageError, Pillow.DecompressionBombError,
        TypeError, struct.error, EOFError, binascii.Error,
    ) as error:  # fmt: skip  # plugins of Pillow raise all of these for broken files
        problem, too_large = (
            str(error) or type(error).__name__,
            isinstance(error, Pillow.DecompressionBombError),
        )
        message = f"image {image_name(image)}: cannot be read ({problem})"
        raise UnreadableImageError(message, problem=problem, too_large=too_large) from error


_STILL = ("MPO", "PSD")
"""Formats whose first frame is the picture; the others are its previews or layers."""


def _check(picture: Any, image: ImageSource, first_frame: bool) -> None:
    """Raise `UnreadableImageError` for a picture without pixels, or of several frames if the first is not asked for."""
    if not picture.width * picture.height:
        raise ValueError(f"it has {picture.width} x {picture.height} pixels")
    if not first_frame and _frames(picture):
        problem = (
            "it holds several frames or pages; save the one that counts, or let"
            " dfkdata convert --rule IMG_ANIMATED=fix write the first"
        )
        raise AnimatedImageError(f"image {image_name(image)}: {problem}", problem=problem)


def _frames(picture: Any) -> bool:
    return picture.format not in _STILL and bool(getattr(picture, "is_animated", False))


def open_image(image: ImageSource, *, first_frame: bool = False, max_side: int | None = None) -> Any:
    """Return a picture as an RGB Pillow image, upright and on white.

    Args:
        image: A path, a `data:` URI, bytes, or a Pillow image.
        first_frame: Whether of several frames the first is taken, instead of refusing the file.
        max_side: Pixels of the longer side at most; a larger picture is scaled down (Lanczos), none up.

    Raises:
        UnreadableImageError: If the picture is missing or broken, or holds several frames.
    """
    with opened(image, first_frame=first_frame) as picture:
        flat = pixels(picture, "RGB")
    if max_side is not None:
        flat.thumbnail((max_side, max_side), _LANCZOS)
    return flat


def pixels(picture: Any, mode: str) -> Any:
    """Return an opened Pillow image in another mode ("RGB" or "L"), upright, opaque and with 8 bits."""
    turn = _TURNS.get(_orientation(picture))
    picture.load()
    if picture.format == "TIFF":  # Pillow has turned it while loading
        turn = _TURNS.get(_orientation(picture))
    flat = _on_white(_eight_bit(picture)).convert(mode)
    return flat if turn is None else flat.transpose(turn)


_LANCZOS = 1  # `PIL.Image.Resampling.LANCZOS`
_ORIENTATION = 0x0112
_TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
"""Orientation of Exif -> number of the `PIL.Image.Transpose` that undoes it."""

_NOTES = (b"eXIf", b"iTXtXML:com.adobe.xmp", b"tEXtRaw profile type exif", b"zTXtRaw profile type exif")
"""How the chunks of a PNG begin that may hold its orientation."""


def _orientation(picture: Any) -> int:
    """Return the orientation from 1 to 8; 1 if there is none, or if the notes cannot be read."""
    from PIL import Image as Pillow

    read = picture.getexif
    if picture.format == "PNG" and not _has_late_notes(picture):
        read = lambda: Pillow.Image.getexif(picture)  # noqa: E731  # PNG's own decodes all pixels first
    try:
        value = read().get(_ORIENTATION)
    except (ValueError, SyntaxError, KeyError, TypeError, struct.error, EOFError, OverflowError):
        return 1
    return value if isinstance(value, int) and value in _TURNS else 1


def _has_late_notes(picture: Any) -> bool:
    """Return whether notes of the orientation stand behind the pixels of a PNG, where Pillow has not been yet."""
    file = getattr(picture, "fp", None)
    if file is None:  # loaded, so the notes are read
        return True
    place, at, behind, late = file.tell(), 8, False, False
    while not late:
        file.seek(at)
        head = file.read(40)
        if len(head) < 12:
            break
        late = behind and head[4:].startswith(_NOTES)
        behind = behind or head[4:8] == b"IDAT"
        at += 12 + int.from_bytes(head[:4])
    file.seek(place)
    return late


def _eight_bit(picture: Any) -> Any:
    """Return a picture of 16-bit, 32-bit or float values as one of 8 bits; others as they are.

    16-bit values keep their upper byte, as readers of 16-bit colours do. Floats from 0 to 1 are scaled by
    that range, 32-bit values by that of 16 bits if they fit it; values that use the range of 8 bits stay, and
    all others are stretched from their least to their largest."""
    if picture.mode[0] not in "IF":
        return picture
    import numpy
    from PIL import Image as Pillow

    values = numpy.asarray(picture if ";" not in picture.mode else picture.convert("I"))
    if ";" in picture.mode or (picture.mode == "I" and _within(values, 256, 65535)):
        scaled = values >> 8
    elif picture.mode == "F" and _within(values, 0, 1):
        scaled = numpy.nan_to_num(values, posinf=1, neginf=0) * 255 + 0.5
    elif _within(values, 0 if picture.mode == "I" else 128, 255):
        scaled = numpy.nan_to_num(values, posinf=255, neginf=0)
    else:
        scaled = _stretched(values.astype(numpy.float64))
    flat = Pillow.fromarray(scaled.clip(0, 255).astype(numpy.uint8))
    clear = picture.info.get("transparency")
    if isinstance(clear, int) and ";" in picture.mode:
        flat.paste(255, mask=Pillow.fromarray((values == clear).astype(numpy.uint8) * 255))
    flat.info = {key: value for key, value in picture.info.items() if key != "transparency"}
    return flat


def _within(values: Any, least: float, most: float) -> bool:
    """Return whether no value is negative, and the largest lies from `least` to `most`; inf and nan aside."""
    import numpy

    finite = values[numpy.isfinite(values)]
    return bool(finite.size) and finite.min() >= 0 and least <= finite.max() <= most


def _stretched(values: Any) -> Any:
    import numpy

    finite = values[numpy.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    values = numpy.nan_to_num(values, nan=low, posinf=high, neginf=low)
    return (values - low) * (255 / (high - low) if high > low else 0.0) + 0.5


def _transparent(picture: Any) -> bool:
    palette = getattr(picture, "palette", None) if picture.mode == "P" else None
    alpha = picture.mode in ("RGBA", "LA", "PA", "La", "RGBa")
    return alpha or "transparency" in picture.info or (palette is not None and palette.mode == "RGBA")


def _on_white(picture: Any) -> Any:
    """Return a picture with its transparency laid on white, and an opaque one as it is."""
    from PIL import Image as Pillow

    if not _transparent(picture):
        return picture
    clear = picture.info.get("transparency")
    if picture.mode == "RGB" and isinstance(clear, tuple) and max(clear) > 255:  # 16-bit colours
        picture = picture.copy()
        picture.info["transparency"] = tuple(value >> 8 for value in clear)
    if picture.mode == "La":
        picture = picture.convert("LA")
    layer = picture.convert("RGBA")
    return Pillow.alpha_composite(Pillow.new("RGBA", layer.size, "white"), layer)


def image_size(image: ImageSource) -> tuple[int, int]:
    """Return (width, height) in pixels of the upright picture, from the header alone if that tells.

    Args:
        image: A path, a `data:` URI, bytes, or a Pillow image.

    Raises:
        UnreadableImageError: If the picture is missing, its header is broken, or it holds several frames.
    """
    with opened(image) as picture:
        return _upright_size(picture, _orientation(picture))


def _upright_size(picture: Any, orientation: int) -> tuple[int, int]:
    if picture.format == "TIFF":  # releases of Pillow differ in what its size is before loading
        picture.load()
        orientation = _orientation(picture)
    width, height = int(picture.width), int(picture.height)
    return (height, width) if orientation >= 5 else (width, height)


class ImageTraits(NamedTuple):
    """What a picture's header says.

    Attributes:
        width: Of the upright picture, in pixels.
        height: Of the upright picture, in pixels.
        changes: What `open_image` does to its pixels, names of `CHANGES`.
    """

    width: int
    height: int
    changes: tuple[str, ...]


CHANGES = {
    "first_frame": "first of several frames or pages taken",
    "turned": "turned as its orientation says",
    "on_white": "transparency laid on white",
    "scaled": "16-bit or float values scaled to 8 bit",
    "from_cmyk": "CMYK turned into RGB",
}
"""What opening does to pixels; palettes and grey pictures become RGB without a change of colours."""


def image_traits(image: ImageSource) -> ImageTraits:
    """Return the size of a picture and what opening it changes; of several frames, those of the first.

    Raises:
        UnreadableImageError: If the picture is missing or its header is broken.
    """
    with opened(image, first_frame=True) as picture:
        orientation = _orientation(picture)
        deep = picture.mode[0] in "IF" or any(";16" in str(tile) for tile in getattr(picture, "tile", ()))
        marks = {
            "first_frame": _frames(picture),
            "turned": orientation > 1,
            "on_white": _transparent(picture),
            "scaled": deep,
            "from_cmyk": picture.mode == "CMYK",
        }
        width, height = _upright_size(picture, orientation)
    return ImageTraits(width, height, tuple(name for name in CHANGES if marks[name]))


def png_bytes(image: ImageSource, *, first_frame: bool = False, max_side: int | None = None) -> bytes:
    """Return what `open_image` sees as the bytes of a PNG.

    Args:
        image: A path, a `data:` URI, bytes, or a Pillow image.
        first_frame: Whether of several frames the first is taken, instead of refusing the file.
        max_side: Pixels of the longer side at most.

    Raises:
        UnreadableImageError: If the picture is missing or broken, or holds several frames.
    """
    buffer = io.BytesIO()
    open_image(image, first_frame=first_frame, max_side=max_side).save(buffer, "PNG")
    return buffer.getvalue()


class Thumbnail(NamedTuple):
    """A small JPEG as a `data:` URI, and its size in pixels."""

    uri: str
    width: int
    height: int


def thumbnail(
    image: ImageSource, box: tuple[int, int], *, quality: int, coarse: int | None = None
) -> Thumbnail:
    """Return a picture scaled down to fit into `box` (width, height in pixels), for an HTML page.

    Args:
        image: The picture.
        box: Its greatest width and height.
        quality: Of the JPEG.
        coarse: Pixels of the longer side that the picture is scaled down to and up again, so that nobody is known by
            it; None keeps it sharp.

    Raises:
        UnreadableImageError: If the picture is missing or broken.
    """
    small = open_image(image)
    small.thumbnail(box)
    if coarse is not None:
        size = small.size
        small.thumbnail((coarse, coarse))
        small = small.resize(size)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=quality)
    uri = data_uri.encode(buffer.getvalue(), "image/jpeg")
    return Thumbnail(uri, small.width, small.height)


def image_name(image: ImageSource) -> str:
    """Return how messages call a picture: its path, the start of its `data:` URI, or its kind."""
    if isinstance(image, str | Path):
        return f"{image!s:.200}"
    return f"of {len(image)} bytes" if isinstance(image, bytes) else f"of type {type(image).__name__}"


def _file(image: Any) -> BinaryIO:
    """Return a picture's bytes as a file; by its name, Pillow would map a turned TIFF with its sides swapped."""
    if isinstance(image, bytes):
        return io.BytesIO(image)
    if not isinstance(image, str | Path):
        raise TypeError("a picture is a path, a data: URI, bytes or a Pillow image")
    if not data_uri.is_data_uri(str(image)):
        return open_regular(image)
    return io.BytesIO(data_uri.decode(str(image)))

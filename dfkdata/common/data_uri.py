"""Read and write `data:` URIs, in which rows embed their media: `data:image/png;base64,iVBORw0…`.

Guarantees:
- Decoding is strict: what is not whole base64 in the standard alphabet raises, and no sign is skipped.
- Nothing is decoded that would take more than `MAX_BYTES`."""

from __future__ import annotations

from base64 import b64decode, b64encode

from dfkdata.common.files import MAX_BYTES

_SCHEME = "data:"
_SHOWN = 40


class DataUriError(ValueError):
    """Say what is wrong with a `data:` URI, without its content."""


def is_data_uri(text: str) -> bool:
    """Return whether a text is a `data:` URI and not a path; the scheme may have capitals."""
    return text[: len(_SCHEME)].lower() == _SCHEME


def decode(uri: str) -> bytes:
    """Return the bytes in a `data:` URI.

    Args:
        uri: The whole URI; only `;base64` is read.

    Raises:
        DataUriError: The URI has no comma or no `;base64`, its payload is not base64, or it is too large.

    Example:
        >>> decode("data:text/plain;base64,aGk=")
        b'hi'
    """
    head, comma, payload = uri.partition(",")
    if not is_data_uri(head) or not comma:
        raise DataUriError(f"{uri[:_SHOWN]!r} is no data: URI; write data:image/png;base64,...")
    if not head.lower().rstrip().endswith(";base64"):
        raise DataUriError(f"{head[:_SHOWN]!r}: without ;base64; only data:...;base64,... is read")
    if not payload:
        raise DataUriError(f"{uri[:_SHOWN]!r}: nothing behind the comma")
    return decode_base64(payload)


def decode_base64(payload: str) -> bytes:
    """Return the bytes that a base64 text stands for.

    Raises:
        DataUriError: The text is not base64, or stands for more than `MAX_BYTES`.
    """
    size = len(payload) // 4 * 3 - payload[-2:].count("=")
    if size > MAX_BYTES:
        raise DataUriError(f"{size} bytes embedded, the limit is {MAX_BYTES}; name a file instead")
    try:
        return b64decode(payload, validate=True)
    except ValueError as error:
        raise DataUriError(f"broken base64 ({error})") from error


def encode(data: bytes, kind: str = "application/octet-stream") -> str:
    """Return bytes as a `data:` URI.

    Args:
        data: The bytes.
        kind: Their media type.
    """
    return f"{_SCHEME}{kind};base64,{b64encode(data).decode()}"

"""Mask personal data on pages: e-mail addresses, links, handles and phone numbers become marks, pictures are blurred.

How it works: `mask` is the only function that decides what personal data is. `Look(redact=True)` sends every text,
every described attribute, every value for scripts and every embedded picture of a page through this module, so no page
can forget it. Rows and runs on disk stay as they are."""

from __future__ import annotations

import html
import io
import re
from functools import lru_cache
from typing import Any

from dfkdata.common import data_uri
from dfkdata.common.errors import DataError

EMAIL, LINK, HANDLE, PHONE = "[e-mail]", "[link]", "[handle]", "[phone]"

_END = r"[^\s<>\"'`|\\)\]}]"
_EMAIL = re.compile(r"(?:mailto:)?[\w.%+-]+(?:@|\s?[\[(]at[\])]\s?)(?:[\w-]+\.)+\w{2,}", re.IGNORECASE)
_LINK = re.compile(
    rf"\b[a-z][a-z0-9+.-]{{1,20}}://{_END}+|\bwww\.{_END}+"
    r"|(?<![\w@.-])(?:[a-z0-9-]+\.)+(?:com|net|org|info|biz|(?:co|go|or|ac|web|my|sch|biz)\.id)\b(?:/" + _END + r"*)?"
    r"|(?<![\w@.-])(?:[a-z0-9-]+\.)+[a-z]{2,6}/" + _END + "+",
    re.IGNORECASE,
)  # fmt: skip
_HANDLE = re.compile(r"[@＠]\w(?:[\w.-]*\w)?|(?<![\w/])/?u/[\w-]{3,}")
_GAP = r"[ \t\u00a0().\-\u2010-\u2015/]"
_PHONE = re.compile(
    rf"(?<![\w.,])(?:\+{_GAP}?\d|\(?0\d|\(\d|62\d|\d-\d{{3}}-)(?:{_GAP}{{0,3}}\d){{5,40}}(?!\w)"
    r"|(?<![\w.,])\d{3}[-. ]\d{3}[-. ]\d{4}(?!\w)"
)
_NUMBER = re.compile(r"\d+[.,]\d+|\d+[-/.]\d\d?[-/.]\d+")  # a decimal, or a date
_DATA_IMAGE = re.compile(r"data:image/[\w.+-]+;base64,[A-Za-z0-9+/=]+")
_PIECE = re.compile(r"<[^>]*>|[^<]+")
_DESCRIBED = re.compile(r'((?:alt|title|aria-label|placeholder|value|data-[\w-]+)=")([^"]*)(")')
BLUR = 8
"""Pixels of a blurred picture's longer side before it is drawn large again; what is lost cannot be brought back."""


def mask(text: str) -> str:
    """Return a text with marks in the place of e-mail addresses, links, handles and phone numbers.

    Example:
        >>> from dfkdata.pages.redaction import mask
        >>> mask("Tanya @budi, 0812-3456-789, atau budi@contoh.id: https://contoh.id/a")
        'Tanya [handle], [phone], atau [e-mail]: [link]'
    """
    text = _LINK.sub(LINK, _EMAIL.sub(EMAIL, text))
    return _PHONE.sub(_phone, _HANDLE.sub(HANDLE, text))


def _phone(match: re.Match[str]) -> str:
    digits = sum(sign.isdigit() for sign in match[0])
    return match[0] if digits < 8 or _NUMBER.fullmatch(match[0]) else PHONE


def masked(value: Any) -> Any:
    """Return plain data with all its texts masked and its embedded pictures blurred; keys stay as they are."""
    if isinstance(value, str):
        return blurred(value) if _DATA_IMAGE.fullmatch(value) else mask(value)
    if isinstance(value, dict):
        return {key: masked(inner) for key, inner in value.items()}
    return [masked(inner) for inner in value] if isinstance(value, list | tuple) else value


def mask_html(text: str) -> str:
    """Return HTML of `Look` with its texts and described attributes masked and its pictures blurred."""
    return "".join(
        _tag(piece) if piece.startswith("<") else _escaped(html.unescape(piece))
        for piece in _PIECE.findall(text)
    )


def _escaped(text: str) -> str:
    return html.escape(mask(text))


def _tag(tag: str) -> str:
    described = _DESCRIBED.sub(lambda match: match[1] + _escaped(html.unescape(match[2])) + match[3], tag)
    return _DATA_IMAGE.sub(lambda match: blurred(match[0]), described)


@lru_cache(maxsize=512)
def blurred(uri: str) -> str:
    """Return an embedded picture of the same size that shows a few colours and nothing else."""
    from PIL import Image

    from dfkdata.media.images import open_image

    try:
        small = open_image(uri, first_frame=True)
    except DataError:
        return "data:,"  # a text in the form of a picture shows nothing
    size = small.size
    small.thumbnail((BLUR, BLUR))
    buffer = io.BytesIO()
    small.resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=60)
    return data_uri.encode(buffer.getvalue(), "image/jpeg")

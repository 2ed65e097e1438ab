"""Read the bytes of a request as a `Record`.

    {"fields": {"title": "…", "text": "…"}, "images": ["<base64>" or "data:image/png;base64,…"]}

Guarantees:
- An image is what the request itself holds; a path or an address is never followed.
- The size of an image is read from its header and checked before anything is decoded.
- Only JPEG, PNG, WebP and GIF are accepted.
- A text that holds a control token of a tokenizer is refused."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count

import msgspec

from dfkdata.common import data_uri
from dfkdata.common.errors import ConfigError, DataError
from dfkdata.media import probe
from dfkdata.media.images import open_image
from dfkdata.rows import control_tokens
from dfkdata.rows.record import Record, RowError
from dfkeval.inference.predictor import Predictor
from dfkeval.inference.serving.limits import Limits, Refusal

KINDS = ("jpeg", "png", "webp", "gif")


class RequestBody(msgspec.Struct, forbid_unknown_fields=True):
    """The JSON of a request; `image` is one more picture, before `images`."""

    fields: dict[str, str] = {}
    images: list[str] = []
    image: str | None = None


class RequestReader:
    """Read requests for one predictor."""

    def __init__(self, predictor: Predictor, limits: Limits) -> None:
        self.predictor, self.limits = predictor, limits
        self.decoder = msgspec.json.Decoder(RequestBody)
        self.numbers = count(1)

    def record(self, body: bytes) -> tuple[Record, int]:
        """Return the record that is requested, and the pixels of its pictures. Raises `Refusal`."""
        try:
            request = self.decoder.decode(body)
        except msgspec.ValidationError as error:
            raise Refusal(422, "wrong_shape", f"{error}; send {{fields, images}}") from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Refusal(400, "not_json", f"the body is not JSON in UTF-8: {error}") from error
        images = [*([request.image] if request.image is not None else []), *request.images]
        self._check(request.fields, images)
        number = str(next(self.numbers))
        pictures = [self._picture(image, place) for place, image in enumerate(images)]
        uris, pixels = tuple(uri for uri, _ in pictures), sum(size for _, size in pictures)
        if pixels > self.limits.batch_pixels:
            reason = f"{pixels} pixels in {len(uris)} images, the limit is {self.limits.batch_pixels}"
            raise Refusal(422, "img_bomb", reason)
        caption = request.fields.get("caption")
        meta = {"text": caption} if caption else {}
        record = Record(id=number, group=number, source="", fields=request.fields, images=uris, meta=meta)
        return record, pixels

    def _check(self, fields: Mapping[str, str], images: list[str]) -> None:
        try:
            self.predictor.check_fields(fields)
        except ConfigError as error:
            raise Refusal(422, "unknown_field", str(error)) from error
        if not images and not any(text.strip() for text in fields.values()):
            raise Refusal(422, "empty", "the request has neither a text nor an image")
        if len(images) > self.limits.images:
            raise Refusal(422, "too_many_images", f"{len(images)} images, the limit is {self.limits.images}")
        size = sum(map(len, fields.values()))
        if size > self.limits.characters:
            raise Refusal(422, "too_long", f"{size} characters, the limit is {self.limits.characters}")
        for name, text in fields.items():
            token = control_tokens.found(text)
            if token is not None:
                reason = f"field {name!r} says {token}, which a tokenizer obeys; write it in another way"
                raise Refusal(422, "control_token", reason)

    def _picture(self, text: str, place: int) -> tuple[str, int]:
        """Return the image as a data URI that names its real kind, and its pixels. Raises `Refusal`."""
        where = f"image {place + 1}"
        try:
            data = data_uri.decode(text) if data_uri.is_data_uri(text) else data_uri.decode_base64(text)
        except data_uri.DataUriError as error:
            reason = f"{where}: {error}; send the picture itself, not a path or an address"
            raise Refusal(422, "image_not_embedded", reason) from error
        try:
            image = probe.inspect(data)
        except RowError as error:
            raise Refusal(422, error.code.lower(), f"{where}: {error.reason}") from error
        if image.kind not in KINDS:
            raise Refusal(422, "img_kind", f"{where}: only {', '.join(KINDS)} are accepted")
        if image.width * image.height > self.limits.pixels:
            size = f"{image.width} x {image.height} pixels"
            raise Refusal(422, "img_bomb", f"{where}: {size}, the limit is {self.limits.pixels}")
        if max(image.width, image.height) > probe.MAX_ASPECT * min(image.width, image.height):
            size = f"{image.width} x {image.height} pixels"
            reason = f"{where}: {size}; one side is more than {probe.MAX_ASPECT} times the other"
            raise Refusal(422, "img_shape", reason)
        self._decode(data, where)
        return data_uri.encode(data, f"image/{image.kind}"), image.width * image.height

    def _decode(self, data: bytes, where: str) -> None:
        """Raise `Refusal` for a picture that does not decode, where a server would decode it."""
        if not self.predictor.backend.capabilities.remote:
            return  # the backend decodes it, and says so
        try:
            open_image(data)
        except DataError as error:
            raise Refusal(422, "img_unreadable", f"{where}: {error}") from error

"""Limits of a request, and the refusal of one beyond them."""

from __future__ import annotations

from pydantic import Field

from dfkdata.common.config import Config


class Limits(Config):
    """What a caller may ask for.

    Args:
        body: Bytes of a request.
        pixels: Pixels of one image, by its header.
        images: Images of a request.
        characters: Characters of a request.
        tokens: Tokens of a prompt, images included; for servers their own limit holds.
        batch_pixels: Pixels of all images of a request, and of all requests that the backend gets together.
        timeout: Seconds from a read request to its answer, which is then given up.
        upload: Seconds to send a request's head, and again its body.
        connections: Connections at once; one more is closed.
        queue: Requests that wait or are being answered.
        batch: Requests that the backend gets together.
        workers: Batches at once; more than 1 only for servers.
    """

    body: int = Field(default=16 << 20, ge=1)
    pixels: int = Field(default=40_000_000, ge=1)
    images: int = Field(default=8, ge=0)
    characters: int = Field(default=100_000, ge=1)
    tokens: int = Field(default=32_768, ge=1)
    batch_pixels: int = Field(default=160_000_000, ge=1)
    timeout: float = Field(default=60.0, gt=0)
    upload: float = Field(default=20.0, gt=0)
    connections: int = Field(default=320, ge=1)
    queue: int = Field(default=64, ge=1)
    batch: int = Field(default=8, ge=1)
    workers: int = Field(default=1, ge=1)


class Refusal(Exception):
    """A request that is not answered.

    Attributes:
        status: Status of HTTP.
        code: A stable word for programs.
        retry: Seconds after which another attempt may work; None if it will not.
    """

    def __init__(self, status: int, code: str, message: str, retry: int | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.retry = status, code, retry

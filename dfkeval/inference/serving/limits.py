"""What a caller may ask for, and how a refusal looks."""

from __future__ import annotations

from pydantic import Field

from dfkdata.common.config import Config


class Limits(Config):
    """body: bytes of a request. pixels: of one image, by its header. images, characters: of a request.
    timeout: seconds from a read request to its answer. upload: seconds to send a request's head, and again
    its body. queue: requests that wait or are being answered. batch: requests that the engine gets
    together. workers: batches at once; more than 1 only for servers."""

    body: int = Field(default=16 << 20, ge=1)
    pixels: int = Field(default=40_000_000, ge=1)
    images: int = Field(default=8, ge=0)
    characters: int = Field(default=100_000, ge=1)
    timeout: float = Field(default=60.0, gt=0)
    upload: float = Field(default=20.0, gt=0)
    queue: int = Field(default=64, ge=1)
    batch: int = Field(default=8, ge=1)
    workers: int = Field(default=1, ge=1)


class Refusal(Exception):
    """A request that is not answered. status: HTTP's. code: a stable word for programs. retry: seconds after
    which it may work."""

    def __init__(self, status: int, code: str, message: str, retry: int | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.retry = status, code, retry

"""Decode every picture whole, in a pool of processes, before its row is taken (`--deep`).

How it works: pictures are decoded while their rows wait in a window, so that order and memory stay bounded.
Decoding gives each picture's perceptual hash, too (`dfkdata.media.perceptual_hash`)."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from dfkdata.common.errors import ConfigError
from dfkdata.conversion.reader import Pair
from dfkdata.media.perceptual_hash import DecodedPicture, decode
from dfkdata.rows.record import Record, Reject, RowError

if TYPE_CHECKING:
    from concurrent.futures import Future

_WINDOW = 64

DecodedPair = tuple[Pair, tuple[int, ...]]
"""(raw row, record or reject) and the perceptual hashes of its pictures."""

_Waiting = tuple[Any, Record | Reject, "list[Future[DecodedPicture]]"]


class ImageDecodePool:
    """Decode the pictures of records that pass through, in processes."""

    def __init__(self, workers: int | None = None) -> None:
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing import get_context

        self._pool = ProcessPoolExecutor(workers or os.cpu_count(), mp_context=get_context("spawn"))

    def decode(self, pairs: Iterable[Pair]) -> Iterator[DecodedPair]:
        """Yield the pairs in order, each with the perceptual hashes of its pictures.

        A record with a picture that does not decode comes out as a reject.

        Raises:
            ConfigError: A process of the pool died.
        """
        waiting: deque[_Waiting] = deque()
        for raw, item in pairs:
            paths = item.images if isinstance(item, Record) else ()
            waiting.append((raw, item, [self._pool.submit(decode, path) for path in paths]))
            if len(waiting) > _WINDOW:
                yield self._settled(*waiting.popleft())
        while waiting:
            yield self._settled(*waiting.popleft())

    def _settled(self, raw: Any, item: Record | Reject, jobs: list[Future[DecodedPicture]]) -> DecodedPair:
        from concurrent.futures.process import BrokenProcessPool

        try:
            pictures = [job.result() for job in jobs]
        except BrokenProcessPool as error:
            hint = "a script that converts needs `if __name__ == '__main__':` around its call"
            raise ConfigError(f"deep: a process that decodes pictures died; {hint}") from error
        hashes = tuple(picture.dhash for picture in pictures)
        problem = next((picture.problem for picture in pictures if picture.problem), "")
        if problem:
            reason, hint = f"the picture does not decode: {problem}", "replace the file or leave the row out"
            damaged = RowError("IMG_UNREADABLE", reason, path="images", hint=hint)
            return (raw, damaged.reject(item.source, raw)), hashes
        return (raw, item), hashes

    def close(self) -> None:
        """End the processes."""
        self._pool.shutdown()

"""--deep: every picture is decoded whole, in a pool of processes, before its row is taken.

Pictures are decoded while rows wait in a window, so order and memory stay bounded; each gives its difference
hash on the way (`dfkdata.media.perceptual_hash`)."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from dfkdata.common.errors import ConfigError
from dfkdata.media.perceptual_hash import DecodedPicture, decode
from dfkdata.rows.record import Record, Reject, RowError

if TYPE_CHECKING:
    from concurrent.futures import Future

_WINDOW = 64


Pair = tuple[Any, Record | Reject]
_Waiting = tuple[Any, Record | Reject, "list[Future[DecodedPicture]]"]


class ImageDecodePool:
    """Decodes the pictures of records that pass through. looks: the hashes of the row that was given out
    last."""

    def __init__(self, workers: int | None = None) -> None:
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing import get_context

        self._pool = ProcessPoolExecutor(workers or os.cpu_count(), mp_context=get_context("spawn"))
        self.looks: list[int] = []

    def checked(self, pairs: Iterable[Pair]) -> Iterator[Pair]:
        """The pairs in order; a record with a picture that cannot be decoded comes out as a reject."""
        waiting: deque[_Waiting] = deque()
        for raw, item in pairs:
            paths = item.images if isinstance(item, Record) else ()
            waiting.append((raw, item, [self._pool.submit(decode, path) for path in paths]))
            if len(waiting) > _WINDOW:
                yield self._settled(*waiting.popleft())
        while waiting:
            yield self._settled(*waiting.popleft())

    def _settled(self, raw: Any, item: Record | Reject, jobs: list[Future[DecodedPicture]]) -> Pair:
        from concurrent.futures.process import BrokenProcessPool

        try:
            found = [job.result() for job in jobs]
        except BrokenProcessPool as error:
            hint = "a script that converts needs `if __name__ == '__main__':` around its call"
            raise ConfigError(f"deep: a process that decodes pictures died; {hint}") from error
        self.looks = [one.dhash for one in found]
        problem = next((one.problem for one in found if one.problem), "")
        if problem:
            hint = "replace the file or leave the row out"
            fault = RowError(
                "IMG_UNREADABLE", f"the picture does not decode: {problem}", path="images", hint=hint
            )
            return raw, fault.reject(item.source, raw)
        return raw, item

    def close(self) -> None:
        """End the processes."""
        self._pool.shutdown()

"""What takes pixels or many comparisons: decoding every picture, and near duplicates across splits.

Strategy: pictures are decoded in a pool of processes while rows wait in a window, so order and memory stay
bounded; each gives a 64-bit difference hash. Two pictures are near when their hashes differ in at most
`NEAR_BITS` bits; cut into four bands, such hashes agree in at least one, so only those are compared. Texts
are near when they share most of their three-word runs, estimated from the smallest hashes of these."""

from __future__ import annotations

import heapq
import os
from array import array
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

from dfkdata.records import Fault, Record, Reject

if TYPE_CHECKING:
    from concurrent.futures import Future

NEAR_BITS = 3
MIN_WORDS = 8
SKETCH = 16
_WINDOW = 64
_BANDS = 4


class Decoded(NamedTuple):
    """problem: why the picture could not be decoded, empty when it could. look: its difference hash."""

    problem: str
    look: int


def decode(path: str) -> Decoded:
    """Decode the whole picture at `path`."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            image.load()
            small = image.convert("L").resize((9, 8), Image.Resampling.BILINEAR)
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        return Decoded(str(error) or type(error).__name__, 0)
    cells = small.tobytes()
    rises = (cells[9 * y + x] < cells[9 * y + x + 1] for y in range(8) for x in range(8))
    return Decoded("", sum(1 << at for at, rise in enumerate(rises) if rise))


Pair = tuple[Any, Record | Reject]
_Waiting = tuple[Any, Record | Reject, "list[Future[Decoded]]"]


class Decoder:
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

    def _settled(self, raw: Any, item: Record | Reject, jobs: list[Future[Decoded]]) -> Pair:
        found = [job.result() for job in jobs]
        self.looks = [one.look for one in found]
        problem = next((one.problem for one in found if one.problem), "")
        if problem:
            hint = "replace the file or leave the row out"
            fault = Fault(
                "IMG_UNREADABLE", f"the picture does not decode: {problem}", path="images", hint=hint
            )
            return raw, fault.reject(item.source, raw)
        return raw, item

    def close(self) -> None:
        """End the processes."""
        self._pool.shutdown()


def asked(row: dict[str, Any]) -> str:
    """The texts of the user turns of a canonical row."""
    turns = (message["content"] for message in row["messages"] if message["role"] == "user")
    return "\n".join(part["text"] for parts in turns for part in parts if part["type"] == "text")


def text_look(text: str) -> tuple[int, ...]:
    """The `SKETCH` smallest hashes of a text's three-word runs, ascending; empty for a text too short to
    compare.

    Two such sketches share about as large a part as the texts share runs."""
    words = text.lower().split()
    if len(words) < MIN_WORDS:
        return ()
    runs = {" ".join(words[at : at + 3]) for at in range(len(words) - 2)}
    hashes = (int.from_bytes(sha256(run.encode("utf-8", "surrogatepass")).digest()[:8]) for run in runs)
    return tuple(heapq.nsmallest(SKETCH, hashes))


class NearTexts:
    """Sketches by side, and how many held-out texts are near a training one."""

    def __init__(self) -> None:
        self._train: dict[int, list[int]] = {}
        self._held: list[tuple[int, ...]] = []
        self._count = 0

    def add(self, look: tuple[int, ...], side: str) -> None:
        """Take the sketch of a row that was written to `side`."""
        if side != "train":
            self._held.append(look)
            return
        for one in look:
            self._train.setdefault(one, []).append(self._count)
        self._count += 1

    def across(self) -> int:
        """How many held-out sketches share three quarters with some training sketch."""
        return sum(self._is_near(look) for look in self._held)

    def _is_near(self, look: tuple[int, ...]) -> bool:
        shared = Counter(row for one in look for row in self._train.get(one, ()))
        return bool(shared) and max(shared.values()) * 4 >= len(look) * 3


class Near:
    """Hashes by side, and how many held-out ones are near a training one."""

    def __init__(self) -> None:
        self._train, self._held = array("Q"), array("Q")

    def add(self, look: int, side: str) -> None:
        """Take a hash of a row that was written to `side`."""
        (self._train if side == "train" else self._held).append(look)

    def across(self) -> int:
        """How many held-out hashes differ from some training hash in at most `NEAR_BITS` bits."""
        bands: list[dict[int, list[int]]] = [{} for _ in range(_BANDS)]
        for look in set(self._train):
            for number, band in enumerate(bands):
                band.setdefault(look >> 16 * number & 0xFFFF, []).append(look)
        return sum(self._is_near(look, bands) for look in self._held)

    @staticmethod
    def _is_near(look: int, bands: list[dict[int, list[int]]]) -> bool:
        return any(
            (look ^ other).bit_count() <= NEAR_BITS
            for number, band in enumerate(bands)
            for other in band.get(look >> 16 * number & 0xFFFF, ())
        )

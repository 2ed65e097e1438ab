"""What files of the messages layout share: rows, groups, prompts and pictures.

How it works: every row is read once and leaves a few numbers: hashes of its id, its group and its prompt, a sketch
of its text (`dfkdata.validation.text_sketch`), and the sizes of its files. Pictures, videos and audio are hashed
only if a file of the same size stands on the other side; pictures are compared by their looks, too, if there are
few. What most prompts have in common, such as an instruction, tells no two of them apart and is left out.

Guarantees:
    - Memory grows by about a hundred bytes a row and the paths of its files, whatever the rows hold.
    - A row that is shared by its id is not counted a second time by its group, prompt or pictures."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from dfkdata import schemas
from dfkdata.common import data_uri
from dfkdata.common.errors import ConfigError
from dfkdata.common.hashing import file_sha256, number_of
from dfkdata.media.perceptual_hash import decode, near_pairs
from dfkdata.rows.messages import load_rows
from dfkdata.validation.leakage import QUESTION
from dfkdata.validation.text_sketch import common_shingles, near, sketches

if TYPE_CHECKING:
    from numpy.typing import NDArray

KINDS = ("ids", "groups", "prompts", "pictures", "media")
"""What rows can share, the clearest first."""

SAYS = {
    "ids": "are training rows, by their ids",
    "groups": "are of groups that training has",
    "prompts": "ask what training rows ask, or nearly so",
    "pictures": "show pictures that training shows, or that look like them",
    "media": "have videos or audio that training has",
}
"""Kind -> what rows do that share it, for people."""

LOOKED = 1_000
"""Pictures that are compared by their looks; of more, only those with equal bytes are found."""

_SAMPLE = 1_000  # texts of each file that tell what its prompts have in common
_BLOCK = 512
_MAX_CHARS = 16_384
_THREADS = 8


@dataclass(frozen=True)
class RowFile:
    """A file whose rows are compared.

    Attributes:
        path: A file of the messages layout.
        limit: Only so many of its rows, from the first; None for all.
        read: Yields its rows, with absolute paths, where they are not simply the rows of `path`.
    """

    path: str
    limit: int | None = None
    read: Callable[[], Iterator[dict[str, Any]]] | None = None


@dataclass(frozen=True)
class SharedRow:
    """A held-out row and a training row that is like it.

    Attributes:
        held, train: (number of the file, id of the row).
    """

    held: tuple[int, str]
    train: tuple[int, str]


@dataclass(frozen=True)
class Overlap:
    """What held-out files share with training files.

    Attributes:
        counts: One of `KINDS` -> number of held-out rows; kinds that nothing shares are left out.
        examples: One of `KINDS` -> the first such row.
        looked: Whether pictures were compared by their looks, too.
    """

    counts: dict[str, int]
    examples: dict[str, SharedRow]
    looked: bool


class RowIndex:
    """Hold what is needed to compare the rows of several files."""

    def __init__(self, files: Sequence[RowFile]) -> None:
        """Read the files; a file's number is its place in `files`.

        Raises:
            DataError: A file cannot be read, or holds something else than rows.
        """
        import numpy

        self._files = files
        self._ids, self._groups, self._prompts = array("Q"), array("Q"), array("Q")
        self._media, self._pictures = _Files(), _Files()
        counts = []
        self._folder = TemporaryDirectory(prefix="dfk-overlap-")
        self._sketches = Path(self._folder.name) / "sketches"
        common = [common_shingles([*_texts(_rows(file), _SAMPLE)]) for file in files]
        self._common = numpy.unique(numpy.concatenate([*common, numpy.zeros(0, numpy.uint32)]))
        with self._sketches.open("wb") as out:
            for file in files:
                before = len(self._ids)
                self._read(file, out)
                counts.append(len(self._ids) - before)
        self.rows = counts
        self._starts = numpy.cumsum([0, *counts])

    def __enter__(self) -> RowIndex:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def _read(self, file: RowFile, out: Any) -> None:
        waiting: list[str] = []
        for row in _rows(file):
            name, text = str(row["id"]), _text(row)
            group = str(_meta(row).get("group") or "")  # a row that stands alone is its own group
            asks = "" if _files_of(row) else _user_text(row).strip()
            number = len(self._ids)
            self._ids.append(number_of(name))
            self._groups.append(number_of(group) if group else 0)
            self._prompts.append(number_of(asks) if asks else 0)
            for picture in row["images"]:
                self._pictures.add(number, picture)
            for path in (*(row.get("videos") or ()), *(row.get("audios") or ())):
                self._media.add(number, path)
            waiting.append(text[:_MAX_CHARS])
            if len(waiting) == _BLOCK:
                out.write(sketches(waiting, self._common).tobytes())
                waiting.clear()
        if waiting:
            out.write(sketches(waiting, self._common).tobytes())

    def compare(self, held: Iterable[int], train: Iterable[int]) -> Overlap:
        """Return what held-out files share with training files.

        Args:
            held: Numbers of the held-out files.
            train: Numbers of the training files.
        """
        pairs, looked = self.pairs(held, train)
        counts = {kind: len(pairs[kind]) for kind in KINDS if pairs[kind]}
        examples = {kind: self._example(*min(pairs[kind].items())) for kind in counts}
        return Overlap(counts, examples, looked)

    def pairs(self, held: Iterable[int], train: Iterable[int]) -> tuple[dict[str, dict[int, int]], bool]:
        """Return which rows are alike, and whether pictures were compared by their looks, too.

        Args:
            held: Numbers of the files whose rows are looked up.
            train: Numbers of the files among whose rows they are looked up.

        Returns:
            One of `KINDS` -> row of the first files -> row of the others; rows are numbered through all files, from 0.
        """
        import numpy

        is_held, is_train = self._mask(held), self._mask(train)
        pairs: dict[str, dict[int, int]] = {}
        pairs["ids"] = _equal(numpy.frombuffer(self._ids, numpy.uint64), is_held, is_train)
        is_held[[*pairs["ids"]]] = False
        pairs["groups"] = _equal(numpy.frombuffer(self._groups, numpy.uint64), is_held, is_train)
        asked = _equal(numpy.frombuffer(self._prompts, numpy.uint64), is_held, is_train)
        alike = near(self._sketches, is_train, is_held).pairs
        pairs["prompts"] = dict(alike) | asked
        looks, looked = self._pictures.alike(is_held, is_train)
        pairs["pictures"] = looks | self._pictures.equal(is_held, is_train)
        pairs["media"] = self._media.equal(is_held, is_train)
        return pairs, looked

    def _mask(self, files: Iterable[int]) -> NDArray[Any]:
        import numpy

        mask = numpy.zeros(len(self._ids), bool)
        for file in files:
            mask[self._starts[file] : self._starts[file + 1]] = True
        return mask

    def _example(self, held: int, train: int) -> SharedRow:
        return SharedRow(self._place(held), self._place(train))

    def _place(self, row: int) -> tuple[int, str]:
        import numpy

        file = int(numpy.searchsorted(self._starts, row, "right")) - 1
        found = next(islice(_rows(self._files[file]), row - int(self._starts[file]), None))
        return file, str(found["id"])


class _Files:
    """Hold the files that rows show: their sizes, and their hashes as far as they are needed."""

    def __init__(self) -> None:
        self._rows, self._sizes, self._hashes = array("Q"), array("q"), array("Q")
        self._paths: list[str] = []

    def add(self, row: int, path: str) -> None:
        """Take a path or a `data:` URI of a row; a file that is not there is left out."""
        known, name = 0, path
        if data_uri.is_data_uri(path):
            data = _embedded(path)
            size, known, name = len(data), number_of(data), ""
        else:
            try:
                size = Path(path).stat().st_size
            except OSError:
                return
        self._rows.append(row)
        self._sizes.append(size)
        self._hashes.append(known)
        self._paths.append(name)

    def equal(self, held: NDArray[Any], train: NDArray[Any]) -> dict[int, int]:
        """Return held-out row -> training row with a file of the same bytes."""
        import numpy

        rows, held, train = self._sides(held, train)
        sizes = numpy.frombuffer(self._sizes, numpy.int64)
        both = numpy.isin(sizes, numpy.intersect1d(sizes[held], sizes[train]))
        self._hash([int(at) for at in numpy.flatnonzero(both & (held | train))])
        hashes = numpy.where(both, numpy.frombuffer(self._hashes, numpy.uint64), 0)
        pairs = _equal(hashes, held, train)
        return {int(rows[one]): int(rows[other]) for one, other in sorted(pairs.items(), reverse=True)}

    def alike(self, held: NDArray[Any], train: NDArray[Any]) -> tuple[dict[int, int], bool]:
        """Return held-out row -> training row with a picture that looks the same, and whether they were looked at."""
        import numpy

        rows, held, train = self._sides(held, train)
        if not held.any() or not train.any():
            return {}, True
        places = [int(at) for at in numpy.flatnonzero(held | train) if self._paths[at]]
        if len(places) > LOOKED:
            return {}, False
        paths = list(dict.fromkeys(self._paths[at] for at in places))
        with ThreadPoolExecutor(_THREADS) as pool:
            looks = dict(zip(paths, pool.map(_look, paths), strict=True))
        hashed = [(looks[self._paths[at]], int(rows[at]), bool(held[at])) for at in places]
        pairs = near_pairs(
            [(look, row) for look, row, is_held in hashed if is_held],
            [(look, row) for look, row, is_held in hashed if not is_held],
        )
        return dict(reversed(pairs)), True

    def _sides(
        self, held: NDArray[Any], train: NDArray[Any]
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Return the row of each file, and whether it stands on either side."""
        import numpy

        rows = numpy.frombuffer(self._rows, numpy.uint64).astype(numpy.int64)
        return rows, held[rows], train[rows]

    def _hash(self, places: list[int]) -> None:
        missing = [at for at in places if not self._hashes[at]]
        paths = list(dict.fromkeys(self._paths[at] for at in missing))
        with ThreadPoolExecutor(_THREADS) as pool:
            known = dict(zip(paths, pool.map(_file_number, paths), strict=True))
        for at in missing:
            self._hashes[at] = known[self._paths[at]]


def _look(path: str) -> int:
    return decode(path, whole=False).dhash


def _file_number(path: str) -> int:
    """Return 64 bits of a file's hash; 0 if it cannot be read."""
    try:
        return int(file_sha256(path)[:16], 16)
    except OSError:
        return 0


def _embedded(uri: str) -> bytes:
    """Return the bytes of a `data:` URI; its text if it is damaged."""
    try:
        return data_uri.decode(uri)
    except data_uri.DataUriError:
        return uri.encode()


def _equal(numbers: NDArray[Any], held: NDArray[Any], train: NDArray[Any]) -> dict[int, int]:
    """Return held-out row -> first training row with the same number; 0 stands for none."""
    import numpy

    at_train = numpy.flatnonzero(train & (numbers != 0))
    at_held = numpy.flatnonzero(held & (numbers != 0))
    if not len(at_train) or not len(at_held):
        return {}
    values, first = numpy.unique(numbers[at_train], return_index=True)
    places = numpy.minimum(numpy.searchsorted(values, numbers[at_held]), len(values) - 1)
    found = values[places] == numbers[at_held]
    return dict(zip(at_held[found].tolist(), at_train[first[places[found]]].tolist(), strict=True))


def _rows(file: RowFile) -> Iterator[dict[str, Any]]:
    return islice(file.read() if file.read is not None else load_rows(file.path), file.limit)


def _texts(rows: Iterable[dict[str, Any]], count: int) -> list[str]:
    return [text[:_MAX_CHARS] for row in islice(rows, count) if (text := _text(row))]


def _files_of(row: dict[str, Any]) -> bool:
    return bool(row["images"] or row.get("videos") or row.get("audios"))


def _user_text(row: dict[str, Any]) -> str:
    """Return the texts of the user's turns."""
    contents = (turn.get("content") for turn in row["messages"] if turn["role"] == "user")
    parts = (
        part for content in contents for part in ([content] if isinstance(content, str) else content or ())
    )
    return "\n".join(part if isinstance(part, str) else str(part.get("text") or "") for part in parts)


def _text(row: dict[str, Any]) -> str:
    """Return the text that tells the row from others; empty if only its files do."""
    return _user_text(row) if not _files_of(row) or _fields(_meta(row)) - QUESTION else ""


def _meta(row: dict[str, Any]) -> dict[str, Any]:
    meta = row.get("meta")
    return meta if isinstance(meta, dict) else {}


def _fields(meta: dict[str, Any]) -> frozenset[str]:
    name, variant = meta.get("schema"), meta.get("variant")
    if not isinstance(name, str) or "." in name:
        return frozenset()
    return _fields_of(name, variant if isinstance(variant, str) else None)


@lru_cache(maxsize=64)
def _fields_of(name: str, variant: str | None) -> frozenset[str]:
    """Return the fields that a schema asks about; empty for one that does not ship with this package."""
    try:
        return frozenset(schemas.load(name, variant).prompt.fields)
    except ConfigError:
        return frozenset()

"""Find posts that rows give two labels, and every row of such a post, in whatever order the rows come.

How it works: each row leaves three hashes (of what it asks, of its post, of its labels), its number and its
place, 40 bytes together. They are sorted once, when all rows are known."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from dfkdata.common.hashing import number_of
from dfkdata.rows.messages import before_answer
from dfkdata.rows.record import Record, RowError
from dfkdata.validation.places import PlaceList

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FEW = 100_000
_HOW = ("asks the same", "is of the same post")


class PostKeys(NamedTuple):
    """What tells the post and the labels of a row.

    Attributes:
        asks: Over its prompt and its pictures.
        post: Over its group; 0 for a row that stands alone.
        labels: Over its labels.
    """

    asks: int
    post: int
    labels: int


def post_keys(
    row: dict[str, Any], record: Record, pictures: Sequence[bytes] | None, names: Sequence[str]
) -> PostKeys | None:
    """Return the keys of a finished row; None for a row without labels.

    Args:
        row: The row in the messages layout.
        record: The record behind it.
        pictures: What identifies its files; None without files.
        names: The label fields of the schema.
    """
    gold = record.gold or {}
    labels = {name: gold[name] for name in names if name in gold}
    if not labels:
        return None
    asks = b"".join((msgspec.json.encode(before_answer(row["messages"])), *(pictures or ())))
    is_alone = not record.group or record.group == record.id
    post = 0 if is_alone else number_of("\x1f" + record.group)
    return PostKeys(number_of(asks), post, number_of(msgspec.json.encode(labels)))


class Contradictions:
    """Hold the posts that have two labels, in 32 bytes each, and say of a row whether it is of one."""

    def __init__(
        self, keys: NDArray[Any], labels: NDArray[Any], rows: NDArray[Any], places: PlaceList
    ) -> None:
        """Take the posts.

        Args:
            keys: The key of each post, sorted.
            labels: The labels of its first row.
            rows: Numbers in `places` of its first row and of its first row with other labels.
            places: "file:line" of rows.
        """
        self._keys, self._labels, self._rows, self._places = keys, labels, rows, places

    def error(self, keys: PostKeys, path: str) -> RowError | None:
        """Return what is wrong with a row; None if its post has one label.

        Args:
            keys: The keys of the row.
            path: The label field.
        """
        import numpy

        for how, key in zip(_HOW, (keys.asks, keys.post), strict=True):
            at = int(numpy.searchsorted(self._keys, numpy.uint64(key)))
            if at == len(self._keys) or int(self._keys[at]) != key:
                continue
            partner = self._places[int(self._rows[int(keys.labels == self._labels[at]), at])]
            reason = f"another row {how} and has another label"
            return RowError(
                "TWO_LABELS", reason, path=path, hint="decide which label is right", partner=partner
            )
        return None

    def holds(self, keys: NDArray[Any]) -> NDArray[Any]:
        """Return of each key whether its post has two labels."""
        import numpy

        return numpy.isin(keys, self._keys)


class PostLabels:
    """Remember the post and the labels of each row that is written."""

    def __init__(self) -> None:
        self._asks, self._posts, self._labels = array("Q"), array("Q"), array("Q")
        self._rows, self._places = array("Q"), PlaceList()

    def add(self, row: int, place: str, keys: PostKeys) -> None:
        """Take a row.

        Args:
            row: Its number among the rows that are written.
            place: "file:line" of its raw row.
            keys: What `post_keys` says.
        """
        self._asks.append(keys.asks)
        self._posts.append(keys.post)
        self._labels.append(keys.labels)
        self._rows.append(row)
        self._places.append(place)

    def contradictions(self, gone: NDArray[Any] | None = None) -> Contradictions:
        """Return the posts that have two labels.

        Args:
            gone: Of each row that was written, whether it left its file again; None if none did.
        """
        import numpy

        rows = self._left(gone)
        posts = _numbers(self._posts)[rows]
        keys = numpy.concatenate((_numbers(self._asks)[rows], posts[posts != 0]))
        rows = numpy.concatenate((rows, rows[posts != 0]))
        order = numpy.argsort(keys, kind="stable")  # of one post, the rows in their order
        keys, rows = keys[order], rows[order]
        labels = _numbers(self._labels)[rows]
        is_first = numpy.ones(len(keys), bool)
        is_first[1:] = keys[1:] != keys[:-1]
        starts = numpy.flatnonzero(is_first)
        post = numpy.cumsum(is_first) - 1
        others = numpy.flatnonzero(labels != labels[starts][post]) if len(keys) else starts
        contradicted, at = numpy.unique(post[others], return_index=True)
        starts, others = starts[contradicted], others[at]
        return Contradictions(
            keys[starts], labels[starts], numpy.stack((rows[starts], rows[others])), self._places
        )

    def contradicted(self, path: str, gone: NDArray[Any] | None = None) -> Iterator[tuple[str, RowError]]:
        """Yield the place of each row whose post has two labels, and what is wrong with it.

        Args:
            path: The label field.
            gone: As in `contradictions`.
        """
        if not self._may_contradict():
            return
        import numpy

        found = self.contradictions(gone)
        rows = self._left(gone)
        is_told = found.holds(_numbers(self._asks)[rows]) | found.holds(_numbers(self._posts)[rows])
        for row in map(int, rows[numpy.flatnonzero(is_told)]):
            keys = PostKeys(self._asks[row], self._posts[row], self._labels[row])
            error = found.error(keys, path)
            if error is not None:
                yield self._places[row], error

    def _may_contradict(self) -> bool:
        """Return False if a look without numpy, which takes long to import, shows that no post has two labels."""
        if len(self._rows) > _FEW:
            return True
        labels = dict[int, int]()
        for keys in (self._asks, self._posts):
            for key, label in zip(keys, self._labels, strict=True):
                if key and labels.setdefault(key, label) != label:
                    return True
        return False

    def _left(self, gone: NDArray[Any] | None) -> NDArray[Any]:
        """Return the numbers of the entries whose rows are still there."""
        import numpy

        return (
            numpy.arange(len(self._rows)) if gone is None else numpy.flatnonzero(~gone[_numbers(self._rows)])
        )


def _numbers(values: array[int]) -> NDArray[Any]:
    import numpy

    return numpy.frombuffer(values, numpy.uint64) if values else numpy.zeros(0, numpy.uint64)

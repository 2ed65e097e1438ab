"""Columns of the index of samples: numbers of rows by which a page's browser lists, filters and sorts."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

from dfkdata.schemas import Label
from dfkeval.reports.formatting import agrees
from dfkeval.types import NOT_ANSWERED, OUTCOMES, Sample

SLICES = 30
"""Most values of a fact by which rows can be filtered."""
MOST_FACTS = 100
"""Most facts by which rows can be filtered."""
PICTURES = "pictures"


class AnswerColumns:
    """What lists and filters need of one run's answers.

    Args:
        scores: The value that rows are sorted by, for each sample of the run.
    """

    def __init__(self, scores: Sequence[float | None]) -> None:
        self._scores, self._codes = scores, {code: at for at, code in enumerate(OUTCOMES)}
        self._kinds, self._outcomes, self._right, self._labels = (array("i") for _ in range(4))
        self._sure, self._shown_scores = list[float | None](), list[float | None]()

    def add(
        self,
        sample: Sample | None,
        place: int,
        kind: int,
        label: tuple[str, Label] | None,
        classes: Sequence[str],
    ) -> None:
        """Add the answer to one row.

        Args:
            sample: The answer; None if the run has none.
            place: Its place in the run.
            kind: A number that equal answers to the row share.
            label: The field that is a label, with its role; None if there is none.
            classes: The canonical labels.
        """
        self._kinds.append(kind)
        self._outcomes.append(-1 if sample is None else self._codes[sample.outcome])
        self._right.append(2 if sample is None else _right(sample))
        self._labels.append(_answered(sample, label, classes))
        self._sure.append(None if sample is None else rounded(sample.confidence))
        self._shown_scores.append(None if sample is None else self._scores[place])

    def by_name(self) -> dict[str, list[Any]]:
        """Return the columns by their names on the page."""
        return {
            "kind": list(self._kinds),
            "outcome": list(self._outcomes),
            "right": list(self._right),
            "label": list(self._labels),
            "sure": self._sure,
            "score": self._shown_scores,
        }


def rounded(value: float | None) -> float | None:
    """Return a number with four digits; None for what is no number."""
    return None if value is None or not math.isfinite(value) else round(value, 4)


def _right(sample: Sample) -> int:
    """Return 1 for a right answer, 0 for a wrong one, 2 if that cannot be said."""
    verdict = agrees(sample)
    return 2 if verdict is None else int(verdict)


def _answered(sample: Sample | None, label: tuple[str, Label] | None, classes: Sequence[str]) -> int:
    """Return the number of the answered class; that of "unparsed" if there is none, -1 for no answer at all."""
    if sample is None or sample.outcome in NOT_ANSWERED or label is None:
        return -1
    found = place_of(class_of(sample.value, label), classes)
    return len(classes) if found < 0 else found


def class_of(value: Mapping[str, Any] | None, label: tuple[str, Label] | None) -> str | None:
    """Return the canonical label of an answer; None for none, or one outside the set."""
    if value is None or label is None or not isinstance(value.get(label[0]), str):
        return None
    resolved = label[1].labels.resolve(value[label[0]])
    return None if resolved is None else resolved.label


def place_of(name: str | None, classes: Sequence[str]) -> int:
    """Return the number of a class, -1 for none of them."""
    return classes.index(name) if name in classes else -1


class FactColumns:
    """The facts of rows that tell them apart: those with 2 to `SLICES` values, the first `MOST_FACTS` of them."""

    def __init__(self) -> None:
        self._rows = 0
        self._columns: dict[str, _FactColumn] = {}
        self._refused = set[str]()
        self._pictures = _FactColumn(0)
        self._shows_pictures = set[bool]()

    def add(self, sample: Sample) -> None:
        """Add the facts of a row."""
        for name in sample.slices:
            if name not in self._columns and name not in self._refused:
                if len(self._columns) < MOST_FACTS:
                    self._columns[name] = _FactColumn(self._rows)
                else:
                    self._refused.add(name)
        for name, column in list(self._columns.items()):
            if not column.add(sample.slices.get(name, "")):
                del self._columns[name]
                self._refused.add(name)
        self._pictures.add(str(len(sample.images)))
        self._shows_pictures.add(bool(sample.images))
        self._rows += 1

    def slices(self) -> dict[str, dict[str, Any]]:
        """Return name -> its values, and the value of each row."""
        columns = dict(self._columns)
        if len(self._shows_pictures) > 1:
            columns[PICTURES] = self._pictures
        slices = {name: column.slice() for name, column in columns.items()}
        return {name: values for name, values in slices.items() if values is not None}


class _FactColumn:
    """One fact of all rows, until it has too many values."""

    def __init__(self, rows: int) -> None:
        self._values: dict[str, int] = {"": 0} if rows else {}
        self._rows = array("i", [0]) * rows

    def add(self, value: str) -> bool:
        """Add the value of a row, and return whether there are still few."""
        if len(self._values) <= SLICES:
            self._rows.append(self._values.setdefault(value, len(self._values)))
        return len(self._values) <= SLICES

    def slice(self) -> dict[str, Any] | None:
        if not 2 <= len(self._values) <= SLICES:
            return None
        names = sorted(self._values)
        order = {self._values[name]: place for place, name in enumerate(names)}
        return {"values": names, "rows": [order[value] for value in self._rows]}

"""A closed set of classes, and the spellings that mean each of them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import NamedTuple

from dfkdata.common.unicode_forms import normalize


class Resolved(NamedTuple):
    """The class that a text names.

    Attributes:
        label: The canonical class.
        alias: The spelling that was mapped to it; None if the text was canonical.
    """

    label: str
    alias: str | None


@dataclass(frozen=True)
class LabelSet:
    """A closed set of classes.

    Args:
        canonical: The classes, in the order of reports.
        aliases: Other spellings, in lower case, each with its class.
        own: Spellings that a user maps; they count before all others.

    Example:
        >>> from dfkdata.schemas import LabelSet
        >>> tones = LabelSet(("calm", "angry"), {"furious": "angry"})
        >>> tones.resolve("Furious.")
        Resolved(label='angry', alias='furious')
    """

    canonical: tuple[str, ...]
    aliases: dict[str, str] = field(default_factory=dict, hash=False)
    own: dict[str, str] = field(default_factory=dict, hash=False)

    def resolve(self, text: str) -> Resolved | None:
        """Return the class that `text` names, or None.

        Case, hyphens, underscores, blanks of every kind, invisible characters and a full stop do not count. Nor
        does it count whether anything stands between words, unless two classes differ by nothing else."""
        folded = text.strip().removesuffix(".").strip().lower()
        if self._own and (label := self._own.get(own_key(text))):
            return Resolved(label, None if label == folded else folded)
        if folded in self.canonical:
            return Resolved(folded, None)
        joined = _join(text)
        label = (
            self.aliases.get(folded)
            or self._folded.get(fold_spelling(text))
            or self._own_joined.get(joined)
            or self._joined.get(joined)
        )
        return Resolved(label, folded) if label else None

    def with_own(self, own: Mapping[str, str]) -> LabelSet:
        """Return this set with spellings of a user, each with a class that this set has."""
        return replace(self, own={**self.own, **own})

    @property
    def spellings(self) -> list[str]:
        """Return every spelling that resolves, canonical ones first."""
        return [*self.canonical, *self.aliases, *self.own]

    @cached_property
    def _folded(self) -> dict[str, str]:
        return _by_fold([*((name, name) for name in self.canonical), *self.aliases.items()])

    @cached_property
    def _joined(self) -> dict[str, str]:
        return _by_fold([*((name, name) for name in self.canonical), *self.aliases.items()], _join)

    @cached_property
    def _own_joined(self) -> dict[str, str]:
        return _by_fold(self.own.items(), _join)

    @cached_property
    def _own(self) -> dict[str, str]:
        return {own_key(name): label for name, label in self.own.items()}


def own_key(spelling: str) -> str:
    """Return what a user's own spelling is known by: tables write the class index 3 as "3.0", too.

    Example:
        >>> from dfkdata.schemas import own_key
        >>> own_key("3.0"), own_key("-1"), own_key("Ujaran-Kebencian")
        ('3', '-1', 'ujaran kebencian')
    """
    folded = fold_spelling(spelling)
    return folded.removesuffix(".0") if _WHOLE.fullmatch(folded) else folded


@lru_cache(maxsize=1024)  # a data set has few spellings
def fold_spelling(text: str) -> str:
    """Return a spelling without what does not count: case, hyphens, blanks, invisible signs, a full stop.

    The sign of a negative number counts: -1 is another class index than 1.

    Example:
        >>> from dfkdata.schemas._labels import fold_spelling
        >>> fold_spelling(" Ujaran\u00a0\u200bKEBENCIAN. ") == fold_spelling("ujaran-kebencian")
        True
    """
    if not text.isascii():
        text = normalize("NFKC", text)
        text = "".join(sign for sign in text if unicodedata.category(sign) != "Cf")
    text = text.strip().removesuffix(".").casefold()
    sign = "-" if _NEGATIVE.match(text) else ""
    return sign + _BETWEEN.sub(" ", text).strip()


_BETWEEN = re.compile(r"[\s_\-\u2010-\u2015\u2212]+")
_NEGATIVE = re.compile(r"[-\u2010-\u2012\u2212]\d")
_WHOLE = re.compile(r"-?\d+\.0")


def _by_fold(pairs: Iterable[tuple[str, str]], fold: Callable[[str], str] = fold_spelling) -> dict[str, str]:
    """Return folded spelling -> class; a fold that means two classes is left out."""
    labels: dict[str, set[str]] = {}
    for spelling, label in pairs:
        labels.setdefault(fold(spelling), set()).add(label)
    return {folded: names.pop() for folded, names in labels.items() if len(names) == 1}


def _join(spelling: str) -> str:
    """Return a folded spelling without what stands between its words; numbers stay, 1 0 is not the index 10."""
    folded = fold_spelling(spelling)
    joined = folded.replace(" ", "")
    return folded if joined.replace(".", "").removeprefix("-").isnumeric() else joined

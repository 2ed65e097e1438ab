"""The one label table: canonical classes, their aliases, and two views of the DFK labels.

Training targets, checks, decoding and metrics all resolve labels here, so they cannot drift apart.
The aliases are the union of the spellings that published DFK loaders and evaluators map, each to the class
they give."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


class Resolved(NamedTuple):
    """`label`: the canonical class. `alias`: the spelling that was mapped, None when the text was
    canonical."""

    label: str
    alias: str | None


@dataclass(frozen=True)
class LabelSet:
    """`canonical`: the classes in report order. `aliases`: other spelling (folded) -> class."""

    canonical: tuple[str, ...]
    aliases: dict[str, str] = field(default_factory=dict, hash=False)

    def resolve(self, text: str) -> Resolved | None:
        """The class that `text` names, or None. Case, outer blanks and one final full stop do not matter."""
        folded = text.strip().removesuffix(".").strip().lower()
        if folded in self.canonical:
            return Resolved(folded, None)
        if folded in self.aliases:
            return Resolved(self.aliases[folded], folded)
        return None

    @property
    def spellings(self) -> list[str]:
        """Every spelling that resolves, canonical first."""
        return [*self.canonical, *self.aliases]

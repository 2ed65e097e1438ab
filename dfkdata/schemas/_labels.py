"""A closed set of classes, and the spellings that mean each of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


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

    Example:
        >>> from dfkdata.schemas import LabelSet
        >>> tones = LabelSet(("calm", "angry"), {"furious": "angry"})
        >>> tones.resolve("Furious.")
        Resolved(label='angry', alias='furious')
    """

    canonical: tuple[str, ...]
    aliases: dict[str, str] = field(default_factory=dict, hash=False)

    def resolve(self, text: str) -> Resolved | None:
        """Return the class that `text` names, or None; case, outer blanks and a full stop do not count."""
        folded = text.strip().removesuffix(".").strip().lower()
        if folded in self.canonical:
            return Resolved(folded, None)
        if folded in self.aliases:
            return Resolved(self.aliases[folded], folded)
        return None

    @property
    def spellings(self) -> list[str]:
        """Return every spelling that resolves, canonical ones first."""
        return [*self.canonical, *self.aliases]

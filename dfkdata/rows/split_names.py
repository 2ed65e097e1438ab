"""What sources call their splits, and our three names for them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from dfkdata.common.errors import ConfigError

SPLITS = ("train", "validation", "test")
NAMES = {
    **{name: name for name in SPLITS},
    **dict.fromkeys(("training", "latih"), "train"),
    **dict.fromkeys(("val", "valid", "dev", "development", "eval", "evaluation", "restval"), "validation"),
    **dict.fromkeys(("testing", "uji"), "test"),
}
"""What sources call their splits -> our name. Karpathy's caption splits call some training rows `restval`."""


def fold(name: str) -> str | None:
    """Return our name for a source's split; case and blanks around it do not count.

    Example:
        >>> from dfkdata.rows.split_names import fold
        >>> fold("Valid"), fold(" dev"), fold("kaggle")
        ('validation', 'validation', None)
    """
    return NAMES.get(name.strip().lower())


def split_in(path: str) -> str | None:
    """Return our name for the split that a path names: its first folder or file with such a word.

    Example:
        >>> from dfkdata.rows.split_names import split_in
        >>> split_in("captions_val2017.json"), split_in("Train-1/cats/a.jpg"), split_in("a/training.md.txt")
        ('validation', 'train', 'train')
    """
    word = split_word(path)
    return NAMES[word] if word else None


def split_word(path: str) -> str:
    """Return the word by which a path names a split; empty if it names none."""
    words = (word for step in path.lower().split("/") for word in _BETWEEN.split(step))
    return next((word for word in words if word in NAMES), "")


_BETWEEN = re.compile(r"[-._ 0-9]+")


def folded(names: Iterable[str], where: str) -> dict[str, str]:
    """Return source's name -> our name for the splits of one input.

    Args:
        names: The source's names.
        where: The input, for messages.

    Raises:
        ConfigError: A name is no known split, or two of them mean one split.

    Example:
        >>> from dfkdata.rows.split_names import folded
        >>> folded(["Train", "dev"], "the data set")
        {'Train': 'train', 'dev': 'validation'}
    """
    found: dict[str, str] = {}
    for name in names:
        split = fold(name)
        if split is None:
            known = ", ".join(sorted(NAMES))
            raise ConfigError(f"{where}: the split {name!r} is none of {known}; rename it, or give one split")
        other = next((one for one, meant in found.items() if meant == split), None)
        if other is not None:
            way = "join or rename them, or give one split"
            raise ConfigError(f"{where}: the splits {other!r} and {name!r} both mean {split}; {way}")
        found[name] = split
    return found

"""Words of a text, and when two words are the same word: shared by `grounding` and `coverage`.

Unlike plain substring search, "cat" is not found in "concatenate"; unlike cutting a final s, "horses" meets
"horse"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")

#: Words that carry no content: English for captions, Indonesian for posts.
STOP = frozenset(
    (
        "a an the and or but of in on at to for with from by as is are was were be been being it its this "
        "that these those there here his her their he she they them we you i has have had do does did not "
        "no yang dan atau di ke dari untuk dengan pada ini itu adalah ada para oleh sebuah seorang"
    ).split()
)
_IRREGULAR = {
    "men": "man", "women": "woman", "children": "child", "people": "person", "feet": "foot",
    "teeth": "tooth", "mice": "mouse", "geese": "goose", "leaves": "leaf", "knives": "knife",
    "wolves": "wolf", "shelves": "shelf",
}  # fmt: skip


def words(text: str) -> list[str]:
    """Lower-case words in order; any script that separates words."""
    return [word.removesuffix("'s").removesuffix("’s") for word in _WORD.findall(text.lower())]


def content(text: str) -> list[str]:
    """Words that carry content; all words where there are only stop words ("it")."""
    found = words(text)
    return [word for word in found if word not in STOP] or found


@lru_cache(maxsize=65536)
def forms(word: str) -> frozenset[str]:
    """The word and what it may be the plural of."""
    found = {word, _IRREGULAR.get(word, word)}
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        found.add(word[:-1])
        if word.endswith(("ses", "xes", "zes", "ches", "shes", "oes")):
            found.add(word[:-2])
        if word.endswith("ies") and len(word) > 4:
            found.add(word[:-3] + "y")
    return frozenset(found)


def bases(text: str) -> list[frozenset[str]]:
    """The forms of each word of a text, in order: what `occurs` looks through."""
    return [forms(word) for word in words(text)]


def occurs(needle: list[str], hay: Sequence[frozenset[str]], gap: int = 3) -> bool:
    """Whether the words stand in `hay` in their order, in singular or plural, with at most `gap` other words
    between two of them."""
    if not needle:
        return False
    first = forms(needle[0])
    starts = [place for place, found in enumerate(hay) if not first.isdisjoint(found)]
    return any(_follows(needle, hay, start, gap) for start in starts)


def _follows(needle: list[str], hay: Sequence[frozenset[str]], start: int, gap: int) -> bool:
    """Whether the rest follows a first word at `start`; keeps every place that the last word may have, so
    none is missed."""
    reached = {start}
    for word in needle[1:]:
        wanted = forms(word)
        reached = {
            place
            for last in reached
            for place in range(last + 1, min(last + 2 + gap, len(hay)))
            if not wanted.isdisjoint(hay[place])
        }
        if not reached:
            return False
    return True

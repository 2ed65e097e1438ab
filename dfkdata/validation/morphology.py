"""Words of a text, their base forms, and the words that carry no content, for English and Indonesian.

How it works. Each word stands for a few base forms, and two words are the same word if they share a form.
English: regular plurals, also those in -is and -us (skis, menus) and of words in -sis, and the irregular
plurals below, alone or at the end of a compound (bookshelves). Words of `_NO_PLURALS` (news, shorts) are
plurals of nothing. A plural has every singular that it could come from (axes: ax, axe, axis), since a form
that is no word does no harm. Verb forms are not known, and words of two meanings are not told apart (leaves).
Indonesian: one prefix of me-, di-, ber-, ter-, pe-, ke-, se- with its sound change, one suffix of -kan, -an,
-i, possessives, particles and doubled words (anak-anak). Roots shorter than four letters stay whole, and
infixes are not known."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Literal

from dfkdata.common.unicode_forms import normalize

Language = Literal["en", "id"]

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_POSSESSIVE = re.compile(r"['’]s$")

#: English for captions, Indonesian for posts; one list, because texts of one language quote the other.
#: "no" and "not" are left out: they turn a meaning round.
STOP_WORDS = frozenset(
    (
        "a an the and or but of in on at to for with from by as is are was were be been being it its this "
        "that these those there here his her their he she they them we you i has have had do does did "
        "yang dan atau di ke dari untuk dengan pada ini itu adalah ada para oleh sebuah seorang"
    ).split()
)
_IRREGULAR = {
    "children": "child",
    "men": "man",
    "women": "woman",
    "people": "person",
    "mice": "mouse",
    "geese": "goose",
    "feet": "foot",
    "teeth": "tooth",
    "oxen": "ox",
    "lice": "louse",
    "dice": "die",
    "pence": "penny",
    "cacti": "cactus",
    "fungi": "fungus",
    "octopi": "octopus",
    "alumni": "alumnus",
    "radii": "radius",
    "nuclei": "nucleus",
    "larvae": "larva",
    "antennae": "antenna",
    "criteria": "criterion",
    "bacteria": "bacterium",
    "vertices": "vertex",
    "indices": "index",
    "matrices": "matrix",
    "knives": "knife",
    "wives": "wife",
    "lives": "life",
    "leaves": "leaf",
    "loaves": "loaf",
    "sheaves": "sheaf",
    "shelves": "shelf",
    "selves": "self",
    "elves": "elf",
    "halves": "half",
    "calves": "calf",
    "wolves": "wolf",
    "scarves": "scarf",
    "dwarves": "dwarf",
    "wharves": "wharf",
    "thieves": "thief",
    "hooves": "hoof",
    "rooves": "roof",
    "buses": "bus",
    "busses": "bus",
    "gases": "gas",
    "gasses": "gas",
    "lenses": "lens",
    "quizzes": "quiz",
    "plateaux": "plateau",
    "passersby": "passerby",
}
_NO_PLURALS = frozenset(
    """news goods means mrs hers ours yours theirs shorts overalls tights briefs blues series species this
    does always perhaps thus various""".split()
)
_COMPOUND_HEAD = 3
_MIN_ROOT = 4


def words(text: str) -> list[str]:
    """Return the lower-case words of `text` in order, less a possessive 's; hyphens separate words."""
    return [_POSSESSIVE.sub("", word) for word in _WORD.findall(normalize("NFC", text).lower())]


def content_words(text: str) -> list[str]:
    """Return the words of `text` that are no stop words, or all of them if there are only stop words."""
    all_words = words(text)
    return [word for word in all_words if word not in STOP_WORDS] or all_words


@lru_cache(maxsize=65_536)
def forms(word: str, language: Language) -> frozenset[str]:
    """Return the word and its base forms."""
    return frozenset({word, *(_english(word) if language == "en" else _indonesian(word))})


def _english(word: str) -> Iterator[str]:
    irregular = _irregular(word)
    if irregular:
        yield irregular
    elif word.endswith("s") and not word.endswith("ss") and word not in _NO_PLURALS:
        yield from _regular(word)


def _irregular(word: str) -> str:
    """Return the singular of an irregular plural, or of a compound that ends in one; "" for other words."""
    for start in (0, *range(_COMPOUND_HEAD, len(word) - 2)):
        if word[start:] in _IRREGULAR:
            return word[:start] + _IRREGULAR[word[start:]]
    return ""


def _regular(word: str) -> Iterator[str]:
    """Yield the singulars that a word in -s may be the plural of."""
    if len(word) > 3 or (len(word) == 3 and word[1] not in "aeiou"):  # tvs and ads, but not gas and his
        yield word[:-1]
    if len(word) > 4 and word.endswith("ies"):
        yield word[:-3] + "y"
    elif len(word) > 3 and word.endswith(("ses", "xes", "zes", "ches", "shes", "oes")):
        yield word[:-2]
        yield word[:-2] + "is"


_PARTICLES = ("lah", "kah", "tah", "pun")
_POSSESSIVES = ("nya", "ku", "mu")
_SUFFIXES = ("kan", "an", "i")
_PREFIXES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("meny", ("s",)),
    ("peny", ("s",)),
    ("meng", ("", "k")),
    ("peng", ("", "k")),
    ("mem", ("", "p")),
    ("pem", ("", "p")),
    ("men", ("", "t")),
    ("pen", ("", "t")),
    ("ber", ("",)),
    ("ter", ("",)),
    ("per", ("",)),
    ("me", ("",)),
    ("pe", ("",)),
    ("di", ("",)),
    ("ke", ("",)),
    ("se", ("",)),
)


def _indonesian(word: str) -> Iterator[str]:
    bases = {word}
    for endings in (_PARTICLES, _POSSESSIVES, _SUFFIXES):
        bases |= {
            base[: -len(end)]
            for base in bases
            for end in endings
            if _leaves_root(base, end, base.endswith(end))
        }
    for base in sorted(bases):
        yield base
        for prefix, starts in _PREFIXES:
            if _leaves_root(base, prefix, base.startswith(prefix)):
                yield from (start + base[len(prefix) :] for start in starts)


def _leaves_root(word: str, affix: str, fits: bool) -> bool:
    return fits and len(word) - len(affix) >= _MIN_ROOT

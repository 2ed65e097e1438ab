"""How much of an answer is said by the text that it was made from.

Strategy: texts are cut into whole words, each word stands for a few base forms, and a text of the answer is
supported when each of its content words shares a form with a word of the source. Order and relations are not
looked at, since an answer may turn a sentence round.
What the forms know. English: regular plurals, also in -is, -us (skis, menus) and of words in -sis, and the
irregular plurals below, alone or at the end of a compound (bookshelves); words of `_NO_PLURALS` are none. A
plural has each singular that it could come from (axes: ax, axe, axis), since a form that is no word does no
harm; what means two things is not told apart (leaves). No verb forms.
Indonesian: one prefix of me-, di-, ber-, ter-, pe-, ke-, se- with its sound change, one suffix of -kan, -an,
-i, possessives, particles and doubled words (anak-anak); roots shorter than four letters are left alone, and
infixes are not known. Only fields with the role `Grounded` count: what may be inferred or derived is not in
the text. An answer that says nothing has no rate; it is empty, not perfect."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from dfkdata.schemas import Grounded, Schema

Language = Literal["en", "id"]

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
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
_EMPTY_WORDS: dict[Language, frozenset[str]] = {
    "en": frozenset("a an the of in on at to and or with by for from is are its it".split()),
    "id": frozenset("yang di ke dari dan atau dengan pada untuk itu ini adalah oleh sebuah seorang".split()),
}
_MIN_ROOT = 4


class Rate(NamedTuple):
    """supported, texts: counts. missing: texts of the answer that the source does not support."""

    supported: int
    texts: int
    missing: tuple[str, ...]

    @property
    def value(self) -> float | None:
        """supported / texts in [0, 1]; None for an answer that says nothing."""
        return self.supported / self.texts if self.texts else None


def rate(gold: dict[str, Any], source: str, schema: Schema, language: Language = "en") -> Rate:
    """How many texts of the grounded fields of `gold` the `source` supports."""
    found = forms_of(source, language)
    texts = list(grounded_texts(gold, schema))
    missing = tuple(text for text in texts if not supported(text, found, language))
    return Rate(len(texts) - len(missing), len(texts), missing)


def grounded_texts(gold: dict[str, Any], schema: Schema) -> Iterator[str]:
    """The texts in fields with the role `Grounded`, at any depth, in order."""
    for name, role in schema.roles.items():
        if isinstance(role, Grounded):
            yield from _texts(gold.get(name))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


def forms_of(text: str, language: Language) -> frozenset[str]:
    """The base forms of all words of `text`."""
    return frozenset(form for word in words(text) for form in forms(word, language))


def supported(text: str, source: frozenset[str], language: Language) -> bool:
    """Whether each content word of `text` has a form in `source`; of a text of empty words alone, each word
    counts."""
    found = words(text)
    content = [word for word in found if word not in _EMPTY_WORDS[language]] or found
    return bool(content) and all(forms(word, language) & source for word in content)


def words(text: str) -> list[str]:
    """Whole words in lower case; hyphens separate."""
    return _WORD.findall(unicodedata.normalize("NFC", text).lower())


@lru_cache(maxsize=65_536)
def forms(word: str, language: Language) -> frozenset[str]:
    """The word itself and its base forms."""
    return frozenset({word, *(_english(word) if language == "en" else _indonesian(word))})


def _english(word: str) -> Iterator[str]:
    word = word.removesuffix("'s").removesuffix("’s")
    yield word
    irregular = _irregular(word)
    if irregular:
        yield irregular
    elif word.endswith("s") and not word.endswith("ss") and word not in _NO_PLURALS:
        yield from _regular(word)


def _irregular(word: str) -> str:
    """The singular of an irregular plural or of a compound that ends in one; empty for other words."""
    for start in (0, *range(_COMPOUND_HEAD, len(word) - 2)):
        if word[start:] in _IRREGULAR:
            return word[:start] + _IRREGULAR[word[start:]]
    return ""


def _regular(word: str) -> Iterator[str]:
    """The singulars that a word in -s may be the plural of."""
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

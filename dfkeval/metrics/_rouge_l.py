"""Score pairs of texts by ROUGE-L: the longest common subsequence of words.

How it works: the subsequence is found bit-parallel (one big integer holds a row of the table; one addition a word).
Words follow the rule of the rouge_score package without stemmer, so that numbers on Latin text are equal to the bit.
That rule keeps only a-z and 0-9. A pair with letters of another script would score 0 against itself by it, so Unicode
words are used for both sides instead (single characters for scripts that write no blanks).

Guarantees:

- Any text with a letter or a digit scores 1.0 against itself; texts without words score 0."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from dfkeval.metrics._prose import TextScores

_ASCII_WORD = re.compile(r"[a-z0-9]+")
#: Most characters of a pair whose score is cached; longer texts would hold memory.
KEPT = 2000
_NO_BLANKS = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")


def rouge_l(candidates: Sequence[str], references: Sequence[str]) -> TextScores:
    """Score each pair of texts by ROUGE-L; no text is ever cut.

    Args:
        candidates: The answers.
        references: The gold texts, one for each answer.

    Returns:
        Precision, recall and F1 of each pair.

    Raises:
        ValueError: The lists have different lengths.
    """
    rows = [score_pair(answer, gold) for answer, gold in zip(candidates, references, strict=True)]
    values = np.array(rows, dtype=np.float64).reshape(len(rows), 3)
    return TextScores(values[:, 0], values[:, 1], values[:, 2], np.zeros(len(rows), dtype=np.bool_))


def score_pair(candidate: str, reference: str) -> tuple[float, float, float]:
    """Return precision, recall and F1 of one pair."""
    if _is_plain(candidate) and _is_plain(reference):
        return latin_pair(candidate, reference)
    return score_words(_unicode_words(candidate), _unicode_words(reference))


def latin_pair(candidate: str, reference: str) -> tuple[float, float, float]:
    """Return the same by the rouge_score package's rule alone."""
    if len(candidate) + len(reference) > KEPT:
        return score_words(latin_words(candidate), latin_words(reference))
    return short_pair(candidate, reference)


@lru_cache(maxsize=1 << 14)
def short_pair(candidate: str, reference: str) -> tuple[float, float, float]:
    """Return the score of a short pair from a cache, since several metrics ask for the same."""
    return score_words(latin_words(candidate), latin_words(reference))


def latin_words(text: str) -> list[str]:
    """Return the words by the rouge_score package's rule, which keeps a-z and 0-9 and nothing else."""
    return _ASCII_WORD.findall(text.lower())


def score_words(candidate: Sequence[str], gold: Sequence[str]) -> tuple[float, float, float]:
    """Return precision, recall and F1 of two lists of words."""
    if not candidate or not gold:
        return (0.0, 0.0, 0.0)
    common = lcs(gold, candidate)
    precision, recall = common / len(candidate), common / len(gold)
    return (precision, recall, 2 * precision * recall / (precision + recall) if common else 0.0)


def _is_plain(text: str) -> bool:
    """Return whether the rule for Latin text sees all of the text's letters and digits."""
    if text.isascii():
        return True
    kinds = {_kind(sign) for sign in set(text)}
    return not kinds - {"latin", ""} and (not kinds & {"latin"} or bool(latin_words(text)))


@lru_cache(maxsize=8192)
def _kind(sign: str) -> str:
    """Return "latin", "word" (another script), "single" (a script without blanks), or "" for separators."""
    if unicodedata.category(sign)[0] not in "LNM":
        return ""
    name = unicodedata.name(sign, "")
    if name.startswith(_NO_BLANKS):
        return "single"
    return "latin" if sign.isascii() or "LATIN" in name or unicodedata.category(sign)[0] == "M" else "word"


def _unicode_words(text: str) -> list[str]:
    words: list[str] = []
    word = ""
    for sign in text.lower():
        kind = _kind(sign)
        if kind in ("latin", "word"):
            word += sign
            continue
        if word:
            words.append(word)
            word = ""
        if kind == "single":
            words.append(sign)
    return [*words, word] if word else words


def lcs(a: Sequence[str], b: Sequence[str]) -> int:
    """Return the length of the longest common subsequence, in O(len(b)) operations on integers of len(a) bits."""
    places: dict[str, int] = {}
    known, bit = places.get, 1
    for word in a:
        places[word] = known(word, 0) | bit
        bit <<= 1
    row = full = bit - 1
    for word in b:
        bits = known(word)
        if bits is not None:  # a word that only one side has leaves the row as it is
            matches = row & bits
            row = ((row + matches) | (row - matches)) & full
    return len(a) - row.bit_count()

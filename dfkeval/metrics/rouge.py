"""ROUGE-L: longest common subsequence of words, over the answer's prose fields.

Strategy: a bit-parallel subsequence (one big integer holds a row of the table; one addition a word), and
the word rule of the rouge_score package without stemmer, so that numbers on Latin text are equal to the
bit. That rule keeps only a-z and 0-9; where a pair has letters of another script it would score 0 against
itself, and Unicode words are used for both sides instead (single characters for scripts that write no
blanks). Promises: any text scores 1.0 against itself if it has one letter or digit; texts without words
score 0."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from dfkeval.metrics import Measured, Metric, Scoring
from dfkeval.metrics._texts import COLUMNS, Scores, means, pairs, table
from dfkeval.samples import Sample

_ASCII_WORD = re.compile(r"[a-z0-9]+")
_NO_BLANKS = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")


def rouge_l(candidates: Sequence[str], references: Sequence[str]) -> Scores:
    """Precision, recall and F1 of each pair; nothing is ever truncated. Raises `ValueError` for unequal
    lengths."""
    rows = [score_pair(said, gold) for said, gold in zip(candidates, references, strict=True)]
    values = np.array(rows, dtype=np.float64).reshape(len(rows), 3)
    return Scores(values[:, 0], values[:, 1], values[:, 2], np.zeros(len(rows), dtype=np.bool_))


def score_pair(candidate: str, reference: str) -> tuple[float, float, float]:
    """(precision, recall, f1) of one pair."""
    return score_words(*tokens(candidate, reference))


def latin_words(text: str) -> list[str]:
    """Words by the rouge_score package's rule, which keeps a-z and 0-9 and nothing else."""
    return _ASCII_WORD.findall(text.lower())


def score_words(said: Sequence[str], gold: Sequence[str]) -> tuple[float, float, float]:
    """(precision, recall, f1) of two lists of words."""
    if not said or not gold:
        return (0.0, 0.0, 0.0)
    common = lcs(gold, said)
    precision, recall = common / len(said), common / len(gold)
    return (precision, recall, 2 * precision * recall / (precision + recall) if common else 0.0)


def tokens(a: str, b: str) -> tuple[list[str], list[str]]:
    """Words of both texts by one rule, which is the Unicode one as soon as either text needs it."""
    plain = _plain(a), _plain(b)
    if all(found is not None for found in plain):
        return plain[0] or [], plain[1] or []
    return _unicode_words(a), _unicode_words(b)


def _plain(text: str) -> list[str] | None:
    """Words of a Latin text; None when it has letters or digits that this rule cannot see at all."""
    found = latin_words(text)
    if text.isascii():
        return found
    kinds = {_kind(sign) for sign in set(text)}
    if kinds - {"latin", ""} or (not found and "latin" in kinds):
        return None
    return found


@lru_cache(maxsize=8192)
def _kind(sign: str) -> str:
    """ "latin", "word" (another script), "single" (a script without blanks), or "" for what separates
    words."""
    if unicodedata.category(sign)[0] not in "LNM":
        return ""
    name = unicodedata.name(sign, "")
    if name.startswith(_NO_BLANKS):
        return "single"
    return "latin" if sign.isascii() or "LATIN" in name or unicodedata.category(sign)[0] == "M" else "word"


def _unicode_words(text: str) -> list[str]:
    found: list[str] = []
    word = ""
    for sign in text.lower():
        kind = _kind(sign)
        if kind in ("latin", "word"):
            word += sign
            continue
        if word:
            found.append(word)
            word = ""
        if kind == "single":
            found.append(sign)
    return [*found, word] if word else found


def lcs(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence; O(len(b)) operations on integers of len(a) bits."""
    places: dict[str, int] = {}
    for index, word in enumerate(a):
        places[word] = places.get(word, 0) | (1 << index)
    full = (1 << len(a)) - 1
    row = full
    for word in b:
        matches = row & places.get(word, 0)
        row = ((row + matches) | (row - matches)) & full
    return len(a) - row.bit_count()


def measure(samples: Sequence[Sample], scoring: Scoring) -> Measured:
    """(N, 4): "n", precision, recall, f1."""
    places, said, gold = pairs(samples, scoring)
    values = table(len(samples), places, rouge_l(said, gold))
    return Measured(COLUMNS, values, values[:, 0] > 0)


METRIC = Metric(measure, means)

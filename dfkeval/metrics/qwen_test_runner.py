"""Reproduce the published results of qwen-test-runner, under its names and with its rules.

What differs from `validity`, `grounding` and `coverage`, on purpose and only here: the answer is the first
balanced `{…}` in the raw text, checked by a lax class of five optional slots; the means run over valid
answers only; an answer that says nothing is fully grounded; a text is grounded where it is a substring of
the caption, so "cat" is grounded by "concatenate"; plurals lose their ending by a rule that makes "horses"
"hors". The deviations that follow from this are listed in docs/evaluation.md."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from dfkdata.schemas import Derived
from dfkeval.metrics import Floats, Measured, Metric, Scoring, column, ratio
from dfkeval.parsing.legacy import qwen_test_runner
from dfkeval.types import Sample

COLUMNS = ("n", "valid", "grounding", "coverage", "hallucinations", "clean")
ALWAYS = frozenset({"indoor", "outdoor", "unknown"})
_WORD = re.compile(r"[a-z0-9]+")
#: Only stop words of three letters and more matter: shorter words are never content there.
_STOP = frozenset(
    "the and with are was were been being this that these those its for from into onto over under".split()
)

_Short = Annotated[str, Field(max_length=64)]


class _Subject(BaseModel):
    name: str = Field(min_length=1, max_length=64)
    attributes: list[str] = Field(default_factory=list, max_length=8)


class _Caption(BaseModel):
    """The slots as that tool checks them: by pydantic's lax rules, without unknown keys."""

    subjects: list[_Subject] = Field(default_factory=list, max_length=8)
    actions: list[str] = Field(default_factory=list, max_length=8)
    setting: Literal["indoor", "outdoor", "unknown"] = "unknown"
    style: _Short | None = None
    mood: _Short | None = None


def read(text: str) -> tuple[_Caption | None, str | None]:
    """Return the caption in a raw answer, or None and "no JSON object found", "json decode" or "schema"."""
    parsed = qwen_test_runner(text)
    if parsed.error is not None:
        return None, parsed.error.partition(":")[0]
    try:
        return _Caption.model_validate(parsed.value), None
    except ValidationError:
        return None, "schema"


def checked(caption: _Caption) -> Iterator[tuple[str, str]]:
    """Yield place and text of the leaves that the caption text has to support."""
    for index, subject in enumerate(caption.subjects):
        yield f"subjects[{index}].name", subject.name
        for place, text in enumerate(subject.attributes):
            yield f"subjects[{index}].attributes[{place}]", text
    for index, text in enumerate(caption.actions):
        yield f"actions[{index}]", text


def inferred(caption: _Caption) -> list[str]:
    """Return the leaves that always count as grounded."""
    return [text for text in (caption.style, caption.mood) if text is not None]


@lru_cache(maxsize=65536)
def singular(word: str) -> str:
    """Return the singular by that tool's rule for plurals, whatever it does to the word."""
    if len(word) <= 3:
        return word
    for ending, instead in (("ies", "y"), ("es", ""), ("s", "")):
        if word.endswith(ending):
            return word[: -len(ending)] + instead
    return word


@lru_cache(maxsize=1024)
def _words(text: str) -> frozenset[str]:
    return frozenset(singular(word) for word in _WORD.findall(text.lower()))


def grounded(leaf: str, source: str) -> bool:
    """Return whether that tool calls a leaf supported by the caption text."""
    folded = leaf.lower().strip()
    if folded in ALWAYS or folded in source.lower().strip():
        return True
    words = _words(leaf)
    return bool(words) and words <= _words(source)


def _content(text: str) -> set[str]:
    return {singular(word) for word in _WORD.findall(text.lower()) if len(word) > 2 and word not in _STOP}


def score(caption: _Caption, source: str) -> tuple[float, float, list[tuple[str, str]]]:
    """Return grounding rate, coverage rate and unsupported leaves with their places of one valid answer."""
    leaves, free = list(checked(caption)), inferred(caption)
    lost = [(place, text) for place, text in leaves if not grounded(text, source)]
    total = len(leaves) + len(free)
    content, answered = _content(source), _content(" ".join([*(text for _, text in leaves), *free]))
    rate = (total - len(lost)) / total if total else 1.0
    return rate, len(content & answered) / len(content) if content else 1.0, lost


def measure(samples: Sequence[Sample], scoring: Scoring) -> Measured:
    """Return (N, 6) statistics for `COLUMNS`. Rows without a source text are not scored."""
    values = np.zeros((len(samples), len(COLUMNS)))
    errors: Counter[str] = Counter()
    for row, sample in zip(values, samples, strict=True):
        if not sample.answered or sample.source_text is None:
            continue
        caption, error = read(sample.text)
        row[0] = 1
        if caption is None:
            errors[str(error)] += 1
            continue
        rate, covered, lost = score(caption, sample.source_text)
        row[1:] = (1, rate, covered, len(lost), not lost)
    return Measured(COLUMNS, values, values[:, 0] > 0, {"parse_errors": dict(sorted(errors.items()))})


def reduce(sums: Floats, columns: tuple[str, ...]) -> dict[str, Floats]:
    """Return values under that tool's names. Means are over valid answers, and 0 if none is valid."""
    n, valid = column(sums, columns, "n"), column(sums, columns, "valid")
    out = {"schema_valid_rate": ratio(valid, n)}
    for name in ("grounding", "coverage"):
        mean = ratio(column(sums, columns, name), valid)
        out[f"mean_{name}_rate"] = np.where((n > 0) & (valid == 0), 0.0, mean)
    out["total_hallucinations"] = np.where(n > 0, column(sums, columns, "hallucinations"), np.nan)
    out["samples_with_zero_hallucinations"] = np.where(n > 0, column(sums, columns, "clean"), np.nan)
    return out


METRIC = Metric(
    measure,
    reduce,
    needs=(Derived,),
    reproduces="qwen-test-runner 0.2",
    unbounded=("total_hallucinations", "samples_with_zero_hallucinations"),
)

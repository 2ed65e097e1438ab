"""Decide how much of an answer the text supports that it was made from.

How it works. Every text in a field with the role `Grounded` must be supported by the source: each of its
content words shares a base form with a word of the source (`dfkdata.validation.morphology`). The order of
words does not count, since an answer may turn a sentence round; with `max_gap` the words must also stand in
their order and close together. Fields with other roles are not looked at, because what may be inferred or
derived is not in the text.

Guarantees:
- `dfkdata convert --grounding`, the metrics `grounding` and `coverage` and the validator `grounding` all use
  these functions, so one answer gets one verdict.
- An answer that says nothing has no rate: it is empty, not perfect."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from dfkdata.schemas import Grounded, Schema
from dfkdata.validation.morphology import STOP_WORDS, Language, content_words, forms, words


class GroundingRate(NamedTuple):
    """The counts of one answer; `missing` holds the texts that the source does not support."""

    supported: int
    texts: int
    missing: tuple[str, ...]

    @property
    def value(self) -> float | None:
        """Return supported / texts in [0, 1], or None for an answer that says nothing."""
        return self.supported / self.texts if self.texts else None


class GroundingSource:
    """A source text whose words are looked up once, for many texts of an answer.

    Args:
        text: The source.
        language: Whose word forms count.
        max_gap: If set, a text's words must stand in the source in their order, with at most this many other
            words between two of them. None accepts them in any order and place.
    """

    def __init__(self, text: str, language: Language = "en", *, max_gap: int | None = None) -> None:
        self.language, self.max_gap = language, max_gap
        self._words = [forms(word, language) for word in words(text)]
        self._forms = frozenset(form for word in self._words for form in word)

    def supports(self, text: str) -> bool:
        """Return whether the source says each content word of `text`; False for a text without words."""
        content = [forms(word, self.language) for word in content_words(text)]
        if not content or any(word.isdisjoint(self._forms) for word in content):
            return False
        return self.max_gap is None or self._in_order(content, self.max_gap)

    def _in_order(self, content: list[frozenset[str]], max_gap: int) -> bool:
        """Return whether the words stand in order, following every place that each of them may have."""
        places = set(range(len(self._words)))
        for number, word in enumerate(content):
            near = places if number == 0 else _places_after(places, max_gap)
            places = {at for at in near if at < len(self._words) and not word.isdisjoint(self._words[at])}
        return bool(places)


def _places_after(places: set[int], max_gap: int) -> set[int]:
    return {after for place in places for after in range(place + 1, place + 2 + max_gap)}


def rate(
    answer: dict[str, Any],
    source: str,
    schema: Schema,
    language: Language = "en",
    *,
    max_gap: int | None = None,
) -> GroundingRate:
    """Count the texts of an answer that its source supports.

    Args:
        answer: The answer as the schema's dict.
        source: The text that the answer was made from.
        schema: Whose fields with the role `Grounded` are looked at.
        language: Whose word forms count.
        max_gap: As for `GroundingSource`.

    Returns:
        The counts and the unsupported texts.
    """
    texts = list(grounded_texts(answer, schema))
    source_text = GroundingSource(source, language, max_gap=max_gap)
    missing = tuple(text for text in texts if not source_text.supports(text))
    return GroundingRate(len(texts) - len(missing), len(texts), missing)


def grounded_texts(answer: dict[str, Any], schema: Schema) -> Iterator[str]:
    """Yield the texts in fields with the role `Grounded`, at any depth, in order."""
    for name, role in schema.roles.items():
        if isinstance(role, Grounded):
            yield from _texts(answer.get(name))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


_SHORTEST_COVERED = 3


def coverage(text: str, source: str, language: Language = "en") -> float | None:
    """Return the share of the source's content words that `text` says.

    Args:
        text: The answer in words.
        source: The text that the answer was made from.
        language: Whose word forms count.

    Returns:
        A share in [0, 1], or None if the source has no content word of three letters or more.
    """
    to_cover = {word for word in words(source) if word not in STOP_WORDS and len(word) >= _SHORTEST_COVERED}
    if not to_cover:
        return None
    text_forms = {form for word in words(text) for form in forms(word, language)}
    return sum(not forms(word, language).isdisjoint(text_forms) for word in to_cover) / len(to_cover)

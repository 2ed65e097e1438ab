"""Take an answer apart into comparable leaves, by field roles.

How it works: a list of texts gives one leaf a text. A list of objects gives one leaf for the object's first text (its
name) and one for each entry of its lists, tied to that name. A leaf that equals the field's default says nothing and
is left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from dfkdata.schemas import Choice, Grounded, Label, Prose, Schema

Value = dict[str, Any]
Leaf = tuple[str, ...]  # (kind, text) or (kind, name, text)


@lru_cache(maxsize=8192)
def fold(text: str) -> str:
    """Return the text in lower case, with single blanks between words."""
    return " ".join(text.split()).casefold()


def leaves(value: Value, schema: Schema) -> Counter[Leaf]:
    """Return the leaves of all comparable fields (labels, enums, grounded lists) with their number."""
    bag: Counter[Leaf] = Counter()
    for name, role in schema.roles.items():
        if isinstance(role, Grounded):
            bag.update(list_leaves(name, value.get(name)))
        elif isinstance(role, Choice | Label):
            chosen = value.get(name)
            if isinstance(chosen, str) and chosen != default(schema, name):
                bag[(name, fold(chosen))] += 1
    return bag


def list_leaves(name: str, entries: Any) -> Iterator[Leaf]:
    """Yield the leaves of one grounded list."""
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, str):
            yield (name, fold(entry))
        elif isinstance(entry, dict):
            yield from _object_leaves(name, entry)


def _object_leaves(name: str, entry: Value) -> Iterator[Leaf]:
    title = next((value for value in entry.values() if isinstance(value, str)), "")
    if title:
        yield (name, fold(title))
    for key, inner in entry.items():
        for text in inner if isinstance(inner, list) else ():
            if isinstance(text, str):
                yield (key, fold(title), fold(text))


def default(schema: Schema, name: str) -> Any:
    """Return the field's default; None if it has none."""
    return _default(schema.answer, name)


@lru_cache(maxsize=1024)
def _default(answer: type[BaseModel], name: str) -> Any:
    """Return the default from a cache: pydantic inspects the factory every time, for each slot of each answer."""
    field = answer.model_fields[name]
    value = field.get_default(call_default_factory=True, validated_data={})
    return None if value is PydanticUndefined else value


def choice(value: Value, schema: Schema, name: str) -> str:
    """Return the value of an enum field; a slot that is left out means its default."""
    chosen = value.get(name, default(schema, name))
    return fold(str(chosen))


def says_something(value: Value, schema: Schema) -> bool:
    """Return whether any field holds more than null, blank, an empty list or its default."""
    return any(
        bool(slot.strip() if isinstance(slot, str) else slot) and slot != _default_or_none(schema, name)
        for name, slot in value.items()
    )


def _default_or_none(schema: Schema, name: str) -> Any:
    return default(schema, name) if name in schema.answer.model_fields else None


def prose(value: Value, schema: Schema) -> str:
    """Return the answer as text for ROUGE and BERTScore: its prose fields, or its leaves in words if it has none."""
    texts = [str(value.get(name) or "") for name, role in schema.roles.items() if isinstance(role, Prose)]
    if texts:
        return "\n".join(texts).strip()
    return ", ".join(_words(value.get(name)) for name in schema.roles if _words(value.get(name)))


def _words(slot: Any) -> str:
    """Return a slot in words: ("dog", ["red", "small"]) -> "red small dog", with attributes before the name."""
    if isinstance(slot, str):
        return slot
    if isinstance(slot, list):
        return ", ".join(word for word in map(_words, slot) if word)
    if isinstance(slot, dict):
        lists = [
            text
            for inner in slot.values()
            if isinstance(inner, list)
            for text in inner
            if isinstance(text, str)
        ]
        return " ".join([*lists, *(text for text in slot.values() if isinstance(text, str))])
    return ""


def overlap(answer: set[str], gold: set[str]) -> tuple[float, float, float]:
    """Return precision, recall and F1 of two sets; 0 for an empty one."""
    common = len(answer & gold)
    if not common:
        return (0.0, 0.0, 0.0)
    return common / len(answer), common / len(gold), 2 * common / (len(answer) + len(gold))
